"""Evaluation of anybody's conformers against a reference, end to end on files."""

import csv
import json

import numpy as np
import pytest

Chem = pytest.importorskip("rdkit.Chem")

from orbitdiff.data.ensembles import with_coords, write_ensembles
from orbitdiff.data.etkdg import etkdg_conformers
from orbitdiff.data.molecules import Ensemble
from orbitdiff.errors import BadInput
from pipelines.stages.base import LocalExecutor
from pipelines.stages.conformers.evaluate_files import evaluate_files

SMILES = ("CCCO", "C[C@H](N)C(=O)O", "CC(C)C=O", "c1ccccc1")


def ensemble(smiles, num, seed=0):
    coords = etkdg_conformers(smiles, num, seed=seed)
    numbers = [atom.GetAtomicNum() for atom in Chem.AddHs(Chem.MolFromSmiles(smiles)).GetAtoms()]
    blank = Ensemble(smiles, np.array(numbers), coords, np.zeros(0), np.zeros(0))
    return with_coords(blank, coords)


@pytest.fixture(scope="module")
def truth():
    return [ensemble(smiles, 3) for smiles in SMILES]


@pytest.fixture
def reference(tmp_path, truth):
    write_ensembles(truth, tmp_path / "reference.jsonl.gz")
    return tmp_path / "reference.jsonl.gz"


def files(generated, reference, **more):
    return evaluate_files(generated, reference, executor=LocalExecutor(), **more)


def moved(one, by=3.0):
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    return with_coords(one, one.coords @ turn.T + by)


@pytest.mark.parametrize("suffix", [".jsonl", ".sdf.gz"])
def test_the_references_themselves(tmp_path, truth, reference, suffix):
    path = tmp_path / f"made{suffix}"
    write_ensembles([moved(one) for one in truth], path)
    found = files(path, reference, out=tmp_path / "out")
    assert found["cov_r_0.05_mean"] == found["cov_p_0.05_mean"] == 1
    assert found["amr_r_mean"] == pytest.approx(0, abs=2e-4)
    assert found["stereo_conformers_right"] == 1
    assert (found["num_references"], found["num_generated"]) == (12, 12)
    assert found["generated"] == path.name
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == found
    with (tmp_path / "out" / "per_sample.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["smiles"] for row in rows] == list(SMILES)
    assert all(float(row["cov_r_0.75"]) == 1 for row in rows)
    assert float(rows[0]["amr_p"]) == pytest.approx(0, abs=2e-4)


def test_sdf_and_json_lines_give_the_same_numbers(tmp_path, reference):
    made = [ensemble(smiles, 4, seed=5) for smiles in SMILES]
    write_ensembles(made, tmp_path / "made.jsonl")
    write_ensembles(made, tmp_path / "made.sdf")
    one, other = files(tmp_path / "made.jsonl", reference), files(tmp_path / "made.sdf", reference)
    for name in ("amr_r_mean", "amr_p_mean", "amr_r_median", "cov_r_0.5_mean", "cov_p_0.5_mean"):
        assert one[name] == pytest.approx(other[name], abs=1e-3)
    assert one["amr_r_mean"] > 0.01


def test_missing_foreign_and_unreadable(tmp_path, truth, reference):
    """One molecule as it is, one with half its rows broken, one missing, one stranger."""
    broken = with_coords(truth[1], np.concatenate([truth[1].coords, np.full((3, 13, 3), np.nan)]))
    write_ensembles([truth[0], broken, ensemble("CCCC", 1)], tmp_path / "made.jsonl")
    found = files(tmp_path / "made.jsonl", reference)
    assert found["num_molecules"] == 4
    assert found["molecules_without_conformer"] == 2
    assert found["unpaired_molecules"] == 1
    assert found["unreadable"] == 3
    assert found["cov_r_0.5_mean"] == 0.5
    assert found["cov_r_0.5_mean_generated"] == 1
    assert found["cov_p_0.5_mean"] == pytest.approx((1 + 0.5) / 4)
    assert found["amr_r_mean"] == pytest.approx(0, abs=1e-6)


def test_another_spelling_of_the_smiles(tmp_path, reference):
    """Pairing is by molecule and the atoms are put in the order of the reference."""
    same = ensemble("OC(=O)[C@@H](N)C", 8, seed=3)
    assert Chem.CanonSmiles(same.smiles) == Chem.CanonSmiles(SMILES[1])
    write_ensembles([same], tmp_path / "made.jsonl")
    found = files(tmp_path / "made.jsonl", reference, out=tmp_path / "out")
    assert found["unpaired_molecules"] == 0
    assert found["stereo_conformers_right"] == 1
    assert found["amr_p_mean"] < 1.0
    with (tmp_path / "out" / "per_sample.csv").open() as file:
        (row,) = [row for row in csv.DictReader(file) if row["num_generated"] == "8"]
    assert row["smiles"] == SMILES[1]


def test_the_wrong_enantiomer_is_told(tmp_path, truth, reference):
    write_ensembles([with_coords(truth[1], -truth[1].coords)], tmp_path / "made.jsonl")
    found = files(tmp_path / "made.jsonl", reference)
    assert found["stereo_conformers_right"] == 0
    assert found["amr_r_mean"] > 0.1


def test_thresholds(tmp_path, truth, reference):
    write_ensembles(truth, tmp_path / "made.jsonl")
    found = files(tmp_path / "made.jsonl", reference, thresholds=(0.25,))
    assert found["cov_r_0.25_mean"] == 1
    assert "cov_r_0.5_mean" not in found


def test_validity_of_a_sample(tmp_path, truth, reference):
    pytest.importorskip("posebusters")
    stretched = truth[2].coords.copy()
    stretched[:, 0] += [2.0, 0, 0]
    whole = [with_coords(one, one.coords[:1]) for one in truth]
    write_ensembles(whole, tmp_path / "made.jsonl")
    found = files(tmp_path / "made.jsonl", reference, validity_sample=2)
    assert found["posebusters_valid"] == 1
    assert found["posebusters_checked"] == 2
    whole[2] = with_coords(truth[2], stretched[:1])
    write_ensembles(whole, tmp_path / "made.jsonl")
    found = files(tmp_path / "made.jsonl", reference, validity_sample=100)
    assert found["posebusters_checked"] == 4
    assert found["posebusters_valid"] == 0.75
    assert "bond_lengths" in found["posebusters_failed"]


def test_unusable_files(tmp_path, truth, reference):
    with pytest.raises(BadInput, match="found none"):
        files(tmp_path / "missing.sdf", reference)
    write_ensembles([ensemble("CCCC", 1)], tmp_path / "strangers.jsonl")
    with pytest.raises(BadInput, match="no molecule of .*CCCC"):
        files(tmp_path / "strangers.jsonl", reference)
    (tmp_path / "broken.jsonl").write_text("{\n{\n")
    with pytest.raises(BadInput, match="2 x no row with smiles and coords"):
        files(tmp_path / "broken.jsonl", reference)
    with pytest.raises(BadInput, match="usable as a reference"):
        files(reference, tmp_path / "broken.jsonl")
