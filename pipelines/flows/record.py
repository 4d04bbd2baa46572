"""One MLflow run for a flow, the runs of its stages below it, also when the flow starts again."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipelines.assemble import make_tracker
from pipelines.stages.base import PARENT_RECORD, TrackedRun

__all__ = ["recorded_flow"]


@contextmanager
def recorded_flow(
    flow: str, name: str, *, experiment: str, params: Mapping[str, Any]
) -> Iterator[TrackedRun]:
    """Open the run `flow FLOW NAME`; stages that run meanwhile are recorded as its children.

    An unfinished run of the same flow and name is continued, so a flow that broke off or was
    killed has one run in the end.

    Parameters
    ----------
    flow : str
        Name of the flow.
    name : str
        What tells its runs apart.
    experiment : str
    params : mapping
    """
    from prefect.context import get_run_context

    started = get_run_context().flow_run  # type: ignore[union-attr]
    tags = {"stage": "flow", "flow": flow}
    if started is not None:
        tags["prefect.flow_run_id"] = str(started.id)
    with make_tracker().run(
        f"flow {flow} {name}", experiment=experiment, params=params, tags=tags
    ) as tracked:
        before = os.environ.get(PARENT_RECORD)
        os.environ[PARENT_RECORD] = tracked.record
        try:
            yield tracked
        finally:
            if before is None:
                del os.environ[PARENT_RECORD]
            else:
                os.environ[PARENT_RECORD] = before
