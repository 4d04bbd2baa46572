"""The Prefect flow: the DAG of dvc.yaml, one Prefect task per DVC stage."""

import time
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from pipelines.dag import stages_of
from pipelines.flows.stage import stage_task
from pipelines.params import load

__all__ = ["crystals"]


@flow(name="crystals", flow_run_name="crystals {preset}", log_prints=True)
def crystals(preset: str = "demo", root: str = ".") -> str:
    """Reproduce a preset's report.

    Parameters
    ----------
    preset : str
        A key of `reports` in params.yaml.
    root : str
        The repository.

    Returns
    -------
    str
        Path of the HTML report.
    """
    folder = Path(root)
    stages = stages_of(load(folder / "params.yaml"), preset)
    rows = []
    for number, (stage, needs) in enumerate(stages, start=1):
        print(f"[{number}/{len(stages)}] {stage}")
        clock = time.perf_counter()
        stage_task(stage, root=root)
        seconds = round(time.perf_counter() - clock, 1)
        rows.append({"stage": stage, "needs": ", ".join(needs), "seconds": seconds})
    report = folder / "reports" / "crystals" / preset
    create_markdown_artifact(
        (report / "table.md").read_text(), key=f"crystals-{preset}", description="metrics"
    )
    create_table_artifact(rows, key=f"crystals-{preset}-stages", description="stages and times")
    return str(report / "report.html")
