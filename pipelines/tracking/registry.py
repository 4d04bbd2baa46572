"""Trained models in MLflow: register a model folder, find the one that a name means."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from orbitdiff.errors import BadInput, CheckpointError
from pipelines.tracking.generators import GENERATORS

__all__ = ["NEWEST", "folder_of_run", "register", "run_of_model", "training_runs"]

NEWEST = "newest"
"""Alias of the version that was registered last."""
DIGEST = "orbitdiff.digest"
"""Tag of a version: the content of its model folder."""


def register(client: Any, uri: str, run_id: str, folder: Path, *, name: str, digest: str) -> str:
    """Log a model folder as a pyfunc model of a run, register it, return its version.

    The same folder of the same run gives one version, however often it is registered.

    Parameters
    ----------
    client : MlflowClient
    uri : str
        Tracking URI.
    run_id : str
    folder : Path
        Model folder: model.safetensors, config.json (which names the task), checksums.json.
    name : str
        Name of the registered model; its alias `newest` moves to the new version.
    digest : str
        Names the content of the folder.
    """
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    generator = GENERATORS[json.loads((folder / "config.json").read_text())["task"]]
    inputs = Schema(
        [
            ColSpec("string", generator.described_by),
            ColSpec("long", "n", required=False),
            ColSpec("long", "seed", required=False),
        ]
    )
    outputs = Schema(
        [ColSpec("string", generator.described_by), ColSpec("string", generator.gives)]
    )
    known = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    version = next((str(x.version) for x in known if x.tags.get(DIGEST) == digest), "")
    if not version:
        mlflow.set_tracking_uri(uri)
        with mlflow.start_run(run_id=run_id):
            info = mlflow.pyfunc.log_model(
                name="generator",
                python_model=str(generator.code),
                artifacts={"model": str(folder)},
                signature=ModelSignature(inputs, outputs),
                pip_requirements=[f"orbitdiff[{generator.extra}]"],
            )
        about = client.get_run(run_id).data.tags.items()
        tags = {key: value for key, value in about if not key.startswith("mlflow.")}
        made = mlflow.register_model(info.model_uri, name, tags={**tags, DIGEST: digest})
        version = str(made.version)
    client.set_registered_model_alias(name, NEWEST, version)
    return version


def training_runs(client: Any, task: str, *, limit: int = 20) -> list[Any]:
    """Finished training runs of a task, newest first."""
    found = client.get_experiment_by_name(task)
    if found is None:
        return []
    runs: list[Any] = client.search_runs(
        [found.experiment_id],
        "tags.stage = 'train' and attributes.status = 'FINISHED'",
        order_by=["attributes.start_time DESC"],
        max_results=limit,
    )
    return runs


def run_of_model(client: Any, uri: str) -> str:
    """Run id behind `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises
    ------
    BadInput
        Another form, unknown model, alias or version.
    """
    from mlflow.exceptions import MlflowException

    path = uri.removeprefix("models:/")
    name, at, alias = path.rpartition("@")
    try:
        if at:
            version = client.get_model_version_by_alias(name, alias)
        else:
            name, _, number = path.rpartition("/")
            version = client.get_model_version(name, number)
    except MlflowException as error:
        known = [model.name for model in client.search_registered_models()]
        raise BadInput(
            f"expected models:/NAME@ALIAS or models:/NAME/VERSION of a registered model "
            f"(there are: {known}), got {uri!r}: {error.message}"
        ) from error
    return str(version.run_id)


def folder_of_run(client: Any, run_id: str) -> Path:
    """Model folder that a run recorded; fetched where the artifacts are on a server.

    Raises
    ------
    BadInput
        Unknown run, or a run that is no training.
    CheckpointError
        Its files are gone.
    """
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise BadInput(f"expected the id of an MLflow run, got {run_id!r}: {error}") from error
    name = run.info.run_name
    if run.data.tags.get("stage") != "train":
        raise BadInput(f"run {run_id} ({name}) is no training run and has no model")
    place = urlparse(run.info.artifact_uri)
    if place.scheme in ("", "file"):
        folder = Path(unquote(place.path)) / name
    else:
        try:
            folder = Path(client.download_artifacts(run_id, name))
        except (MlflowException, OSError) as error:
            raise CheckpointError(
                f"the model files of run {run_id} ({name}) are gone: {error}; train it again"
            ) from error
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"the model files of run {run_id} ({name}) are gone from {folder}; train it again"
        )
    return folder
