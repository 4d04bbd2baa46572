"""The Prefect flow of a sweep: its DVC stage, or a changed one under runs/; advice as artifact."""

import json
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from pipelines.flows.record import recorded_flow
from pipelines.flows.stage import stage_task
from pipelines.flows.table import artifact_key
from pipelines.params import load
from pipelines.sweeps import results_folder, run_sweep, select_sweep

__all__ = ["sweep"]

FIGURES = ("validation_error", "gradient_variance", "ess", "step_seconds")


@flow(name="sweep", flow_run_name="sweep {task} {preset}", log_prints=True)
def sweep(
    task: str = "crystals",
    preset: str = "cpu",
    section: dict[str, Any] | None = None,
    outside: str = "",
    root: str = ".",
) -> str:
    """Run a sweep and return the folder of its results.

    Parameters
    ----------
    task : str
    preset : str
    section : dict, optional
        Takes the place of the section `sweeps.TASK.PRESET` of params.yaml; such a sweep is no
        DVC stage.
    outside : str
        Folder below the repository for its results.
    root : str
        The repository.
    """
    asked = {"task": task, "preset": preset, "outside": outside}
    name = " ".join(filter(None, (preset, outside)))
    with recorded_flow("sweep", name, experiment=task, params=asked):
        if section is None:
            stage_task(f"sweep_{task}@{preset}", root=root)
        else:
            changed_sweep(task, preset, section, outside)
    folder = results_folder(task, preset, Path(root) / outside)
    key = artifact_key("sweep", task, preset)
    create_markdown_artifact(
        (folder / "advice.md").read_text(), key=key, description="which K and temperature to take"
    )
    found = json.loads((folder / "sweep.json").read_text())
    create_table_artifact(
        [table_row(point) for point in found["points"]], key=f"{key}-points", description="points"
    )
    return str(folder)


@task(task_run_name="sweep {name} {preset}", retries=1, retry_delay_seconds=5)
def changed_sweep(name: str, preset: str, section: dict[str, Any], outside: str) -> None:
    """Run a sweep that params.yaml does not list; a second try goes on where the first ended."""
    run_sweep(select_sweep(load(), name, preset, section), root=Path(outside))


def table_row(point: dict[str, Any]) -> dict[str, Any]:
    """A point as a row of words and numbers."""
    means = {key: point[key] and round(point[key]["mean"], 6) for key in FIGURES}
    return {"point": point["name"], "seeds": len(point["seeds"]), **means}
