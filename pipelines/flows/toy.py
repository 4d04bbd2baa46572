"""The Prefect flow of the toy experiment: one DVC stage, its table as an artifact."""

from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from pipelines.flows.record import recorded_flow
from pipelines.flows.stage import stage_task

__all__ = ["toy"]


@flow(name="toy", flow_run_name="toy {preset}")
def toy(preset: str = "cpu", root: str = ".") -> str:
    """Reproduce Table 1 of the paper; return it as Markdown.

    Parameters
    ----------
    preset : str
        A preset that dvc.yaml builds.
    root : str
        The repository.
    """
    with recorded_flow("toy", preset, experiment="toy", params={"preset": preset}):
        stage_task(f"toy@{preset}", root=root)
    table = (Path(root) / "results" / "toy" / preset / "table.md").read_text()
    create_markdown_artifact(table, key=f"toy-{preset}", description="Table 1")
    return table
