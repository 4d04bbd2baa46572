"""Symmetric RMSD against RDKit's GetBestRMS and against enumeration."""

import gzip
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest

Chem = pytest.importorskip("rdkit.Chem")

from rdkit.Chem import rdMolAlign
from scipy.spatial.transform import Rotation

from orbitdiff.errors import BadInput
from orbitdiff.metrics import rmsd
from orbitdiff.metrics.rmsd import best_rmsd, heavy_atoms

SMILES = {
    "carboxylate": "CC(=O)[O-]",
    "carboxylic acid": "CC(=O)O",
    "nitro": "C[N+](=O)[O-]",
    "two nitro": "O=[N+]([O-])c1ccc(cc1)[N+](=O)[O-]",
    "amidinium": "NC(=[NH2+])C",
    "amidine": "NC(=N)C",
    "guanidinium": "NC(N)=[NH2+]",
    "sulfonate": "CS(=O)(=O)[O-]",
    "sulfonamide": "CS(=O)(=O)N",
    "phosphonate": "CP(=O)([O-])[O-]",
    "dicarboxylate": "[O-]C(=O)CC(=O)O",
    "amide": "CC(N)=O",
    "urea": "NC(=O)N",
    "azide": "[N-]=[N+]=NC",
    "imine with its hydrogen": "[H]/N=C(/C)N",
    "cubane": "C12C3C4C1C5C2C3C45",
    "neopentane": "CC(C)(C)C",
    "trifluoromethyls": "FC(F)(F)c1ccc(cc1)C(F)(F)F",
    "meso": "C[C@H](O)[C@@H](O)C",
    "chiral": "C[C@H](N)C(=O)O",
    "no symmetry": "CC(F)CO",
    "one atom": "C",
    "two atoms": "CO",
}


def with_conformers(molecule, coords):
    molecule = Chem.Mol(molecule)
    for points in coords:
        conformer = Chem.Conformer(molecule.GetNumAtoms())
        conformer.SetPositions(np.ascontiguousarray(points))
        molecule.AddConformer(conformer, assignId=True)
    return molecule


def plain_loop(molecule, probe, reference, **more):
    """GetBestRMS of every pair, molecules without hydrogens."""
    one, other = (Chem.RemoveHs(with_conformers(molecule, x)) for x in (probe, reference))
    rows = range(len(probe)), range(len(reference))
    values = [[rdMolAlign.GetBestRMS(one, other, g, k, **more) for k in rows[1]] for g in rows[0]]
    return np.array(values)


def ours(molecule, probe, reference, **more):
    atoms = heavy_atoms(molecule, **more)
    return best_rmsd(probe[:, atoms.indices], reference[:, atoms.indices], atoms.permutations)


@pytest.mark.parametrize("name", SMILES)
def test_equals_get_best_rms(name):
    """Random clouds: a missing or a surplus symmetry changes most of the values."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(SMILES[name]))
    rng = np.random.default_rng(1)
    probe = rng.normal(size=(5, molecule.GetNumAtoms(), 3))
    reference = rng.normal(size=(4, molecule.GetNumAtoms(), 3))
    expected = plain_loop(molecule, probe, reference)
    np.testing.assert_allclose(ours(molecule, probe, reference), expected, atol=1e-6)


def test_equals_enumeration():
    """All permutations of like atoms that keep bonds, scipy's superposition."""
    molecule = Chem.AddHs(Chem.MolFromSmiles("CC(F)(F)C"))
    rng = np.random.default_rng(2)
    probe, reference = rng.normal(size=(2, 3, molecule.GetNumAtoms(), 3))
    heavy = [atom.GetIdx() for atom in molecule.GetAtoms() if atom.GetAtomicNum() > 1]
    swaps = [(0, 4), (2, 3)]
    images = []
    for choice in itertools.product([False, True], repeat=2):
        order = list(heavy)
        for swap, (a, b) in zip(choice, swaps, strict=True):
            if swap:
                order[a], order[b] = order[b], order[a]
        images.append(order)
    expected = np.zeros((3, 3))
    for g, k in itertools.product(range(3), repeat=2):
        x = probe[g, heavy] - probe[g, heavy].mean(0)
        y = reference[k] - reference[k, heavy].mean(0)
        found = [Rotation.align_vectors(y[order], x)[1] for order in images]
        expected[g, k] = min(found) / np.sqrt(len(heavy))
    np.testing.assert_allclose(ours(molecule, probe, reference), expected, atol=1e-8)


