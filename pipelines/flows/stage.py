"""The Prefect task of all flows: one DVC stage."""

from prefect import task

from pipelines.build import reproduce

__all__ = ["stage_task"]


@task(task_run_name="{stage}", retries=1, retry_delay_seconds=5)
def stage_task(stage: str, *, root: str) -> str:
    """Run one DVC stage where it is stale; its output goes to the terminal."""
    reproduce(stage, single=True, root=root)
    return stage
