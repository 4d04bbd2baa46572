"""Records survive a tracking server that is away: a real `mlflow server`, killed and started again."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlflow")

from orbitdiff.errors import OrbitDiffError
from orbitdiff.inference import demo_checkpoint
from pipelines.environment import prepare_environment
from pipelines.stages.base import PARENT_RECORD
from pipelines.tracking.departure import depart
from pipelines.tracking.mlflow_tracker import MLflowTracker, deliver
from pipelines.tracking.spool import Spool, records_folder

prepare_environment()

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]
ABOUT: dict[str, Any] = {
    "experiment": "crystals",
    "params": {"steps": 5},
    "tags": {"stage": "train"},
}
KILLED = """
import os, signal, sys
from pipelines.tracking.mlflow_tracker import MLflowTracker
about = {"experiment": "crystals", "params": {"steps": 5}, "tags": {"stage": "train"}}
with MLflowTracker().run("killed", **about) as run:
    for step in range(int(sys.argv[1]), int(sys.argv[2])):
        run.metrics({"loss": float(step)}, step=step)
    if sys.argv[3] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
"""


class Server:
    """`mlflow server` on one loopback port, with a database that outlives it."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder, self.database = folder, database
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port",
             str(self.port), "--workers", "1", "--backend-store-uri", self.database,
             "--artifacts-destination", str(self.folder / "artifacts")],
            stdout=log, stderr=log, start_new_session=True, cwd=self.folder,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )  # fmt: skip
        log.close()
        limit = time.monotonic() + 240
        while time.monotonic() < limit:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return
            except OSError:
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.3)
        raise AssertionError("the server did not start")

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def sqlite(folder: Path) -> Iterator[str]:
    yield f"sqlite:///{folder / 'server.db'}"


def postgres(folder: Path) -> Iterator[str]:
    pgserver = pytest.importorskip("pgserver")
    database = pgserver.get_server(folder / "postgres")
    yield database.get_uri()
    database.cleanup()


@pytest.fixture(params=[sqlite, postgres])
def server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    # pgserver calls useradd where it runs as root
    monkeypatch.setenv("PATH", os.pathsep.join((os.environ["PATH"], "/usr/sbin")))
    opened: Callable[[Path], Iterator[str]] = request.param
    database = opened(tmp_path)
    found = Server(tmp_path, next(database))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", found.uri)
    monkeypatch.delenv(PARENT_RECORD, raising=False)
    try:
        yield found
    finally:
        found.kill()
        list(database)


def runs(server: Server) -> dict[str, Any]:
    """Runs by name; a name that stands twice fails the test."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("crystals")
    found = client.search_runs([experiment.experiment_id])
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


def history(server: Server, run: Any, name: str = "loss") -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient

    found = MlflowClient(server.uri).get_metric_history(run.info.run_id, name)
    return [(metric.step, metric.value) for metric in found]


def killed(first: int, last: int, end: str) -> int:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", KILLED, str(first), str(last), end]
    return subprocess.run(command, env=environment, check=False).returncode


def versions(server: Server) -> list[Any]:
    from mlflow.tracking import MlflowClient

    return list(MlflowClient(server.uri).search_model_versions("name = 'orbitdiff-crystals'"))


def test_nothing_is_lost_and_nothing_comes_twice(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow.artifacts import download_artifacts

    # away from the start: a run with files and a model, and a child of it; a process that dies
    folder = Path("model")
    shutil.copytree(demo_checkpoint(), folder)
    with MLflowTracker().run("first", **ABOUT) as first:
        for step in range(3):
            first.metrics({"loss": 3.0 - step}, step=step)
        first.artifact(folder)
        first.model(folder, name="orbitdiff-crystals")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(PARENT_RECORD, first.record)
            with MLflowTracker().run("child", **ABOUT) as child:
                child.metrics({"loss": 1.0})
    assert (first.id, child.id) == ("", "")
    assert "records wait" in capsys.readouterr().out
    (folder / "config.json").write_text("changed since")
    assert killed(0, 3, "die") == -signal.SIGKILL
    with pytest.raises(OrbitDiffError, match="does not take them"):
        deliver()
    with (
        pytest.raises(OrbitDiffError, match="does not answer.*ORBITDIFF_TRACKER"),
        MLflowTracker(required=True).run("required", **ABOUT),
    ):
        pytest.fail("a required server is asked before anything runs")

    # it comes, and goes while a run is open
    server.start()
    with MLflowTracker().run("second", **ABOUT) as second:
        assert second.id
        found = runs(server)
        assert [history(server, found[name]) for name in ("first", "child")] == [
            [(0, 3.0), (1, 2.0), (2, 1.0)], [(0, 1.0)]
        ]  # fmt: skip
        second.metrics({"loss": 0.0}, step=0)
        server.kill()
        for step in range(1, 1500):
            second.metrics({"loss": float(step)}, step=step)
        second.artifact(folder)
        server.start()
    found = runs(server)
    assert history(server, found["second"]) == [(step, float(step)) for step in range(1500)]
    assert found["second"].info.status == "FINISHED"
    assert found["first"].data.params == {"steps": "5"}
    assert found["first"].data.tags["stage"] == "train"
    assert found["child"].data.tags["mlflow.parentRunId"] == found["first"].info.run_id
    assert len(versions(server)) == 1
    kept = download_artifacts(
        artifact_uri=f"runs:/{found['first'].info.run_id}/model/config.json",
        tracking_uri=server.uri,
    )
    assert Path(kept).read_bytes() == (demo_checkpoint() / "config.json").read_bytes()

    # the process that died goes on in its run; sent again from the start, nothing comes twice
    assert killed(2, 6, "live") == 0
    with (
        pytest.raises(OSError, match="full disk"),
        MLflowTracker().run("broken", **ABOUT) as broken,
    ):
        broken.metrics({"loss": 7.0}, step=7)
        broken.model(demo_checkpoint(), name="orbitdiff-crystals")
        raise OSError("full disk")
    before = len(versions(server))
    spool = Spool.of_run("crystals", "broken")
    assert not spool.pending()
    (spool.folder / "sent").write_text("0")
    spool.close()
    assert "every record" in deliver()
    found = runs(server)
    assert history(server, found["killed"]) == [(step, float(step)) for step in range(6)]
    assert found["killed"].info.status == "FINISHED"
    assert history(server, found["broken"]) == [(7, 7.0)]
    assert found["broken"].info.status == "FAILED"
    assert len(versions(server)) == before == 2
    depart()  # as at the end of the process
    assert [path.parent.name for path in records_folder().glob("*/*/journal.jsonl")] == [
        "broken", "required"
    ]  # fmt: skip
