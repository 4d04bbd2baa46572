"""COV and AMR against hand-made matrices and against a plain loop over GetBestRMS."""

import gzip
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest

Chem = pytest.importorskip("rdkit.Chem")

from rdkit.Chem import rdMolAlign

from orbitdiff.data.conformer_rows import parsed_smiles
from orbitdiff.metrics.conformers import (
    MoleculePair,
    aggregate,
    compare_conformers,
    coverage,
    score_molecule,
    score_row,
)

THRESHOLDS = (0.05, 0.1, 0.5, 0.75)


def in_turn(function, items, *, description):
    return [function(item) for item in items]


def embedded(smiles, num, seed=7):
    from rdkit.Chem import rdDistGeom

    molecule = Chem.Mol(parsed_smiles(smiles))
    rdDistGeom.EmbedMultipleConfs(molecule, num, randomSeed=seed)
    return np.array([conformer.GetPositions() for conformer in molecule.GetConformers()])


def plain_figures(pairs, threshold):
    """The same figures by a loop over pairs of conformers, written apart from the library."""
    recalls, precisions, amr_r, amr_p = [], [], [], []
    for pair in pairs:
        if not len(pair.generated):
            recalls.append(0.0)
            precisions.append(0.0)
            continue
        kinds = []
        for coords in (pair.generated, pair.reference):
            molecule = Chem.AddHs(Chem.MolFromSmiles(pair.smiles))
            for points in coords:
                conformer = Chem.Conformer(molecule.GetNumAtoms())
                for atom, point in enumerate(points):
                    conformer.SetAtomPosition(atom, [float(x) for x in point])
                molecule.AddConformer(conformer, assignId=True)
            kinds.append(Chem.RemoveHs(molecule))
        nearest_r = [float("inf")] * len(pair.reference)
        nearest_p = [float("inf")] * len(pair.generated)
        for g in range(len(pair.generated)):
            for k in range(len(pair.reference)):
                value = rdMolAlign.GetBestRMS(kinds[0], kinds[1], g, k)
                nearest_r[k] = min(nearest_r[k], value)
                nearest_p[g] = min(nearest_p[g], value)
        recalls.append(sum(value < threshold for value in nearest_r) / len(nearest_r))
        precisions.append(sum(value < threshold for value in nearest_p) / len(nearest_p))
        amr_r.append(sum(nearest_r) / len(nearest_r))
        amr_p.append(sum(nearest_p) / len(nearest_p))
    return {
        f"cov_r_{threshold:g}": recalls,
        f"cov_p_{threshold:g}": precisions,
        "amr_r": amr_r,
        "amr_p": amr_p,
    }


def test_by_hand():
    rmsd = np.array([[0.1, 0.9], [0.5, 0.4], [2.0, 0.5]])
    found = coverage(rmsd, (0.1, 0.4, 0.45, 0.5))
    assert found.cov_r == (0.0, 0.5, 1.0, 1.0)  # nearest 0.1 and 0.4, strictly below
    assert found.amr_r == pytest.approx(0.25)
    assert found.cov_p == pytest.approx((0.0, 1 / 3, 2 / 3, 2 / 3))  # 0.1, 0.4, 0.5
    assert found.amr_p == pytest.approx(1 / 3)


def test_unreadable_conformers_are_not_precise():
    found = coverage(np.array([[0.1], [0.2]]), (0.5,), missing=2)
    assert found.cov_p == (0.5,)
    assert found.cov_r == (1.0,)
    assert found.amr_p == pytest.approx(0.15)


def test_nothing_generated():
    found = coverage(np.zeros((0, 4)), (0.5, 0.75))
    assert found == ((0.0, 0.0), None, (0.0, 0.0), None)


def test_set_figures():
    """Two molecules that embed and one that does not."""
    first = MoleculePair("CCO", embedded("CCO", 2), embedded("CCO", 2))
    second = MoleculePair("CCCO", embedded("CCCO", 3, seed=1), embedded("CCCO", 2, seed=2))
    third = MoleculePair("CCCC", np.zeros((0, 14, 3)), embedded("CCCC", 1))
    result = compare_conformers([first, second, third], thresholds=(0.01,), parallel=in_turn)
    figures, rows = result.summary, result.per_sample
    assert [row.smiles for row in rows] == ["CCO", "CCCO", "CCCC"]
    assert figures["molecules_without_conformer"] == 1
    assert (figures["num_references"], figures["num_generated"]) == (5, 5)
    recall = [row.coverage.cov_r[0] for row in rows]
    assert recall[0] == 1
    assert recall[2] == 0
    assert figures["cov_r_0.01_mean"] == pytest.approx(sum(recall) / 3)
    assert figures["cov_r_0.01_mean_generated"] == pytest.approx(sum(recall) / 2)
    assert figures["cov_r_0.01_median"] == pytest.approx(np.median(recall))
    assert figures["amr_r_mean"] == pytest.approx(rows[1].coverage.amr_r / 2, abs=1e-6)
    assert figures["amr_p_median"] == pytest.approx(rows[1].coverage.amr_p / 2, abs=1e-6)
    json.dumps(figures, allow_nan=False)