def test_a_moved_and_relabelled_conformer_is_the_same_and_its_mirror_image_is_not():
    molecule = Chem.AddHs(Chem.MolFromSmiles("C[C@H](O)C(C)(C)C"))
    atoms = heavy_atoms(molecule)
    rng = np.random.default_rng(3)
    points = rng.normal(size=(1, len(atoms.indices), 3))
    for order in atoms.permutations:
        moved = points[:, order] @ Rotation.random(rng=5).as_matrix() + 10
        assert best_rmsd(moved, points, atoms.permutations).item() < 1e-6
    assert best_rmsd(-points, points, atoms.permutations).item() > 0.1


@pytest.mark.parametrize("flat", [(1, 1, 0), (1, 0, 0), (1, 1, 1e-9), (1, 1e-7, 0)])
def test_flat_and_straight_clouds(flat):
    """Double roots: the closed forms lose half the digits here."""
    molecule = Chem.AddHs(Chem.MolFromSmiles("NC(=O)N"))
    rng = np.random.default_rng(4)
    probe = rng.normal(size=(4, molecule.GetNumAtoms(), 3)) * flat
    reference = probe[:2] + 0.003 * rng.normal(size=(2, molecule.GetNumAtoms(), 3)) * flat
    expected = plain_loop(molecule, probe, reference)
    np.testing.assert_allclose(ours(molecule, probe, reference), expected, atol=2e-6)


def test_the_cap_on_symmetries_is_that_of_rdkit():
    molecule = Chem.AddHs(Chem.MolFromSmiles(SMILES["trifluoromethyls"]))
    rng = np.random.default_rng(5)
    probe, reference = rng.normal(size=(2, 3, molecule.GetNumAtoms(), 3))
    cut = ours(molecule, probe, reference, max_matches=10)
    np.testing.assert_allclose(
        cut, plain_loop(molecule, probe, reference, maxMatches=10), atol=1e-6
    )
    assert len(heavy_atoms(molecule, max_matches=10).permutations) == 10
    assert (cut > ours(molecule, probe, reference) + 0.01).any()


def test_chunks_do_not_matter(monkeypatch):
    molecule = Chem.AddHs(Chem.MolFromSmiles(SMILES["trifluoromethyls"]))
    rng = np.random.default_rng(6)
    probe, reference = rng.normal(size=(2, 3, molecule.GetNumAtoms(), 3))
    whole = ours(molecule, probe, reference)
    monkeypatch.setattr(rmsd, "CHUNK", 100)
    np.testing.assert_array_equal(ours(molecule, probe, reference), whole)


@pytest.mark.parametrize("smiles", ["CCO", "CC(C)(C)C"])
def test_no_probe_gives_no_row(smiles):
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    reference = np.random.default_rng(7).normal(size=(2, molecule.GetNumAtoms(), 3))
    assert ours(molecule, reference[:0], reference).shape == (0, 2)


def test_no_permutation_is_refused():
    with pytest.raises(BadInput, match="identity"):
        best_rmsd(np.zeros((1, 2, 3)), np.zeros((1, 2, 3)), np.zeros((0, 2), dtype=np.int64))


def test_real_ensembles():
    path = Path(os.environ.get("ORBITDIFF_DATA", "../shared/data")) / "geom_qm9/xtb_test.jsonl.gz"
    if not path.is_file():
        pytest.skip("needs ORBITDIFF_DATA")
    worst = 0.0
    with gzip.open(path, "rt") as lines:
        for line in itertools.islice(lines, 0, 500, 8):
            row = json.loads(line)
            molecule = Chem.AddHs(Chem.MolFromSmiles(row["smiles"]))
            coords = np.array(row["coords"])[:12]
            difference = ours(molecule, coords, coords) - plain_loop(molecule, coords, coords)
            worst = max(worst, float(np.abs(difference).max()))
    assert worst < 1e-4
