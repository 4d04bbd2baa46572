"""The Prefect flow of a task's table: the DAG of dvc.yaml, one Prefect task per DVC stage."""

import time
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from pipelines.dag import stages_of
from pipelines.flows.record import recorded_flow
from pipelines.flows.stage import stage_task
from pipelines.params import load

__all__ = ["table"]


@flow(name="table", flow_run_name="{task} {preset}", log_prints=True)
def table(task: str = "crystals", preset: str = "demo", root: str = ".") -> str:
    """Reproduce a preset's report.

    Parameters
    ----------
    task : str
    preset : str
        A key of `reports.TASK` in params.yaml.
    root : str
        The repository.

    Returns
    -------
    str
        Folder of the report.
    """
    folder = Path(root)
    stages = stages_of(load(folder / "params.yaml"), task, preset)
    rows = []
    report = folder / "reports" / task / preset
    asked = {"task": task, "preset": preset}
    with recorded_flow("table", preset, experiment=task, params=asked) as record:
        for number, (stage, needs) in enumerate(stages, start=1):
            print(f"[{number}/{len(stages)}] {stage}")
            clock = time.perf_counter()
            stage_task(stage, root=root)
            seconds = round(time.perf_counter() - clock, 1)
            rows.append({"stage": stage, "needs": ", ".join(needs), "seconds": seconds})
            record.metrics({f"seconds/{stage.replace('@', ' ')}": seconds})
        record.artifact(report / "table.md")
    create_markdown_artifact(
        (report / "table.md").read_text(), key=artifact_key(task, preset), description="metrics"
    )
    create_table_artifact(
        rows, key=artifact_key(task, preset, "stages"), description="stages and times"
    )
    return str(report)


def artifact_key(*parts: str) -> str:
    """Join words to a key of a Prefect artifact: lowercase, dashes."""
    return "-".join(parts).replace("_", "-").lower()
