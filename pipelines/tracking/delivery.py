"""Deliver journals to MLflow: in order, each record once, also where a process died in between.

Every record can be sent again without a trace: metrics have fixed time stamps, files and tags
replace themselves, a run is known by the tag `orbitdiff.record`, a version by its weights.
"""

import json
import os
import time
from functools import cached_property
from pathlib import Path
from typing import Any, final

from orbitdiff.export import write_atomically
from orbitdiff.training.checkpoint import file_sha256
from pipelines.tracking.spool import Record, Spool, records_folder, spools

__all__ = ["RECORD", "Delivery", "ask_once", "run_of_record", "unsent"]

RECORD = "orbitdiff.record"
"""Tag of a run: the id of its journal."""
PARENT = "mlflow.parentRunId"
BATCH, MOST_PARAMS = 500, 100
"""Metrics and parameters of a request."""
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
HTTP = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
"""A server that is away is asked again by us, later."""
REFUSALS = (
    "BAD_REQUEST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
)  # fmt: skip


class Away(Exception):
    """The server does not answer, or cannot take the record now."""


@final
class Delivery:
    """Sends what journals hold to one tracking server.

    Parameters
    ----------
    uri : str
        Tracking URI.
    """

    def __init__(self, uri: str) -> None:
        ask_once(uri)
        self.uri = uri
        self.runs: dict[str, str] = {}
        self.problem = ""
        self.pause, self.next_try = FIRST_PAUSE, 0.0

    @cached_property
    def client(self) -> Any:
        """MLflow's client; one of a database opens it."""
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=self.uri)

    def send(self, spool: Spool, *, now: bool = False) -> bool:
        """Send what is pending; False where something is left.

        Parameters
        ----------
        spool : Spool
        now : bool
            Also where the server was away a moment ago.
        """
        if not spool.pending():
            return True
        if not now and time.monotonic() < self.next_try:
            return False
        try:
            while pending := spool.pending():
                self._send_next(spool, pending)
        except Away as away:
            self.problem = str(away)
            self.next_try = time.monotonic() + self.pause
            self.pause = min(2 * self.pause, LONGEST_PAUSE)
            return False
        self.pause, self.next_try = FIRST_PAUSE, 0.0
        return True

    def send_all(self, *, now: bool = False) -> int:
        """Send the journals that nobody writes; return how many records are left in them."""
        left = 0
        for spool in spools():
            self.send(spool, now=now)
            left += len(spool.pending())
            spool.close()
        return left

    def _send_next(self, spool: Spool, pending: list[tuple[int, Record]]) -> None:
        number, record = pending[0]
        try:
            if record["kind"] == "metrics":
                number = self._metrics(spool, pending)
            else:
                getattr(self, f"_{record['kind']}")(spool, number, record)
        except unsent() as error:
            if not refused(error):
                raise Away(one_line(error)) from error
            keep_refused(spool, number, one_line(error))
        spool.mark_sent(number)

    def _open(self, spool: Spool, number: int, record: Record) -> None:
        """Continue the run of this journal, or an unfinished one of its name, or make one."""
        from mlflow.entities import Param, RunTag

        experiment = self._experiment(record["experiment"])
        name = record["name"].replace("'", "")
        run = first_run(self.client, experiment, f"tags.`{RECORD}` = '{spool.id}'") or first_run(
            self.client, experiment,
            f"attributes.run_name = '{name}' and attributes.status != 'FINISHED'",
        )  # fmt: skip
        tags = {**record["tags"], RECORD: spool.id}
        if parent := tags.pop(PARENT, ""):
            tags |= self._parent(experiment, parent)
        if run is None:
            run = self.client.create_run(experiment, run_name=name, tags=tags)
        else:
            self.client.update_run(run.info.run_id, status="RUNNING")
            renewed = [RunTag(key, value) for key, value in tags.items()]
            self.client.log_batch(run.info.run_id, tags=renewed)
        self.runs[spool.id] = run.info.run_id
        if not run.data.params:
            params = [Param(key, value) for key, value in record["params"].items()]
            for start in range(0, len(params), MOST_PARAMS):
                self.client.log_batch(run.info.run_id, params=params[start : start + MOST_PARAMS])

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            local = (Path.cwd() / "mlartifacts" / name).as_uri()
            try:
                return str(
                    self.client.create_experiment(
                        name, artifact_location=local if self.uri.startswith("sqlite") else None
                    )
                )
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self.client.get_experiment_by_name(name)
        return str(found.experiment_id)

    def _parent(self, experiment: str, record: str) -> dict[str, str]:
        """Tag that names the run above; it waits while the record of that one waits here."""
        if run := first_run(self.client, experiment, f"tags.`{RECORD}` = '{record}'"):
            return {PARENT: run.info.run_id}
        if any(path.read_text() == record for path in records_folder().glob("*/*/id")):
            raise Away("the record of the run above was not sent yet")
        return {}

    def _run(self, spool: Spool) -> str:
        """Run id of a journal, whose first record may have been sent by another process."""
        if spool.id not in self.runs:
            first = spool.records[0]
            found = run_of_record(self.client, first["experiment"], spool.id)
            if found:
                self.runs[spool.id] = found
            else:
                self._open(spool, 0, first)
        return self.runs[spool.id]

    def _metrics(self, spool: Spool, pending: list[tuple[int, Record]]) -> int:
        """Send metrics records that follow each other; return the number of the last one."""
        from mlflow.entities import Metric

        batch: list[Any] = []
        last = pending[0][0]
        for number, record in pending:
            if record["kind"] != "metrics" or (
                batch and len(batch) + len(record["values"]) > BATCH
            ):
                break
            batch += [Metric(k, v, 0, record["step"]) for k, v in record["values"].items()]
            last = number
        for start in range(0, len(batch), BATCH):
            self.client.log_batch(self._run(spool), metrics=batch[start : start + BATCH])
        return last

    def _artifact(self, spool: Spool, number: int, record: Record) -> None:
        path = spool.file(number)
        if path.is_dir():
            self.client.log_artifacts(self._run(spool), str(path), artifact_path=path.name)
        else:
            self.client.log_artifact(self._run(spool), str(path))

    def _model(self, spool: Spool, number: int, record: Record) -> None:
        from pipelines.tracking.registry import register

        folder, run_id = spool.file(number), self._run(spool)
        digest = file_sha256(folder / "checksums.json")
        version = register(
            self.client, self.uri, run_id, folder, name=record["name"], digest=digest
        )
        print(f"model {record['name']} version {version} of run {run_id}")

    def _end(self, spool: Spool, number: int, record: Record) -> None:
        self.client.set_terminated(self._run(spool), status=record["status"])


