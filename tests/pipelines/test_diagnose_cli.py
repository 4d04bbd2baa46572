"""`orbitdiff diagnose`: own files and tasks, one clear line and exit code 2 for bad input."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from orbitdiff.diagnosis import measure
from pipelines import cli

ROOT = Path(__file__).parents[2]
SMALL = ("--levels", "2", "--samples", "8")


@pytest.fixture
def diagnose(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the verb at the repository root with few elements; (exit code, stdout, stderr)."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(measure, "COUNTS", (16, 64))

    def call(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["orbitdiff", "diagnose", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return call


@pytest.fixture
def clouds(tmp_path: Path) -> Path:
    path = tmp_path / "clouds.npz"
    np.savez(path, coords=np.random.default_rng(0).normal(size=(4, 6, 3)))
    return path


def test_own_points(diagnose, clouds: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.xyz").write_text("nothing\n")
    out = tmp_path / "out"
    code, said, _ = diagnose("--data", str(tmp_path), "-o", str(out), *SMALL)
    assert code == 0
    assert "left out: bad.xyz frame 1" in said
    assert "1 left out, 4 structures kept" in said
    assert "Take the exact mean" in said
    assert sorted(file.name for file in out.iterdir()) == [
        "diagnosis.csv", "diagnosis.json", "diagnosis.png",
    ]  # fmt: skip
    content = json.loads((out / "diagnosis.json").read_text())
    assert content["config"]["kernel"] == "gaussian"
    assert content["config"]["group"] == "rotation"
    assert [found["name"] for found in content["data"]["skipped"]] == ["bad.xyz frame 1"]
    assert content["recommendation"]["text"] in said


def test_tiny_noise_is_not_worth_it(diagnose, clouds: Path, tmp_path: Path) -> None:
    levels = ("--sigma-min", "0.001", "--sigma-max", "0.01")
    code, said, _ = diagnose("--data", str(clouds), "-o", str(tmp_path / "o"), *levels, *SMALL)
    assert code == 0
    assert "Not worth it here" in said


def test_own_cells(diagnose, tmp_path: Path) -> None:
    core = pytest.importorskip("pymatgen.core")
    salt = core.Structure.from_spacegroup(
        "Fm-3m", core.Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    salt.to(filename=str(tmp_path / "salt.cif"))
    code, said, _ = diagnose("--data", str(tmp_path), "-o", str(tmp_path / "o"), *SMALL)
    assert code == 0
    assert "average over translations" in said


@pytest.mark.parametrize(("task", "kind"), [("toy", "finite"), ("crystals", "torus")])
def test_tasks(diagnose, monkeypatch, tmp_path: Path, task: str, kind: str) -> None:
    monkeypatch.setattr("pipelines.verbs.diagnose.MOST_CRYSTALS", 4)
    code, said, _ = diagnose(task, "-o", str(tmp_path / "out"), *SMALL)
    assert code == 0
    assert f"estimator kind `{kind}`" in said
    content = json.loads((tmp_path / "out" / "diagnosis.json").read_text())
    assert content["config"]["task"] == task
    assert content["config"]["preset"] == "demo"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "got neither"),
        (["toy", "--data", "CLOUDS"], "got both toy and"),
        (["molecules"], "expected a task among"),
        (["toy", "--kernel", "flow"], "go with --data"),
        (["toy", "--preset", "huge"], "expected a preset of toy among"),
        (["--data", "EMPTY"], "found none"),
        (["--data", "nowhere"], "found none"),
        (["--data", "CLOUDS", "--kernel", "wrapped_normal"], "need a kernel among"),
        (["--data", "CLOUDS", "--group", "translation"], "not invariant under translation"),
        (["--data", "CLOUDS", "--kernel", "harmonic"], "give an sdf file"),
        (["--data", "CLOUDS", "--sigma-min", "9", "--sigma-max", "1"], "sigma_min < sigma_max"),
        (["--data", "CLOUDS", "--samples", "0"], "at least 1 sample"),
    ],
)
def test_bad_input_is_one_clear_line(
    diagnose, clouds: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    named = {"CLOUDS": str(clouds), "EMPTY": str(tmp_path / "empty")}
    code, _, said = diagnose(*(named.get(part, part) for part in arguments))
    assert code == 2
    assert said.startswith("error: ")
    assert message in said
    assert "Traceback" not in said
