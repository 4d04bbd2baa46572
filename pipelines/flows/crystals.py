"""The Prefect flow: the DAG of dvc.yaml, one Prefect task per DVC stage."""

import subprocess
import sys
from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact

from orbitdiff.errors import OrbitDiffError
from pipelines.dag import stages_of
from pipelines.params import load

__all__ = ["crystals"]


@task(task_run_name="{stage}", retries=1, retry_delay_seconds=5)
def reproduce(stage: str, *, root: str) -> str:
    """Run one DVC stage where it is stale; its output goes to the terminal."""
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage]
    if subprocess.run(command, cwd=root, check=False).returncode != 0:
        raise OrbitDiffError(f"stage {stage} failed; its own message stands above")
    return stage


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
    for number, (stage, _) in enumerate(stages, start=1):
        print(f"[{number}/{len(stages)}] {stage}")
        reproduce(stage, root=root)
    report = folder / "reports" / "crystals" / preset
    create_markdown_artifact(
        (report / "table.md").read_text(), key=f"crystals-{preset}", description="metrics"
    )
    return str(report / "report.html")
