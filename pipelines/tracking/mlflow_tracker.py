"""MLflow behind the Tracker protocol; what its server does not take waits in a journal.

A record is written to the journal of its run (`pipelines/tracking/spool.py`) and sent at once
where the server answers, else later: with the run's next records, at its end, with the next
run, or by `orbitdiff deliver`.
"""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from orbitdiff.errors import OrbitDiffError
from pipelines.environment import prepare_environment
from pipelines.stages.base import PARENT_RECORD, TrackedRun
from pipelines.tracking.delivery import Delivery, ask_once, unsent
from pipelines.tracking.spool import Spool

__all__ = ["MLflowTracker", "deliver", "newest_run", "tracking_uri"]


def tracking_uri() -> str:
    """$MLFLOW_TRACKING_URI, or sqlite in the current folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def newest_run(experiment: str, name: str) -> str:
    """Where the newest run of a name stands: its id and the folder or URI of its artifacts."""
    prepare_environment()
    from mlflow.tracking import MlflowClient

    ask_once(tracking_uri())
    try:
        client = MlflowClient(tracking_uri=tracking_uri())
        found = client.get_experiment_by_name(experiment)
    except unsent():
        return f"not in {tracking_uri()} yet, which does not answer; `orbitdiff deliver` sends it"
    if found is None:
        return f"none in {tracking_uri()}"
    runs = client.search_runs(
        [found.experiment_id],
        f"attributes.run_name = '{name}'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    if not runs:
        return f"none named {name!r} in {tracking_uri()}"
    info = runs[0].info
    return f"{info.run_id} in {tracking_uri()}, artifacts in {info.artifact_uri}"


def deliver() -> str:
    """Send every record that waits; say what was done.

    Raises
    ------
    OrbitDiffError
        The server does not answer.
    """
    prepare_environment()
    delivery = Delivery(tracking_uri())
    if left := delivery.send_all(now=True):
        raise OrbitDiffError(
            f"{left} records still wait: {tracking_uri()} does not take them ({delivery.problem})"
        )
    return f"every record of this folder is in {tracking_uri()}"


@final
class _Run:
    def __init__(self, spool: Spool, delivery: Delivery) -> None:
        self.spool = spool
        self.delivery = delivery
        self.record = spool.id
        self.id = ""

    def put(self, record: Mapping[str, Any], *, now: bool = False) -> int:
        """Write a record to the journal, and send what waits there."""
        number = self.spool.append(record)
        self.delivery.send(self.spool, now=now)
        self.id = self.delivery.runs.get(self.record, "")
        return number

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        """Record finite numbers; MLflow keeps no NaN."""
        finite = {
            name.replace("@", "_"): float(value)
            for name, value in values.items()
            if math.isfinite(value)
        }
        if finite:
            self.put({"kind": "metrics", "values": finite, "step": step or 0})

    def artifact(self, path: Path) -> None:
        """Record a file, or a folder under its name."""
        self.keep({"kind": "artifact", "path": str(path.absolute())}, path)

    def model(self, folder: Path, *, name: str) -> None:
        """Register the folder as a pyfunc model; its alias `newest` moves on."""
        self.keep({"kind": "model", "path": str(folder.absolute()), "name": name}, folder)

    def keep(self, record: Mapping[str, Any], path: Path) -> None:
        """Write a record that names files; they are copied where they cannot be sent at once."""
        number = self.put(record)
        if self.spool.sent <= number:
            self.spool.keep(number, path)


@final
class MLflowTracker:
    """One MLflow run per run name; an unfinished one of the same name is continued.

    Parameters
    ----------
    required : bool
        Refuse to start while the server does not answer, instead of letting records wait.
    """

    def __init__(self, *, required: bool = False) -> None:
        self.required = required

    @contextmanager
    def run(
        self, name: str, *, experiment: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> Iterator[TrackedRun]:
        """Open the run; it ends FINISHED, or FAILED where the block raises.

        Raises
        ------
        BadInput
            Another process records a run of this name.
        OrbitDiffError
            The server does not answer, and is required.
        """
        prepare_environment()
        delivery, uri = Delivery(tracking_uri()), tracking_uri()
        delivery.send_all()
        spool = Spool.of_run(experiment, name)
        tracked = _Run(spool, delivery)
        above = os.environ.get(PARENT_RECORD)
        opening = {
            "kind": "open",
            "experiment": experiment,
            "name": name,
            "params": {key: str(value)[:500] for key, value in params.items()},
            "tags": {**({"mlflow.parentRunId": above} if above else {}), **tags},
        }
        try:
            tracked.put(opening, now=self.required)
            if spool.pending() and self.required:
                spool.append({"kind": "end", "status": "FAILED"})
                raise OrbitDiffError(
                    f"MLflow at {uri} does not answer ({delivery.problem}); start it, or let "
                    "records wait for it: unset ORBITDIFF_TRACKER"
                )
            try:
                yield tracked
            except BaseException:
                tracked.put({"kind": "end", "status": "FAILED"}, now=True)
                raise
            tracked.put({"kind": "end", "status": "FINISHED"}, now=True)
        finally:
            spool.close()
            if left := delivery.send_all():
                print(
                    f"MLflow at {uri} does not answer ({delivery.problem}); {left} records wait "
                    f"in {spool.folder.parents[1]} for the next run, or for `orbitdiff deliver`"
                )
