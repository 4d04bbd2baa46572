"""The model folder that `--checkpoint` means: a path, a run, a registered model, or the default."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from orbitdiff.errors import BadInput, CheckpointError
from orbitdiff.training.checkpoint import is_complete

__all__ = ["Checkpoint", "find_checkpoint"]


@final
@dataclass(frozen=True)
class Checkpoint:
    """A model folder and where it came from."""

    folder: Path
    origin: str

    def __str__(self) -> str:
        """One line: origin, preset, data set, estimator, seed."""
        try:
            about = json.loads((self.folder / "config.json").read_text())
        except (OSError, ValueError):
            return f"{self.origin}: {self.folder}"
        names = ("preset", "dataset", "estimator_name", "seed")
        parts = [f"{about[name]}" for name in names if name in about]
        return f"{self.origin}: {self.folder} ({', '.join(parts)})"


def find_checkpoint(name: str, task: str, *, demo: Path) -> Checkpoint:
    """Return the model folder that a name means.

    Parameters
    ----------
    name : str
        A folder, `run:ID`, `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or nothing: the newest
        finished training run of the task, else the demo model.
    task : str
    demo : Path
        Folder of the model that the package ships.

    Raises
    ------
    BadInput
        Unknown run, model or alias.
    CheckpointError
        The files of a named run are gone.
    """
    if name.startswith("run:") or name.startswith("models:/"):
        from pipelines.tracking.registry import folder_of_run, run_of_model

        client = _client()
        run_id = (
            name.removeprefix("run:") if name.startswith("run:") else run_of_model(client, name)
        )
        return Checkpoint(folder_of_run(client, run_id), name)
    if name:
        return Checkpoint(Path(name), "folder")
    recorded = _newest_recorded(task) or _newest_folder(task)
    return recorded or Checkpoint(demo, "the small demo model that ships with the package")


def _client() -> Any:
    from mlflow.tracking import MlflowClient

    from pipelines.environment import prepare_environment
    from pipelines.tracking.delivery import ask_once
    from pipelines.tracking.mlflow_tracker import tracking_uri

    prepare_environment()
    ask_once(tracking_uri())
    return MlflowClient(tracking_uri=tracking_uri())


def _newest_recorded(task: str) -> Checkpoint | None:
    """Newest finished run whose model is still there."""
    if not os.environ.get("MLFLOW_TRACKING_URI") and not Path("mlflow.db").is_file():
        return None
    from pipelines.tracking.delivery import unsent
    from pipelines.tracking.registry import folder_of_run, training_runs

    try:
        client = _client()
        runs = training_runs(client, task)
    except unsent():
        print("the MLflow server does not answer; looking for models in this folder")
        return None
    for run in runs:
        try:
            folder = folder_of_run(client, run.info.run_id)
        except (BadInput, CheckpointError):
            continue
        if is_complete(folder):
            return Checkpoint(folder, f"newest run {run.info.run_id}")
    return None


def _newest_folder(task: str) -> Checkpoint | None:
    """Newest whole folder under models/ of a task."""
    found = []
    for path in Path("models").glob("*/config.json"):
        try:
            same = json.loads(path.read_text()).get("task") == task
        except (OSError, ValueError):
            continue
        if same and is_complete(path.parent):
            found.append((path.stat().st_mtime, path.parent))
    return Checkpoint(max(found)[1], "newest model folder") if found else None
