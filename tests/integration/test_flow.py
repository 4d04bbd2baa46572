"""The Prefect flow on a tiny DVC project: every stage once, retries, nothing the second time."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

pytest.importorskip("prefect")
pytest.importorskip("dvc")
pytest.importorskip("mlflow")

from orbitdiff.errors import OrbitDiffError
from pipelines.environment import prepare_environment

prepare_environment()

pytestmark = pytest.mark.integration
RUN = "tiny-salt-plain-0"
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
    report = ["reports/crystals/tiny/table.md", "reports/crystals/tiny/report.html"]
    chain = {
        "fetch@salt": stage("fetch", [], "raw"),
        "prepare@salt": stage("prepare", ["raw"], "data"),
        f"train@{RUN}": stage("train", ["data"], "model"),
        f"sample@{RUN}": stage("sample", ["data", "model"], "samples"),
        f"evaluate@{RUN}": stage("evaluate", ["data", "samples", "model"], "results"),
        f"steps@{RUN}": stage("steps", ["data", "model"], "curve"),
        "report_crystals@tiny": stage("report", ["results", "curve", "data"], *report),
    }
    stages: dict[str, object] = {}
    for name, content in chain.items():
        group, _, key = name.partition("@")
        stages[group] = {"foreach": [key], "do": content}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    params = {
        "builds": {RUN: {"dataset": "salt"}},
        "steps": {RUN: {}},
        "reports": {"crystals": {"tiny": {"dataset": "salt", "runs": [RUN]}}},
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
        table("crystals", "tiny", root=str(project))
    folder = table("crystals", "tiny", root=str(project))
    assert (Path(folder) / "report.html").read_text() == "report was here\n"
    calls = (project / "calls.txt").read_text().split()
    assert calls == ["fetch", "prepare", "train", "train", *CALLS[2:]]
    assert os.getcwd() == here

    mlflow = MlflowClient()
    (record,) = mlflow.search_runs([mlflow.get_experiment_by_name("crystals").experiment_id])
    assert record.info.run_name == "flow table tiny"
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
    assert run.name == "crystals tiny"
    assert run.state is not None
    assert run.state.is_completed()
    assert {found.name for found in tasks} == {
        "fetch@salt", "prepare@salt", f"train@{RUN}", f"sample@{RUN}", f"evaluate@{RUN}",
        f"steps@{RUN}", "report_crystals@tiny",
    }  # fmt: skip
    assert {found.name: found.run_count for found in tasks}[f"train@{RUN}"] == 2
    kinds = {found.type: found for found in artifacts}
    assert "report was here" in str(kinds["markdown"].data)
    assert f"train@{RUN}" in str(kinds["table"].data)

    table("crystals", "tiny", root=str(project))
    assert (project / "calls.txt").read_text().split() == calls


ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Prefect server on a free port, with a database of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    log = (tmp_path / "server.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port",
         str(port)],
        stdout=log, stderr=log,
    )  # fmt: skip
    try:
        limit = time.monotonic() + 300
        while time.monotonic() < limit:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2):
                    break
            except OSError:
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                time.sleep(0.5)
        from prefect.settings import PREFECT_API_URL, temporary_settings

        # settings are read at the first import, which may be that of another test
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
            yield
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def command(*words: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *words],
        cwd=cwd, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_deployments_of_the_repository_run_on_a_server(project: Path, server: None) -> None:
    """The commands in the head of infra/prefect.yaml, with the tiny project as the repository."""
    shutil.copytree(ROOT / "infra", project / "infra")
    shutil.copytree(ROOT / "pipelines", project / "pipelines")
    command("work-pool", "create", "local", "--type", "process")
    command(
        "work-pool", "create", "cluster", "--type", "kubernetes",
        "--base-job-template", "infra/kubernetes_pool.json",
    )  # fmt: skip
    command("deploy", "--prefect-file", "infra/prefect.yaml", "--all", cwd=project)
    from prefect.client.orchestration import get_client

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

    command("deployment", "run", "table/crystals-demo", "--param", "preset=tiny")
    command("worker", "start", "--pool", "local", "--run-once", cwd=project)
    limit = time.monotonic() + 600
    while time.monotonic() < limit:
        with get_client(sync_client=True) as client:
            (run,) = client.read_flow_runs()
        if run.state is not None and run.state.is_final():
            break
        time.sleep(1)
    assert run.state is not None
    assert run.state.is_completed(), run.state
    assert (project / "calls.txt").read_text().split() == CALLS
