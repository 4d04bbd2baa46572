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
from orbitdiff.tasks.base import build_task
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
        `task` (its name), `settings` (its config), `arm` (entry of `estimators`), `train`
        (TrainConfig), `data`, `running` (folders), `seed`, `start` (model folder or None).

    Returns
    -------
    dict
        Last metrics.
    """
    train_config = config["train"]
    task = build_task(
        config["task"], config["settings"], config["arm"], Path(config["data"]),
        streamed=bool(train_config.window),
    )  # fmt: skip
    start = None if config["start"] is None else store.load_model(Path(config["start"]))[0]
    running = Path(config["running"])
    with only_writer(running) if worker.rank == 0 else nullcontext():
        result = train(
            task,
            train_config,
            worker,
            seed=config["seed"],
            start_weights=start,
            history=History(running / "history.jsonl"),
            snapshots=running / "snapshots",
            streamed=task.training_set if train_config.window else None,
        )
        weights = result.pop("weights")
        if worker.rank == 0:
            about = {**task.config(), **config["about"], "step": train_config.steps}
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
        `data`, a folder written by `prepare`; `start`, a model folder whose weights the
        training starts from (fine-tunes only).
    outputs : mapping
        `model`, the folder to write: model.safetensors, config.json, history.jsonl
        and, where the preset keeps them, snapshots/STEP/ with the weights during training.
    executor : Executor
        Trains on `train.num_workers` processes, or fewer down to `train.min_workers`; a run
        that was stopped continues.
    tracker : Tracker
        Gets parameters, losses, validation figures and the model.
    """
    settings, arm, config_of_training = params.settings, params.arm, params.train_config
    start = inputs["start"].absolute() if "start" in inputs else None
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
        **({"start": params.start} if params.start else {}),
    }
    fingerprint = json.dumps(
        {
            "settings": {
                name: dataclasses.asdict(getattr(settings, name))
                for name in ("kernel", "model", "validation")
            },
            "train": dataclasses.asdict(config_of_training),
            "estimator": dataclasses.asdict(arm),
            "data": about["data_manifest_sha256"],
            "start": None if start is None else store.file_sha256(start / "model.safetensors"),
            "seed": params.seed,
        },
        sort_keys=True,
    )
    start_over_if_changed(running, fingerprint)
    config = {
        "task": params.task,
        "settings": settings,
        "arm": arm,
        "train": config_of_training,
        "start": None if start is None else str(start),
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
            num_workers=config_of_training.num_workers,
            min_workers=config_of_training.min_workers,
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
        tracked.metrics(numbers(result), step=config_of_training.steps)


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
