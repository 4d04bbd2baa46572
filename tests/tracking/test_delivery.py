"""Records wait while no server answers and reach MLflow once; the server's part plays sqlite."""

import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlflow")

from orbitdiff.errors import BadInput, OrbitDiffError
from orbitdiff.inference import demo_checkpoint
from pipelines.assemble import make_tracker
from pipelines.environment import prepare_environment
from pipelines.stages.base import PARENT_RECORD
from pipelines.tracking.departure import depart
from pipelines.tracking.mlflow_tracker import MLflowTracker, deliver
from pipelines.tracking.spool import Spool, records_folder

prepare_environment()

pytestmark = pytest.mark.integration
AWAY = "http://127.0.0.1:1"
ABOUT: dict[str, Any] = {
    "experiment": "crystals",
    "params": {"steps": 5},
    "tags": {"stage": "train"},
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(PARENT_RECORD, raising=False)
    return tmp_path


def client(folder: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


def runs(folder: Path) -> dict[str, Any]:
    found = client(folder)
    every = found.search_runs([found.get_experiment_by_name("crystals").experiment_id])
    assert len({run.info.run_name for run in every}) == len(every)
    return {run.info.run_name: run for run in every}


def test_records_wait_and_reach_the_server_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    model = folder / "model"
    shutil.copytree(demo_checkpoint(), model)
    with MLflowTracker().run("parent", **ABOUT) as parent:
        monkeypatch.setenv(PARENT_RECORD, parent.record)
        with MLflowTracker().run("child", **ABOUT) as child:
            for step in range(700):
                child.metrics({"loss": float(step), "rate": 0.5}, step=step)
            child.artifact(model)
            child.model(model, name="orbitdiff-crystals")
        monkeypatch.delenv(PARENT_RECORD)
    with pytest.raises(OSError, match="full disk"), MLflowTracker().run("broken", **ABOUT) as run:
        run.metrics({"loss": 1.0})
        raise OSError("full disk")
    assert "records wait" in capsys.readouterr().out
    (model / "config.json").write_text("changed since")
    with pytest.raises(OrbitDiffError, match="does not take them"):
        deliver()

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    for again in (False, True):
        if again:  # as after a kill between the server's answer and our note of it
            spool = Spool.of_run("crystals", "broken")
            assert not spool.pending()
            (spool.folder / "sent").write_text("0")
            spool.close()
        assert "every record" in deliver()
        found = runs(folder)
        assert set(found) == {"parent", "child", "broken"}
        assert found["child"].data.tags["mlflow.parentRunId"] == found["parent"].info.run_id
        assert found["child"].data.params == {"steps": "5"}
        statuses = {name: run.info.status for name, run in found.items()}
        assert statuses == {"parent": "FINISHED", "child": "FINISHED", "broken": "FAILED"}
        curve = client(folder).get_metric_history(found["child"].info.run_id, "loss")
        assert [(m.step, m.value) for m in curve] == [(step, float(step)) for step in range(700)]
        assert len(client(folder).get_metric_history(found["broken"].info.run_id, "loss")) == 1
        assert len(client(folder).search_model_versions("name = 'orbitdiff-crystals'")) == 1
    place = client(folder).download_artifacts(found["child"].info.run_id, "model/config.json")
    assert Path(place).read_bytes() == (demo_checkpoint() / "config.json").read_bytes()
    depart()  # as at the end of the process
    # the run that broke off keeps its journal, and goes on in its MLflow run
    assert [path.parent.name for path in records_folder().glob("*/*/id")] == ["broken"]
    with MLflowTracker().run("broken", **ABOUT) as continued:
        pass
    assert continued.id == found["broken"].info.run_id
    depart()
    assert not list(records_folder().glob("*/*/id"))


def test_a_required_server_is_asked_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    monkeypatch.setenv("ORBITDIFF_TRACKER", "required")
    with (
        pytest.raises(OrbitDiffError, match=r"does not answer.*unset ORBITDIFF_TRACKER"),
        make_tracker().run("one", **ABOUT),
    ):
        pytest.fail("started")
    monkeypatch.setenv("ORBITDIFF_TRACKER", "requird")
    with pytest.raises(BadInput, match="none, mlflow and required, got 'requird'"):
        make_tracker()


def test_a_refused_record_is_kept_aside_and_stops_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with MLflowTracker().run("odd", **ABOUT) as odd:
        odd.metrics({"not a name: #$%": 1.0})
        odd.artifact(Path("nowhere.txt"))
        odd.metrics({"loss": 1.0})
    run = runs(folder)["odd"]
    assert run.data.metrics == {"loss": 1.0}
    assert run.info.status == "FINISHED"
    assert len(list(records_folder().glob("refused-*.json"))) == 2
    assert capsys.readouterr().out.count("MLflow refused a record of odd") == 2


def test_two_processes_never_record_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    with (
        MLflowTracker().run("one", **ABOUT),
        pytest.raises(BadInput, match="another process records the run 'one'"),
        MLflowTracker().run("one", **ABOUT),
    ):
        pytest.fail("mixed")
