"""The one place that puts parts together: a stage with its executor, tracker, files and numbers.

Every stage gets Ray and MLflow; set ORBITDIFF_EXECUTOR=local and ORBITDIFF_TRACKER=none to do
without (tests, bare machines). ORBITDIFF_TRACKER=required refuses to start while the tracking
server does not answer; without it records wait for the server.
"""

import os
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from orbitdiff.errors import BadInput
from pipelines.layout import stage_paths
from pipelines.params import Params
from pipelines.stages.base import Executor, LocalExecutor, NullTracker, Tracker

__all__ = ["make_executor", "make_tracker", "run_stage"]


def make_executor() -> Executor:
    """Ray, unless ORBITDIFF_EXECUTOR=local."""
    if os.environ.get("ORBITDIFF_EXECUTOR") == "local":
        return LocalExecutor()
    from pipelines.distributed.ray_executor import RayExecutor

    return RayExecutor()


def make_tracker() -> Tracker:
    """MLflow, unless ORBITDIFF_TRACKER=none.

    Raises
    ------
    BadInput
        ORBITDIFF_TRACKER has another value than none, mlflow or required.
    """
    asked = os.environ.get("ORBITDIFF_TRACKER") or "mlflow"
    if asked == "none":
        return NullTracker()
    if asked not in ("mlflow", "required"):
        raise BadInput(f"expected ORBITDIFF_TRACKER among none, mlflow and required, got {asked!r}")
    from pipelines.tracking.mlflow_tracker import MLflowTracker

    return MLflowTracker(required=asked == "required")


def stage_module(stage: str, task: str) -> Any:
    """Module of a stage: the task's own, else the one that all tasks share.

    Raises
    ------
    BadInput
        The task has no such stage.
    """
    for name in (f"pipelines.stages.{task}.{stage}", f"pipelines.stages.{stage}"):
        if find_spec_of(name):
            return import_module(name)
    raise BadInput(f"task {task} has no stage {stage}")


def find_spec_of(name: str) -> bool:
    """Say whether a module exists, without importing it."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # its package does not exist
        return False


def run_stage(
    stage: str,
    task: str,
    params: Params,
    *,
    preset: str,
    dataset: str,
    estimator: str,
    seed: int,
    start: str = "",
    changes: Sequence[str] = (),
    root: Path = Path(),
    model: Path | None = None,
) -> None:
    """Run one stage on the files of the layout; `model` stands in for the run's own model."""
    if stage == "report":
        runs = params.report(task, preset)["runs"]
        first = params.builds[runs[0]]
        dataset, estimator, seed = first["dataset"], first["estimator"], first["seed"]
    selected = params.select(
        task, preset, dataset=dataset, estimator=estimator, seed=seed, changes=changes,
        start=start,
    )  # fmt: skip
    inputs, outputs = stage_paths(
        stage, task, dataset=dataset, preset=preset, run=selected.run_name, root=root
    )
    if start:
        inputs["start"] = root / "models" / start
    if stage == "report":
        for name in runs:
            inputs[f"run:{name}"] = inputs["results"] / name
            for curve in ("steps", "calls", "guidance"):
                inputs[f"{curve}:{name}"] = inputs["results"] / "curves" / f"{name}-{curve}.json"
            of = params.builds[name]["dataset"]
            inputs[f"data:{of}"] = inputs["data"].parent / of
            if name in params.curves("whole"):
                inputs[f"whole:{name}"] = inputs["results"] / "whole" / name
    if model is not None:
        inputs["model"] = model
    stage_module(stage, task).run(
        selected, inputs, outputs, executor=make_executor(), tracker=make_tracker()
    )
