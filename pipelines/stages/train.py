"""Train one run: network, estimator and seed from the parameters, data from `prepare`."""

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from orbitdiff.errors import BadInput
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.training import checkpoint as store
from orbitdiff.training.history import History
from orbitdiff.training.lock import only_writer
from orbitdiff.training.loop import train
from orbitdiff.training.worker import Worker
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.provenance import provenance

__all__ = ["run", "training_loop"]


def training_loop(worker: Worker, config: dict[str, Any]) -> dict[str, Any]:
    """Build the task on this worker and train it (runs alone and under Ray Train).

    Parameters
    ----------
    worker : Worker
    config : dict
        `settings` (CrystalsConfig), `estimator` (EstimatorSpec), `data`, `running` (folders),
        `seed`.

    Returns
    -------
    dict
        Last metrics.
    """
    from orbitdiff.tasks.crystals import Crystals

    settings = config["settings"]
    task = Crystals(settings, config["estimator"], Path(config["data"]))
    running = Path(config["running"])
    with only_writer(running) if worker.rank == 0 else nullcontext():
        result = train(
            task,
            settings.train,
            worker,
            seed=config["seed"],
            history=History(running / "history.jsonl"),
            snapshots=running / "snapshots",
        )
        weights = result.pop("weights")
        if worker.rank == 0:
            about = {**task.config(), **config["about"], "step": settings.train.steps}
            store.save(running / "final", weights, about)
    return result


def run(
    params: Any,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    executor: Executor,
    tracker: Tracker,
) -> None:
    """Train and write the model folder.

    Parameters
    ----------
    params : RunParams
        Task, preset, estimator and seed.
    inputs : mapping
        `data`, a folder written by `prepare`.
    outputs : mapping
        `model`, the folder to write: model.safetensors, config.json, history.jsonl
        and, where the preset keeps them, snapshots/STEP/ with the weights during training.
    executor : Executor
        Trains on `train.num_workers` processes; a run that was stopped continues.
    tracker : Tracker
        Gets parameters, losses, validation figures and the model.
    """
    settings = params.settings
    estimator: EstimatorSpec = params.estimator_spec
    data, model = inputs["data"].absolute(), outputs["model"].absolute()
    manifest = data / "manifest.json"
    if not manifest.is_file():
        raise BadInput(
            f"expected prepared data with manifest.json in {inputs['data']}; run prepare"
        )
    running = outputs.get("running", Path(".runs") / params.run_name).absolute()
    about = {
        "data_manifest_sha256": store.file_sha256(manifest),
        "dataset": params.dataset,
        "estimator_name": params.estimator,
        "preset": params.preset,
        "revision": params.revision,
        "seed": params.seed,
    }
    fingerprint = json.dumps(
        {
            "settings": dataclasses.asdict(settings),
            "estimator": dataclasses.asdict(estimator),
            "data": about["data_manifest_sha256"],
            "seed": params.seed,
        },
        sort_keys=True,
    )
    start_over_if_changed(running, fingerprint)
    config = {
        "settings": settings,
        "estimator": estimator,
        "data": str(data),
        "running": str(running),
        "seed": params.seed,
        "about": about,
    }
    tags = {"stage": "train", **provenance(params, data)}
    with tracker.run(
        params.run_name, experiment=params.task, params=params.flat(), tags=tags
    ) as tracked:
        result = executor.fit(
            training_loop,
            config,
            name="ray",
            storage=running,
            num_workers=settings.train.num_workers,
        )
        for line in (running / "history.jsonl").read_text().splitlines():
            record = json.loads(line)
            tracked.metrics(numbers(record), step=record["step"])
        partial = model.parent / f".{model.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(running / "final", partial)
        shutil.copy(running / "history.jsonl", partial / "history.jsonl")
        if (running / "snapshots").is_dir():
            shutil.copytree(running / "snapshots", partial / "snapshots")
        shutil.rmtree(model, ignore_errors=True)
        os.replace(partial, model)
        tracked.artifact(model)
        tracked.model(model, name=f"orbitdiff-{params.task}")
        tracked.metrics(numbers(result), step=settings.train.steps)


def start_over_if_changed(running: Path, fingerprint: str) -> None:
    """Drop a running state that belongs to other settings or data, so that none is mixed."""
    note = running / "fingerprint.json"
    if running.exists() and (not note.exists() or note.read_text() != fingerprint):
        shutil.rmtree(running)
    running.mkdir(parents=True, exist_ok=True)
    note.write_text(fingerprint)


def numbers(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Flatten a history record to named numbers."""
    flat: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat.update(numbers(value, f"{prefix}{name}."))
        elif isinstance(value, int | float) and name != "step":
            flat[prefix + name] = float(value)
    return flat
