"""The one place that puts parts together: a stage with its executor, tracker, files and numbers.

Every stage gets Ray and MLflow; set ORBITDIFF_EXECUTOR=local and ORBITDIFF_TRACKER=none to do
without (tests, bare machines).
"""

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

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
    """MLflow, unless ORBITDIFF_TRACKER=none."""
    if os.environ.get("ORBITDIFF_TRACKER") == "none":
        return NullTracker()
    from pipelines.tracking.mlflow_tracker import MLflowTracker

    return MLflowTracker()


def run_stage(
    stage: str,
    task: str,
    params: Params,
    *,
    preset: str,
    dataset: str,
    estimator: str,
    seed: int,
    changes: Sequence[str] = (),
    root: Path = Path(),
    model: Path | None = None,
) -> None:
    """Run one stage on the files of the layout; `model` stands in for the run's own model."""
    if stage == "report":
        if preset not in params.raw["reports"]:
            known = sorted(params.raw["reports"])
            raise BadInput(f"expected a preset of `reports` among {known}, got {preset!r}")
        runs = params.raw["reports"][preset]["runs"]
        first = params.builds[runs[0]]
        dataset, estimator, seed = first["dataset"], first["estimator"], first["seed"]
    selected = params.select(
        task, preset, dataset=dataset, estimator=estimator, seed=seed, changes=changes
    )
    inputs, outputs = stage_paths(
        stage, task, dataset=dataset, preset=preset, run=selected.run_name, root=root
    )
    if stage == "report":
        for name in params.raw["reports"][preset]["runs"]:
            inputs[f"run:{name}"] = inputs["results"] / name
            for curve in ("steps", "calls"):
                inputs[f"{curve}:{name}"] = inputs["results"] / "curves" / f"{name}-{curve}.json"
    if model is not None:
        inputs["model"] = model
    module = import_module(f"pipelines.stages.{stage}")
    module.run(selected, inputs, outputs, executor=make_executor(), tracker=make_tracker())
