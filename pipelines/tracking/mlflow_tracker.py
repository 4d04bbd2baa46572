"""MLflow behind the Tracker protocol."""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from pipelines.environment import prepare_environment
from pipelines.stages.base import TrackedRun

__all__ = ["MLflowTracker", "newest_run", "tracking_uri"]


def tracking_uri() -> str:
    """$MLFLOW_TRACKING_URI, or sqlite in the current folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def newest_run(experiment: str, name: str) -> str:
    """Where the newest run of a name stands: its id and the folder or URI of its artifacts."""
    prepare_environment()
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri())
    found = client.get_experiment_by_name(experiment)
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


@final
class _Run:
    def __init__(self, client: Any, run_id: str) -> None:
        self.client = client
        self.id = run_id

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        """Record finite numbers; MLflow keeps no NaN."""
        from mlflow.entities import Metric

        batch = [
            Metric(name.replace("@", "_"), float(value), 0, step or 0)
            for name, value in values.items()
            if math.isfinite(value)
        ]
        for start in range(0, len(batch), 500):
            self.client.log_batch(self.id, metrics=batch[start : start + 500])

    def artifact(self, path: Path) -> None:
        """Record a file, or a folder under its name."""
        if path.is_dir():
            self.client.log_artifacts(self.id, str(path), artifact_path=path.name)
        else:
            self.client.log_artifact(self.id, str(path))

    def model(self, folder: Path, *, name: str) -> None:
        """Register the folder as a pyfunc model; its alias `newest` moves on."""
        from pipelines.tracking.registry import register

        version = register(self.client, tracking_uri(), self.id, folder, name=name)
        print(f"model {name} version {version} of run {self.id}")


@final
class MLflowTracker:
    """One MLflow run per run name; an unfinished one of the same name is continued."""

    @contextmanager
    def run(
        self, name: str, *, experiment: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> Iterator[TrackedRun]:
        """Open the run; it ends FINISHED, or FAILED where the block raises."""
        prepare_environment()
        from mlflow.entities import Param, RunTag
        from mlflow.tracking import MlflowClient

        uri = tracking_uri()
        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            local = (Path.cwd() / "mlartifacts" / experiment).as_uri()
            identifier = client.create_experiment(
                experiment, artifact_location=local if uri.startswith("sqlite") else None
            )
        else:
            identifier = found.experiment_id
        quoted = name.replace("'", "")
        open_runs = client.search_runs(
            [identifier],
            f"attributes.run_name = '{quoted}' and attributes.status != 'FINISHED'",
            max_results=1,
        )
        if open_runs:
            run_id = open_runs[0].info.run_id
            client.update_run(run_id, status="RUNNING")
        else:
            run_id = client.create_run(identifier, run_name=quoted).info.run_id
            client.log_batch(
                run_id,
                params=[Param(key, str(value)[:500]) for key, value in params.items()],
                tags=[RunTag(key, value) for key, value in tags.items()],
            )
        try:
            yield _Run(client, run_id)
        except BaseException:
            client.set_terminated(run_id, status="FAILED")
            raise
        client.set_terminated(run_id, status="FINISHED")
