"""The Prefect flow on a tiny DVC project: every stage once, retries, nothing the second time."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("prefect")
pytest.importorskip("dvc")
pytest.importorskip("mlflow")
psutil = pytest.importorskip("psutil")
pytest.importorskip("pymatgen")

from pymatgen.core import Lattice, Structure

from orbitdiff.errors import BadInput, OrbitDiffError
from pipelines.environment import prepare_environment
from pipelines.stages.base import LocalExecutor
from pipelines.stages.crystals.prepare import prepare_own

prepare_environment()

pytestmark = pytest.mark.integration
RUN = "cpu-salt-plain-0"
CALLS = ["fetch", "prepare", "train", "train", "sample", "evaluate", "steps", "report"]
# appends a line per call, so that the test counts them; the train stage fails the first times
SCRIPT = """
import os
import sys
from pathlib import Path
name, *outs = sys.argv[1:]
log = Path("calls.txt")
calls = log.read_text().split() if log.exists() else []
log.write_text("\\n".join([*calls, name]) + "\\n")
with open("parents.txt", "a") as file:
    file.write(os.environ.get("ORBITDIFF_PARENT_RECORD", "none") + "\\n")
if name == "train" and calls.count("train") < int(Path("fails.txt").read_text()):
    sys.exit("stands for a machine that went away")