def ask_once(uri: str) -> None:
    """Let MLflow's client give up soon on a server that is away; it tries for minutes else."""
    if uri.startswith("http"):
        for name, value in HTTP.items():
            os.environ.setdefault(name, value)


def run_of_record(client: Any, experiment: str, record: str) -> str:
    """Run id of a record, empty where the server has none."""
    found = client.get_experiment_by_name(experiment)
    run = found and first_run(client, found.experiment_id, f"tags.`{RECORD}` = '{record}'")
    return str(run.info.run_id) if run else ""


def first_run(client: Any, experiment: str, what: str) -> Any:
    """First run that a filter finds, or None."""
    found = client.search_runs([experiment], what, max_results=1)
    return found[0] if found else None


def unsent() -> tuple[type[Exception], ...]:
    """Errors of a server, of the way to it, and of files that are to be sent."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError)


def refused(error: Exception) -> bool:
    """True where sending the record again would fail again."""
    return isinstance(error, FileNotFoundError) or getattr(error, "error_code", "") in REFUSALS


def keep_refused(spool: Spool, number: int, reason: str) -> None:
    """Keep a record that the server refused beside the journals, with the reason."""
    path = records_folder() / f"refused-{spool.id[:8]}-{number}.json"
    about = {"run": spool.folder.name, "reason": reason, "record": spool.records[number]}
    write_atomically(path, json.dumps(about, indent=1) + "\n")
    print(f"MLflow refused a record of {spool.folder.name}: {reason}; it is kept in {path}")


def one_line(error: Exception) -> str:
    """First line of an error, short."""
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:300]
