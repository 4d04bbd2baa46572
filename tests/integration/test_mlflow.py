"""MLflow behind the Tracker protocol, on sqlite."""

import math
from pathlib import Path

import pytest

pytest.importorskip("mlflow")

from pipelines.stages.base import TrackedRun, Tracker
from pipelines.tracking.mlflow_tracker import MLflowTracker, tracking_uri

pytestmark = pytest.mark.integration
ABOUT = {"experiment": "crystals", "params": {"train.steps": 5}, "tags": {"revision": "abc"}}


def test_record_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    tracker = MLflowTracker()
    assert isinstance(tracker, Tracker)
    with tracker.run("one", **ABOUT) as tracked:
        assert isinstance(tracked, TrackedRun)
        tracked.metrics({"loss": 2.0, "rmse": math.nan}, step=1)
        tracked.metrics({"loss": 1.0}, step=2)
        tracked.artifact(model)
    client = MlflowClient(tracking_uri())
    run = client.get_run(tracked.id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"train.steps": "5"}
    assert run.data.tags["revision"] == "abc"
    assert run.data.metrics == {"loss": 1.0}
    assert [(m.step, m.value) for m in client.get_metric_history(tracked.id, "loss")] == [
        (1, 2.0),
        (2, 1.0),
    ]
    assert [f.path for f in client.list_artifacts(tracked.id, "model")] == ["model/config.json"]
    assert (tmp_path / "mlflow.db").is_file()

    # a run that failed keeps its record and is continued under the same name
    with pytest.raises(OSError, match="full disk"), tracker.run("two", **ABOUT) as failed:
        failed.metrics({"loss": 3.0}, step=1)
        raise OSError("full disk")
    assert client.get_run(failed.id).info.status == "FAILED"
    with tracker.run("two", **ABOUT) as again:
        pass
    assert again.id == failed.id
    assert client.get_run(failed.id).info.status == "FINISHED"
    with tracker.run("two", **ABOUT) as fresh:
        pass
    assert fresh.id != failed.id


def test_server_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert tracking_uri() == "http://127.0.0.1:1"
