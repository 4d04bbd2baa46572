"""The Prefect flow of a single run: train one preset, data set, estimator and seed."""

from pathlib import Path

from prefect import flow, task

from pipelines.build import build_run, outside_folder
from pipelines.flows.record import recorded_flow
from pipelines.layout import stage_paths
from pipelines.params import Params, RunParams, load

__all__ = ["train"]


@flow(name="train", flow_run_name="train {task} {preset} {estimator} {seed}", log_prints=True)
def train(
    task: str = "crystals",
    preset: str = "cpu",
    dataset: str = "",
    estimator: str = "",
    seed: int = 0,
    changes: list[str] | None = None,
) -> str:
    """Train one run, and prepare its data where that is stale; return the model folder.

    Parameters
    ----------
    task, preset : str
    dataset : str
        Default: that of the preset's table.
    estimator : str
        Default: the first of the preset.
    seed : int
    changes : list of str, optional
        `key=value` of the preset; such a run is no DVC stage and goes to runs/.
    """
    params, asked = load(), changes or []
    selected = params.select(
        task, preset, dataset=dataset or params.report(task, preset)["dataset"],
        estimator=estimator, seed=seed, changes=asked,
    )  # fmt: skip
    with recorded_flow("train", selected.run_name, experiment=task, params=selected.flat()):
        train_run(selected.run_name, params, selected, asked)
    inside = not asked and selected.run_name in params.builds
    root = Path() if inside else outside_folder(selected.run_name, asked)
    _, outputs = stage_paths(
        "train", task, dataset=selected.dataset, preset=preset, run=selected.run_name, root=root
    )
    return str(outputs["model"])


@task(task_run_name="train {name}", retries=1, retry_delay_seconds=5)
def train_run(name: str, params: Params, selected: RunParams, changes: list[str]) -> None:
    """Train where that is stale; a second try goes on from the last checkpoint."""
    build_run("train", params, selected, changes)
