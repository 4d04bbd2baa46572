"""`python -m pipelines STAGE TASK ...`: the one place that puts the parts together.

dvc.yaml runs this. Every stage gets Ray and MLflow; set ORBITDIFF_EXECUTOR=local and
ORBITDIFF_TRACKER=none to do without (tests, bare machines).
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from orbitdiff.errors import OrbitDiffError
from pipelines.dag import STAGES
from pipelines.environment import prepare_environment
from pipelines.layout import stage_paths
from pipelines.params import Params, load
from pipelines.stages.base import Executor, LocalExecutor, NullTracker, Tracker

__all__ = ["main", "make_executor", "make_tracker", "run_stage"]


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
) -> None:
    """Run one stage on the files of the layout."""
    if stage == "report":
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
    module = import_module(f"pipelines.stages.{stage}")
    module.run(selected, inputs, outputs, executor=make_executor(), tracker=make_tracker())


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run a stage; 2 for bad input, with one clear line."""
    prepare_environment()
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("task")
    parser.add_argument("--preset", required=True)
    parser.add_argument("--dataset", default="")
    parser.add_argument("--estimator", default="plain")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        run_stage(
            options.stage,
            options.task,
            load(),
            preset=options.preset,
            dataset=options.dataset,
            estimator=options.estimator,
            seed=options.seed,
        )
    except (OrbitDiffError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