def test_a_set_of_which_nothing_embeds_has_no_amr():
    nothing = score_molecule(MoleculePair("CCO", np.zeros((0, 9, 3)), embedded("CCO", 1)))
    figures = aggregate([nothing])
    assert figures["amr_r_mean"] is None
    assert figures["cov_p_0.5_mean"] == 0
    json.dumps(figures, allow_nan=False)


def test_a_failing_comparison_is_recorded():
    short = embedded("CCO", 1)[:, :2]
    found = score_molecule(MoleculePair("CCO", short, embedded("CCO", 2)))
    assert "Error" in found.failure
    assert found.coverage.cov_r == (0.0,) * 4
    figures = aggregate([found])
    assert figures["failures"] == 1
    assert figures["molecules_without_conformer"] == 1


def test_the_comparison_is_not_endless():
    wide = np.repeat(embedded("CC(C)(C)C(C(F)(F)F)(C(F)(F)F)C(C)(C)C", 3), 20, 0)  # seconds of work
    found = score_molecule(
        MoleculePair("CC(C)(C)C(C(F)(F)F)(C(F)(F)F)C(C)(C)C", wide, wide, seconds=1e-3)
    )
    assert found.failure.startswith("TimeLimit")


def test_stereo_is_reported():
    right, mirrored = embedded("C[C@H](N)C(=O)O", 3), -embedded("C[C@H](N)C(=O)O", 1)
    pair = MoleculePair("C[C@H](N)C(=O)O", np.concatenate([right, mirrored]), right)
    found = score_molecule(pair)
    assert found.stereo_elements == 1
    assert found.stereo_conformers_right == 0.75
    flat = score_molecule(MoleculePair("CCO", embedded("CCO", 1), embedded("CCO", 1)))
    assert flat.stereo_conformers_right is None
    figures = aggregate([found, flat])
    assert figures["molecules_with_stereo"] == 1
    assert figures["stereo_conformers_right"] == 0.75


def test_rows_are_flat():
    row = score_row(score_molecule(MoleculePair("CCO", embedded("CCO", 1), embedded("CCO", 1))))
    assert not any(isinstance(value, tuple | list | dict) for value in row.values())
    assert {"smiles", "cov_r_0.05", "cov_p_0.75", "amr_r", "failure"} <= set(row)


def test_same_numbers_as_a_plain_loop():
    """The bar: 1e-3 on real ensembles, molecules without a conformer among them."""
    path = Path(os.environ.get("ORBITDIFF_DATA", "../shared/data")) / "geom_qm9/xtb_test.jsonl.gz"
    if not path.is_file():
        pytest.skip("needs ORBITDIFF_DATA")
    rng = np.random.default_rng(0)
    pairs = []
    with gzip.open(path, "rt") as lines:
        for number, line in enumerate(itertools.islice(lines, 0, 500, 12)):
            row = json.loads(line)
            truth = np.array(row["coords"])[:10]
            noisy = np.repeat(truth, 2, 0) + 0.15 * rng.normal(
                size=(2 * len(truth), *truth.shape[1:])
            )
            generated = noisy[: max(1, len(truth))] if number % 10 else noisy[:0]
            pairs.append(MoleculePair(row["smiles"], generated, truth))
    result = compare_conformers(pairs, thresholds=THRESHOLDS, parallel=in_turn)
    assert result.summary["molecules_without_conformer"] == sum(not len(p.generated) for p in pairs)
    for threshold in THRESHOLDS:
        for name, values in plain_figures(pairs, threshold).items():
            assert result.summary[f"{name}_mean"] == pytest.approx(np.mean(values), abs=1e-3), name
            assert result.summary[f"{name}_median"] == pytest.approx(np.median(values), abs=1e-3)
