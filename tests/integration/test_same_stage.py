"""Two processes run the same stage at once: one waits or refuses, and nothing is mixed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip("dvc")
pytest.importorskip("pyarrow")

from orbitdiff.training.checkpoint import is_complete
from pipelines.__main__ import main

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
RUN = "demo-prototypes-exact-0"
OPTIONS = ["--preset", "demo", "--dataset", "prototypes", "--estimator", "exact"]
SLOW = """
import sys, time
from pathlib import Path
mine = sys.argv[1]
Path("started").mkdir(exist_ok=True)
Path(f"started/{mine}").touch()
Path("out").mkdir()
for number in range(20):
    Path(f"out/{number}").write_text(mine)
    time.sleep(0.1)
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prepared crystals, and numbers that train for some seconds."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["crystals"]["demo"].update(
        {
            "data": {"max_atoms": 6, "prototypes": 40},
            "model": {"hidden": 8, "layers": 1, "frequencies": 2, "time_dim": 8},
            "train": {"steps": 300, "batch_size": 4, "num_workers": 1, "checkpoint_every": 50,
                      "validate_every": 300, "log_every": 10},
            "validation": {"num": 2, "sigmas": [0.1]},
        }
    )  # fmt: skip
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORBITDIFF_EXECUTOR", "local")
    monkeypatch.setenv("ORBITDIFF_TRACKER", "none")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for stage in ("fetch", "prepare"):
        assert main([stage, "crystals", *OPTIONS]) == 0
    return tmp_path


def train() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines", "train", "crystals", *OPTIONS], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ),
    )  # fmt: skip


def history(folder: Path) -> list[str]:
    lines = (folder / "history.jsonl").read_text().splitlines()
    return [line.split('"step_seconds"')[0] for line in lines]


def test_two_trainings_of_one_run_give_one_model(repository: Path) -> None:
    from safetensors.torch import load_file

    model = repository / "models" / RUN
    assert train().wait() == 0
    alone, quiet = load_file(model / "model.safetensors"), history(model)
    model.rename(repository / "quiet")
    (repository / ".runs").rename(repository / "before")

    both = [train(), train()]
    ends = [process.communicate() for process in both]
    codes = sorted(process.returncode for process in both)
    # the second waits a minute for the first; then it goes on from its end, or refuses
    assert codes in ([0, 0], [0, 2]), ends
    for process, (_, said) in zip(both, ends, strict=True):
        if process.returncode == 2:
            assert "another process" in said.splitlines()[-1]
    assert is_complete(model)
    found = load_file(model / "model.safetensors")
    assert all(bool((found[name] == value).all()) for name, value in alone.items())
    assert history(model) == quiet
    assert not list((repository / "models").glob(".*"))


def test_with_a_record_the_second_refuses_at_once(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    from pipelines.tracking.spool import Spool

    monkeypatch.delenv("ORBITDIFF_TRACKER")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    first = Spool.of_run("crystals", RUN)  # stands for the other process
    second = train()
    _, said = second.communicate()
    first.close()
    assert second.returncode == 2
    assert f"another process records the run '{RUN}'" in said.splitlines()[-1]
    assert not (repository / "models").exists()


def test_two_repros_of_one_stage_never_mix_their_outputs(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    stages = {"slow": {"cmd": f"{sys.executable} slow.py $WHO", "outs": ["out"]}}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "-q", "--no-scm"], cwd=tmp_path, check=True)

    def repro(who: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*dvc, "repro", "--single-item", "slow"], cwd=tmp_path, text=True,
            env={**os.environ, "WHO": who}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    first = repro("first")
    limit = time.monotonic() + 300
    while not (tmp_path / "started/first").exists():
        assert first.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.05)
    second = repro("second")
    said, _ = second.communicate()
    assert first.wait() == 0
    written = {path.read_text() for path in (tmp_path / "out").iterdir()}
    assert len(written) == 1
    assert len(list((tmp_path / "out").iterdir())) == 20
    if second.returncode:  # it refused: DVC names the process that holds the stage
        assert "being used by" in said or "lock" in said.lower(), said
        assert not (tmp_path / "started/second").exists()
    else:
        assert "didn't change" in said or (tmp_path / "started/second").exists()
