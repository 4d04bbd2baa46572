"""The Prefect flow on a tiny DVC project: every stage once, retries, nothing the second time."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

pytest.importorskip("prefect")
pytest.importorskip("dvc")

from pipelines.environment import prepare_environment

prepare_environment()

pytestmark = pytest.mark.integration
RUN = "tiny-salt-plain-0"
# appends a line per call, so that the test counts them; the train stage fails the first time
SCRIPT = """
import sys
from pathlib import Path
name, *outs = sys.argv[1:]
log = Path("calls.txt")
calls = log.read_text().split() if log.exists() else []
log.write_text("\\n".join([*calls, name]) + "\\n")
if name == "train" and "train" not in calls:
    sys.exit("stands for a machine that went away")
for out in outs:
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(f"{name} was here\\n")
"""


def stage(name: str, deps: list[str], *outs: str) -> dict[str, object]:
    command = f"{sys.executable} step.py {name} {' '.join(outs)}"
    return {"cmd": command, "deps": deps, "outs": [{out: {"cache": False}} for out in outs]}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A DVC project with the names and edges of ours, and nothing to compute."""
    (tmp_path / "step.py").write_text(SCRIPT)
    report = ["reports/crystals/tiny/table.md", "reports/crystals/tiny/report.html"]
    chain = {
        "fetch@salt": stage("fetch", [], "raw"),
        "prepare@salt": stage("prepare", ["raw"], "data"),
        f"train@{RUN}": stage("train", ["data"], "model"),
        f"sample@{RUN}": stage("sample", ["data", "model"], "samples"),
        f"evaluate@{RUN}": stage("evaluate", ["data", "samples", "model"], "results"),
        "report@tiny": stage("report", ["results", "data"], *report),
    }
    stages: dict[str, object] = {}
    for name, content in chain.items():
        group, _, key = name.partition("@")
        stages[group] = {"foreach": [key], "do": content}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    reports = {"tiny": {"dataset": "salt", "runs": [RUN]}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"reports": reports}))
    subprocess.run(
        [sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=tmp_path, check=True
    )
    return tmp_path


@pytest.fixture
def prefect() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=90):
        yield


@pytest.mark.timeout(400)
def test_flow_runs_each_stage_once_and_retries(project: Path, prefect: None) -> None:
    from prefect.client.orchestration import get_client

    from pipelines.flows.crystals import crystals

    here = os.getcwd()
    page = crystals("tiny", root=str(project))
    assert Path(page).read_text() == "report was here\n"
    calls = (project / "calls.txt").read_text().split()
    assert calls == ["fetch", "prepare", "train", "train", "sample", "evaluate", "report"]
    assert os.getcwd() == here

    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs()
        tasks = client.read_task_runs()
        artifacts = client.read_artifacts()
    assert run.name == "crystals tiny"
    assert run.state is not None
    assert run.state.is_completed()
    assert {found.name for found in tasks} == {
        "fetch@salt", "prepare@salt", f"train@{RUN}", f"sample@{RUN}", f"evaluate@{RUN}",
        "report@tiny",
    }  # fmt: skip
    assert {found.name: found.run_count for found in tasks}[f"train@{RUN}"] == 2
    kinds = {found.type: found for found in artifacts}
    assert "report was here" in str(kinds["markdown"].data)
    assert f"train@{RUN}" in str(kinds["table"].data)

    crystals("tiny", root=str(project))
    assert (project / "calls.txt").read_text().split() == calls
