"""MLflow behind the Tracker protocol, on sqlite."""

import math
import shutil
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


def test_a_registered_model_is_found_and_generates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import pandas as pd
    from mlflow.tracking import MlflowClient
    from pymatgen.core import Structure

    from orbitdiff.errors import BadInput, CheckpointError
    from orbitdiff.inference import demo_checkpoint
    from pipelines.checkpoints import find_checkpoint

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    about = {**ABOUT, "tags": {"stage": "train", "preset": "demo", "revision": "abc"}}
    runs = []
    for name in ("first", "second"):
        folder = tmp_path / name
        shutil.copytree(demo_checkpoint(), folder)
        with MLflowTracker().run(name, **about) as tracked:
            tracked.artifact(folder)
            tracked.model(folder, name="orbitdiff-crystals")
        runs.append(tracked.id)
    client = MlflowClient(tracking_uri())
    assert client.get_run(runs[1]).info.status == "FINISHED"
    version = client.get_model_version_by_alias("orbitdiff-crystals", "newest")
    assert version.run_id == runs[1]
    assert version.tags["revision"] == "abc"

    def find(name: str) -> Path:
        return find_checkpoint(name, "crystals", demo=tmp_path / "demo").folder

    assert find("").name == "second"
    assert find(f"run:{runs[0]}").name == "first"
    assert find("models:/orbitdiff-crystals@newest").name == "second"
    assert find("models:/orbitdiff-crystals/1").name == "first"
    for wrong in ("run:nothing", "models:/nobody@newest", "models:/orbitdiff-crystals@best"):
        with pytest.raises(BadInput, match=wrong.split("@")[0].split(":")[-1]):
            find(wrong)
    mlflow.set_tracking_uri(tracking_uri())
    table = pd.DataFrame({"formula": ["NaCl"], "n": [2], "seed": [1]})
    made = mlflow.pyfunc.load_model("models:/orbitdiff-crystals@newest").predict(table)
    assert [Structure.from_str(cif, fmt="cif").formula for cif in made["cif"]] == ["Na1 Cl1"] * 2
    shutil.rmtree(find("models:/orbitdiff-crystals@newest"))
    assert find("").name == "first"
    with pytest.raises(CheckpointError, match="second"):
        find(f"run:{runs[1]}")
