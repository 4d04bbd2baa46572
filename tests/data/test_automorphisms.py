import csv
import gzip
import itertools
import os
from pathlib import Path

import pytest

Chem = pytest.importorskip("rdkit.Chem")

from orbitdiff.data.automorphisms import molecular_automorphisms

NAMED = {
    "methane": ("C", 24),
    "ethane": ("CC", 72),
    "neopentane": ("CC(C)(C)C", 31104),
    "benzene": ("c1ccccc1", 12),
    "tert-butanol": ("CC(C)(C)O", 1296),
    "cubane": ("C12C3C4C1C5C2C3C45", 48),
    "carbon dioxide": ("O=C=O", 2),
    "heavy water of one deuterium": ("[2H]O", 1),
    "nitrate": ("[N+](=O)([O-])[O-]", 2),
    "L-alanine": ("C[C@H](N)C(=O)O", 12),
    "tartaric acid, chiral": ("OC(=O)[C@@H](O)[C@H](O)C(O)=O", 2),
    "tartaric acid, meso": ("OC(=O)[C@H](O)[C@H](O)C(O)=O", 1),
    "cis-1,2-dimethylcyclopropane": ("C[C@@H]1C[C@@H]1C", 72),
    "trans-1,2-dimethylcyclopropane": ("C[C@@H]1C[C@H]1C", 144),
    "two equal double bonds": ("F/C=C/C/C=C/F", 4),
    "one cis, one trans": ("F/C=C/C/C=C\\F", 2),
}


def matches(molecule, most=40_000):
    """The kept library's own answer: matches of the molecule with itself."""
    return molecule.GetSubstructMatches(
        molecule, uniquify=False, useChirality=True, maxMatches=most
    )


@pytest.mark.parametrize("name", NAMED)
def test_orders_of_named_molecules(name):
    smiles, order = NAMED[name]
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert molecular_automorphisms(molecule).order == order


@pytest.mark.parametrize("name", [name for name, (_, order) in NAMED.items() if order <= 1296])
def test_elements_are_the_matches_of_rdkit(name):
    molecule = Chem.AddHs(Chem.MolFromSmiles(NAMED[name][0]))
    found = molecular_automorphisms(molecule).elements().tolist()
    expected = set(matches(molecule))
    assert {tuple(g) for g in found} == expected


def test_hundreds_of_small_molecules():
    """Orders on QM9 against rdkit, where the match is small enough to list."""
    data = Path(os.environ.get("ORBITDIFF_DATA", "../shared/data")) / "geom_qm9"
    if not data.is_dir():
        pytest.skip("needs ORBITDIFF_DATA")
    with gzip.open(data / "qm9_smiles.csv.gz", "rt") as lines:
        rows = itertools.islice(csv.DictReader(lines), 0, 20_000, 80)
        smiles = [row["smiles"] for row in rows]
    compared = 0
    for one in smiles:
        molecule = Chem.AddHs(Chem.MolFromSmiles(one))
        expected = matches(molecule, 3000)
        if len(expected) < 3000:
            assert molecular_automorphisms(molecule).order == len(expected), one
            compared += 1
    assert compared > 200


def test_found_once():
    first = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    second = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    assert molecular_automorphisms(first) is molecular_automorphisms(second)