for out in outs:
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(f"{name} was here\\n")
"""


def stage(name: str, deps: list[str], *outs: str) -> dict[str, object]:
    command = f"{sys.executable} step.py {name} {' '.join(outs)}"
    return {"cmd": command, "deps": deps, "outs": [{out: {"cache": False}} for out in outs]}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC project with the names and edges of ours, and nothing to compute."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    (tmp_path / "step.py").write_text(SCRIPT)
    (tmp_path / "fails.txt").write_text("1")
    report = ["reports/crystals/cpu/table.md", "reports/crystals/cpu/report.html"]
    chain = {
        "fetch@salt": stage("fetch", [], "raw"),
        "prepare@salt": stage("prepare", ["raw"], "prepared"),
        f"train@{RUN}": stage("train", ["prepared"], "model"),
        f"sample@{RUN}": stage("sample", ["prepared", "model"], "samples"),
        f"evaluate@{RUN}": stage("evaluate", ["prepared", "samples", "model"], "results"),
        f"steps@{RUN}": stage("steps", ["prepared", "model"], "curve"),
        "report_crystals@cpu": stage("report", ["results", "curve", "prepared"], *report),
    }
    stages: dict[str, object] = {}
    for name, content in chain.items():
        group, _, key = name.partition("@")
        stages[group] = {"foreach": [key], "do": content}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    params = {
        "builds": {RUN: {"dataset": "salt"}},
        "steps": {RUN: {}},
        "reports": {"crystals": {"cpu": {"dataset": "salt", "runs": [RUN]}}},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    subprocess.run(
        [sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=tmp_path, check=True
    )
    return tmp_path


@pytest.fixture
def prefect() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=300):
        yield


@pytest.mark.timeout(900)
def test_flow_runs_each_stage_once_and_retries(
    project: Path, prefect: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient
    from prefect.client.orchestration import get_client

    from pipelines.flows.table import table

    monkeypatch.chdir(project.parent)
    here = os.getcwd()
    (project / "fails.txt").write_text("3")
    # the first flow ends with its second try; the next one goes on in its record
    with pytest.raises(OrbitDiffError, match="stage train"):
        table("crystals", "cpu", root=str(project))
    folder = table("crystals", "cpu", root=str(project))
    assert (Path(folder) / "report.html").read_text() == "report was here\n"
    calls = (project / "calls.txt").read_text().split()
    assert calls == ["fetch", "prepare", "train", "train", *CALLS[2:]]
    assert os.getcwd() == here

    mlflow = MlflowClient()
    (record,) = mlflow.search_runs([mlflow.get_experiment_by_name("crystals").experiment_id])
    assert record.info.run_name == "flow table cpu"
    assert record.info.status == "FINISHED"
    assert set((project / "parents.txt").read_text().split()) == {
        record.data.tags["orbitdiff.record"]
    }

    with get_client(sync_client=True) as client:
        (run,) = (
            one for one in client.read_flow_runs() if one.state is None or one.state.is_completed()
        )
        tasks = [one for one in client.read_task_runs() if one.flow_run_id == run.id]
        artifacts = client.read_artifacts()
    assert run.name == "crystals cpu"
    assert run.state is not None
    assert run.state.is_completed()
    assert {found.name for found in tasks} == {
        "fetch@salt", "prepare@salt", f"train@{RUN}", f"sample@{RUN}", f"evaluate@{RUN}",
        f"steps@{RUN}", "report_crystals@cpu",
    }  # fmt: skip
    assert {found.name: found.run_count for found in tasks}[f"train@{RUN}"] == 2
    kinds = {found.type: found for found in artifacts}
    assert "report was here" in str(kinds["markdown"].data)
    assert f"train@{RUN}" in str(kinds["table"].data)

    table("crystals", "cpu", root=str(project))
    assert (project / "calls.txt").read_text().split() == calls


ROOT = Path(__file__).parents[2]
LONG = ["train.steps=10000000", "train.num_workers=1", "train.log_every=1", "train.batch_size=4"]


class Server:
    """A Prefect server on a free port, with a database of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.log = folder / "server.log"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1",
                 "--port", str(self.port)],
                stdout=log, stderr=log,
            )  # fmt: skip
        limit = time.monotonic() + 300
        while time.monotonic() < limit:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):
                    return
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.5)
        raise AssertionError(self.log.read_text())

    def kill(self) -> None:
        family = psutil.Process(self.process.pid).children(recursive=True)
        for process in (self.process, *family):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(60)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    found = Server(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PREFECT_API_URL", found.url)
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    found.start()
    try:
        from prefect.settings import PREFECT_API_URL, temporary_settings

        # settings are read at the first import, which may be that of another test
        with temporary_settings({PREFECT_API_URL: found.url}):
            yield found
    finally:
        found.kill()


def command(*words: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *words],
        cwd=cwd, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_deployments_of_the_repository_run_on_a_server(project: Path, server: Server) -> None:
    """The commands in the head of infra/prefect.yaml, with the tiny project as the repository.

    A failed stage is tried again, a schedule fires, a cancelled run stops its Ray.
    """
    shutil.copytree(ROOT / "infra", project / "infra")
    shutil.copytree(ROOT / "pipelines", project / "pipelines")
    command("work-pool", "create", "local", "--type", "process")
    command(
        "work-pool", "create", "cluster", "--type", "kubernetes",
        "--base-job-template", "infra/kubernetes_pool.json",
    )  # fmt: skip
    command("deploy", "--prefect-file", "infra/prefect.yaml", "--all", cwd=project)
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.schedules import IntervalSchedule

    with get_client(sync_client=True) as client:
        deployments = {found.name: found for found in client.read_deployments()}
    assert set(deployments) == {
        "crystals-demo", "crystals-cpu", "toy", "nightly", "nightly-cluster", "weekly",
        "weekly-cluster", "train", "train-cluster",
    }  # fmt: skip
    pools = {name: found.work_pool_name for name, found in deployments.items()}
    assert all((pools[name] == "cluster") == name.endswith("-cluster") for name in pools)
    assert not any(s.active for found in deployments.values() for s in found.schedules)
    assert deployments["crystals-cpu"].schedules[0].schedule.cron == "15 2 * * 6"

    runs_of = partial(flow_runs, project / "worker.log")
    with worker(project):
        # a stage fails once and is tried again
        command("deployment", "run", "table/crystals-cpu")
        (run,) = runs_of(1)
        assert run.state.is_completed(), run.state
        assert (project / "calls.txt").read_text().split() == CALLS
        with get_client(sync_client=True) as client:
            tries = {found.name: found.run_count for found in client.read_task_runs()}
        assert tries[f"train@{RUN}"] == 2
        assert set(tries.values()) == {1, 2}

        # the nightly schedule, every few seconds: what is up to date runs no stage
        nightly = deployments["nightly"]
        (schedule,) = nightly.schedules
        often = IntervalSchedule(interval=timedelta(seconds=15))
        with get_client(sync_client=True) as client:
            client.update_deployment_schedule(nightly.id, schedule.id, active=True, schedule=often)
        fired = wait_for(
            lambda: [
                one
                for one in runs_of(1)
                if one.deployment_id == nightly.id and one.state.is_completed()
            ],
            project / "worker.log",
        )
        with get_client(sync_client=True) as client:
            client.update_deployment_schedule(nightly.id, schedule.id, active=False)
        assert fired[0].auto_scheduled
        assert (project / "calls.txt").read_text().split() == CALLS

        # a training on Ray that somebody cancels
        write_training(project)
        command(
            "deployment", "run", "train/train", "--param", "preset=demo", "--param", "dataset=salt",
            "--param", f"changes={json.dumps(LONG)}",
        )  # fmt: skip
        wait_for(lambda: list(project.glob("runs/*/.runs/*/history.jsonl")), project / "worker.log")
        ray = [
            process
            for process in psutil.process_iter()
            if belongs_to(process, project)
            and any(word in " ".join(process.cmdline()) for word in ("raylet", "RayTrainWorker"))
        ]
        assert ray
        with get_client(sync_client=True) as client:
            train = deployments["train"].id
            (running,) = (x for x in client.read_flow_runs() if x.deployment_id == train)
        assert running.state.is_running(), running.state
        command("flow-run", "cancel", str(running.id))
        _, alive = psutil.wait_procs(ray, timeout=120)
        assert not alive
        with get_client(sync_client=True) as client:
            wait_for(
                lambda: client.read_flow_run(running.id).state.is_cancelled(),
                project / "worker.log",
            )


FLOW = """
from pipelines.environment import prepare_environment
prepare_environment()
from pipelines.flows.server import start_flow
from pipelines.flows.table import table
start_flow(table, "crystals", "cpu")
"""


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_server_that_goes_away_for_a_minute_stops_no_flow(project: Path, server: Server) -> None:
    """It dies while a stage runs and comes back a minute after that stage has ended."""
    (project / "fails.txt").write_text("0")
    waits = "if name == 'train':\n    import time\n    while not Path('go').exists():\n        "
    (project / "step.py").write_text(
        SCRIPT.replace("for out in outs:", f"{waits}time.sleep(0.1)\nfor out in outs:")
    )
    log = project / "flow.log"
    with log.open("wb") as said:
        flow = subprocess.Popen(
            [sys.executable, "-c", FLOW], cwd=project, stdout=said, stderr=said,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    calls = project / "calls.txt"
    wait_for(lambda: calls.exists() and "train" in calls.read_text().split(), log)
    server.kill()
    (project / "go").touch()
    time.sleep(60)
    assert flow.poll() is None, log.read_text()
    server.start()
    assert flow.wait(600) == 0, log.read_text()
    assert calls.read_text().split() == [*CALLS[:2], *CALLS[3:]]
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs()
        assert run.state is not None
        assert run.state.is_completed()
        assert {found.type for found in client.read_artifacts()} == {"markdown", "table"}
    from mlflow.tracking import MlflowClient

    mlflow = MlflowClient()
    (record,) = mlflow.search_runs([mlflow.get_experiment_by_name("crystals").experiment_id])
    assert record.info.status == "FINISHED"


def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.flows.server import start_flow

    def flow(task: str) -> str:
        return f"{task} ran"

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/api"
    monkeypatch.setenv("PREFECT_API_URL", url)
    with pytest.raises(BadInput, match=f"PREFECT_API_URL={url}, got no answer"):
        start_flow(flow, "crystals")
    monkeypatch.delenv("PREFECT_API_URL")
    assert start_flow(flow, "crystals") == "crystals ran"


def write_training(project: Path) -> None:
    """Prepared crystals and a preset, for a training that lasts until it is stopped."""
    cifs = project / "cifs"
    cifs.mkdir()
    for number in range(24):
        places = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
        crystal = Structure(Lattice.cubic(4 + 0.05 * number), ["Ba", "Ti", "O"], places)
        crystal.to(str(cifs / f"crystal-{number}.cif"))
    prepare_own(cifs, project / "data/prepared/crystals/salt", executor=LocalExecutor())
    ours = yaml.safe_load((ROOT / "params.yaml").read_text())
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["datasets"] = {"salt": {"task": "crystals", "preset": "demo"}}
    params |= {name: ours[name] for name in ("crystals", "versions")}
    (project / "params.yaml").write_text(yaml.safe_dump(params))


def belongs_to(process: Any, project: Path) -> bool:
    """True for processes below the worker of a project."""
    try:
        return any(Path(above.cwd()) == project for above in process.parents() if above.pid > 1)
    except psutil.Error:
        return False


@contextmanager
def worker(project: Path) -> Iterator[None]:
    """A worker of the pool `local` that asks often."""
    log = (project / "worker.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", "local"], cwd=project,
        stdout=log, stderr=log, env={**os.environ, "PREFECT_WORKER_QUERY_SECONDS": "2"},
    )  # fmt: skip
    try:
        yield
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(120)
        for child in family:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        log.close()


def wait_for(found: Callable[[], Any], log: Path) -> Any:
    """Wait until something is there, and return it."""
    limit = time.monotonic() + 900
    while not (result := found()):
        assert time.monotonic() < limit, log.read_text()[-3000:]
        time.sleep(0.5)
    return result


def flow_runs(log: Path, number: int) -> list[Any]:
    """Wait until so many flow runs have ended, and return them."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:

        def ended() -> list[Any]:
            found = client.read_flow_runs()
            final = [run for run in found if run.state is not None and run.state.is_final()]
            return final if len(final) >= number else []

        final: list[Any] = wait_for(ended, log)
    return final
