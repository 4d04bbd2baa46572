"""`prepare conformers` from GEOM's own layout and from a list of SMILES, through the command."""

import csv
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rdkit")

from orbitdiff.data.molecules import MoleculeDataset
from pipelines import cli

SMILES = ("CCO", "CCN", "CC=O", "OC=O", "CC#N", "C1CC1", "COC", "CCF", "NC=O", "CO", "CN", "CCC")


def embedded(smiles: str):
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom

    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(molecule, randomSeed=3) == 0
    return molecule


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An rdkit_folder of a dozen molecules; one holds a conformer of another molecule."""
    root = tmp_path / "rdkit_folder"
    (root / "qm9").mkdir(parents=True)
    summary = {}
    for number, smiles in enumerate(SMILES):
        molecules = [embedded(smiles), embedded("CCCC" if smiles == "CCC" else smiles)]
        content = {
            "smiles": smiles,
            "conformers": [
                {"rd_mol": m, "relativeenergy": float(k), "boltzmannweight": 0.5}
                for k, m in enumerate(molecules)
            ],
        }
        name = f"m{number:02d}.pickle"
        (root / "qm9" / name).write_bytes(pickle.dumps(content))
        summary[smiles] = {"pickle_path": f"qm9/{name}"}
    (root / "summary_qm9.json").write_text(json.dumps(summary))
    return root


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("ORBITDIFF_EXECUTOR", "local")

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["orbitdiff", "prepare", "conformers", *words])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def counts(out: Path) -> dict[str, int]:
    return json.loads((out / "manifest.json").read_text())["counts"]


def test_geom_with_a_split_file(folder: Path, tmp_path: Path, prepare) -> None:
    parts = np.empty(3, dtype=object)
    for place, rows in enumerate(([0, 1, 2, 3, 4, 5, 11], [6, 7], [8, 9, 10])):
        parts[place] = np.array(rows)
    np.save(tmp_path / "split0.npy", parts, allow_pickle=True)
    out = tmp_path / "data"
    split = str(tmp_path / "split0.npy")
    code, said = prepare("--from", str(folder), "--out", str(out), "--split", split)
    assert code == 0, said
    assert counts(out) == {"train": 7, "val": 2, "test": 3}
    assert set(MoleculeDataset.load(out, "val").ids) == {"COC", "CCF"}
    with (out / "rejected.csv").open() as file:
        (refused,) = csv.DictReader(file)
    assert "CCC" in refused["id"]


def test_geom_without_a_split(folder: Path, tmp_path: Path, prepare) -> None:
    out = tmp_path / "data"
    code, said = prepare("--from", str(folder), "--out", str(out))
    assert code == 0, said
    assert sum(counts(out).values()) == len(SMILES)


def test_a_list_of_smiles_is_searched(tmp_path: Path, prepare) -> None:
    source, out = tmp_path / "mine.smi", tmp_path / "mine"
    source.write_text("\n".join([*SMILES, "C1CC"]) + "\n")
    code, said = prepare("--from", str(source), "--out", str(out), "--level", "etkdg")
    assert code == 0, said
    assert sum(counts(out).values()) == len(SMILES)
    failures = (tmp_path / "mine-ensembles" / "failures.csv").read_text()
    assert "C1CC" in failures


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--from", "nothing.sdf"), "nothing.sdf"),
        (("--from", "mine.smi", "--level", "dft"), "level"),
        (("--from", "mine.smi", "--max-atoms", "-1"), "max-atoms"),
    ],
)
def test_bad_input_is_one_clear_line(
    tmp_path: Path, prepare, monkeypatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.smi").write_text("C\n")
    code, said = prepare(*words, "--out", str(tmp_path / "out"))
    assert code == 2
    assert message in said
    assert "Traceback" not in said
