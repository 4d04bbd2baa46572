"""The console command: grammar, one clear line and exit code 2 for bad input, light imports."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines import build, cli

ROOT = Path(__file__).parents[2]


@pytest.fixture
def orbitdiff(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run a command line at the repository root; (exit code, stdout, stderr)."""
    monkeypatch.chdir(ROOT)

    def call(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["orbitdiff", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return call


@pytest.fixture
def reproduced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """DVC targets that a command asks for, instead of running them."""
    asked: list[str] = []
    monkeypatch.setattr(build, "reproduce", lambda target, dry_run=False: asked.append(target))
    return asked


def test_dry_run_lists_the_stages_in_order(orbitdiff) -> None:
    code, out, _ = orbitdiff("run", "crystals", "--preset", "demo", "--dry-run")
    assert code == 0
    names = [line.split()[0].split("@")[0] for line in out.splitlines()]
    assert names[:3] == ["fetch", "prepare", "train"]
    assert names[-1] == "report_crystals"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "crystals", "--preset", "huge"], "among ['cpu', 'demo'], got 'huge'"),
        (["run", "molecules"], "expected a task among"),
        (["train", "crystals", "--set", "train.nosuch=1"], "nosuch"),
        (["train", "crystals", "--set", "train.steps=0"], "at least 1"),
        (["train", "crystals", "--estimator", "magic"], "got 'magic'"),
        (["train", "crystals", "--dataset", "nowhere"], "expected a data set among"),
        (["train", "crystals", "--set", "data.max_atoms=9"], "--set data.*"),
        (["generate", "crystals", "--formula", "BaTiXx3", "-o", "o"], "BaTiXx3"),
        (["generate", "crystals", "--formula", "H2O", "-o", "o", "-n", "0"], "at least 1"),
        (["generate", "crystals", "--formula", "H2O", "-o", "o", "--checkpoint", "no"], "no"),
        (["evaluate", "crystals", "--generated", "no", "--reference", "no"], "no"),
    ],
)
def test_bad_input_is_one_clear_line(
    orbitdiff, monkeypatch: pytest.MonkeyPatch, reproduced, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("ORBITDIFF_EXECUTOR", "local")
    code, _, err = orbitdiff(*arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err
    assert reproduced == []


def test_listed_runs_go_through_dvc(orbitdiff, reproduced: list[str]) -> None:
    assert orbitdiff("train", "crystals", "--estimator", "plain")[0] == 0
    assert reproduced == ["train@demo-prototypes-plain-0"]


def test_changed_runs_stay_outside_dvc(
    orbitdiff, reproduced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, Path]] = []
    monkeypatch.setattr(
        "pipelines.assemble.run_stage",
        lambda stage, task, params, *, root, **rest: ran.append((stage, root)),
    )
    code, out, _ = orbitdiff("sample", "crystals", "--set", "train.steps=5")
    assert code == 0
    assert "outside DVC" in out
    assert reproduced == ["prepare@prototypes"]
    assert [stage for stage, _ in ran] == ["train", "sample"]
    assert {root.parts[0] for _, root in ran} == {"runs"}


def test_help_imports_nothing_heavy() -> None:
    # python -c, so that what pytest has imported does not count
    code = (
        "import sys; import pipelines.cli;"
        "print([n for n in ('ray', 'mlflow', 'prefect', 'dvc', 'torch', 'pymatgen')"
        " if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = yaml.safe_load(done.stdout)
    assert not {"ray", "mlflow", "prefect", "dvc", "pymatgen"} & set(found)


def test_doctor_names_data_and_servers(orbitdiff, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, out, _ = orbitdiff("doctor")
    assert code == 0
    for expected in ("torch 2", "device: ", "data set perov_5", "MLFLOW_TRACKING_URI: http://127"):
        assert expected in out


def test_doctor_names_the_cure(orbitdiff, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pipelines import doctor

    monkeypatch.setenv("ORBITDIFF_DATA", str(tmp_path))
    monkeypatch.setattr(doctor, "PACKAGES", {"no-such-package-here": "mol"})
    code, out, _ = orbitdiff("doctor")
    assert code == 0
    assert "pip install -c constraints.txt -e '.[mol]'" in out
    assert "dvc repro fetch@" in out or "export ORBITDIFF_DATA" in out
