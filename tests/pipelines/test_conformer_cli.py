"""`orbitdiff generate | evaluate conformers` with the model that the package ships."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("rdkit")

from orbitdiff.data.ensembles import read_ensembles
from pipelines import cli

DEMO = str(Path(__file__).parents[2] / "orbitdiff" / "resources" / "conformers_demo")


@pytest.fixture
def orbitdiff(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORBITDIFF_EXECUTOR", "local")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["orbitdiff", *words])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_a_smiles_becomes_an_sdf_and_is_evaluated(orbitdiff, tmp_path: Path) -> None:
    """The default is the demo model, and says so; ten conformers of ethanol are near its own."""
    code, said = orbitdiff(
        "generate", "conformers", "--smiles", "C[C@H](N)O", "-n", "4", "--steps", "8", "-o", "a.sdf"
    )
    assert code == 0, said
    assert "demo model" in said
    (found,) = read_ensembles(tmp_path / "a.sdf").ensembles.values()
    assert found.smiles == "C[C@H](N)O"
    assert found.coords.shape == (4, 11, 3)
    code, said = orbitdiff(
        "evaluate", "conformers", "--generated", "a.sdf", "--reference", "a.sdf", "--out", "r"
    )
    assert code == 0, said
    metrics = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert metrics["amr_r_mean"] < 1e-3
    assert metrics["cov_p_0.05_mean"] == 1


def test_molecules_of_a_file_that_cannot_be_used_are_named(orbitdiff, tmp_path: Path) -> None:
    (tmp_path / "some.smi").write_text("CO methanol\nC1CC\nN\n")
    code, said = orbitdiff(
        "generate", "conformers", "--file", "some.smi", "-n", "1", "--steps", "2", "-o", "b.sdf.gz",
        "--checkpoint", DEMO,
    )  # fmt: skip
    assert code == 0, said
    assert "left out: expected a SMILES" in said
    assert "2 conformers of 2 molecules" in said
    assert len(read_ensembles(tmp_path / "b.sdf.gz").ensembles) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--smiles", "C1CC"), "expected a SMILES"),
        (("--smiles", "[U]"), "elements"),
        (("--smiles", "C.C"), "fragments"),
        ((), "either --smiles or --file"),
        (("--smiles", "C", "--file", "x.smi"), "either --smiles or --file"),
        (("--file", "nothing.smi"), "nothing.smi"),
        (("--smiles", "C", "-n", "0"), "n of at least 1"),
        (("--smiles", "C", "--steps", "-1"), "--steps"),
        (("--smiles", "C", "--checkpoint", "nowhere"), "nowhere"),
    ],
)
def test_bad_requests_are_one_clear_line(orbitdiff, words: tuple[str, ...], message: str) -> None:
    code, said = orbitdiff("generate", "conformers", *words, "-o", "out.sdf")
    assert code == 2
    assert message in said
    assert "Traceback" not in said


def test_the_ending_of_the_output_is_checked(orbitdiff) -> None:
    code, said = orbitdiff("generate", "conformers", "--smiles", "C", "-o", "out.xyz")
    assert code == 2
    assert ".sdf" in said
