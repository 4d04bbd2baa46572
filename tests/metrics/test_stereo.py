"""Stereo labels against RDKit's own perception from coordinates, over all stereoisomers."""

import numpy as np
import pytest

Chem = pytest.importorskip("rdkit.Chem")

from rdkit.Chem import rdDistGeom
from rdkit.Chem.EnumerateStereoisomers import EnumerateStereoisomers

from orbitdiff.metrics.stereo import stereo_elements, stereo_right

FLAT = {
    "one centre": "CC(N)C(=O)O",
    "two different centres": "CC(F)C(O)CC",
    "two like centres, one isomer is meso": "CC(O)C(O)C",
    "tartaric acid": "OC(=O)C(O)C(O)C(=O)O",
    "three centres, the middle one between like ones": "CC(O)C(F)C(O)C",
    "ring, neither centre is chiral alone": "CC1CCC(C)CC1",
    "ring": "CC1CC1C",
    "double bond": "CC=CC",
    "two like double bonds": "FC=CCC=CF",
    "double bond and centre": "CC=CC(C)O",
    "centre without hydrogen": "CC(F)(O)CC",
    "sulfoxide, three neighbours": "CCS(C)=O",
    "imine, a hydrogen decides": "CC(F)=N",
    "bridged ring": "CC1CC2CCC1C2",
}


def isomers(smiles):
    """Labelled isomers of one graph, in one atom order, each with its conformers."""
    found = []
    flat = Chem.AddHs(Chem.MolFromSmiles(smiles))
    for labelled in EnumerateStereoisomers(flat):
        rdDistGeom.EmbedMultipleConfs(labelled, 3, maxAttempts=20, randomSeed=11)
        if labelled.GetNumConformers():
            found.append(labelled)
    return found


def positions(molecule):
    return np.array([conformer.GetPositions() for conformer in molecule.GetConformers()])


def perceived(molecule, coords):
    """Isomeric SMILES that RDKit reads from coordinates alone."""
    bare = Chem.Mol(molecule)
    bare.RemoveAllConformers()
    Chem.RemoveStereochemistry(bare)
    conformer = Chem.Conformer(bare.GetNumAtoms())
    conformer.SetPositions(np.ascontiguousarray(coords))
    bare.AddConformer(conformer)
    Chem.AssignStereochemistryFrom3D(bare)
    return Chem.MolToSmiles(Chem.RemoveHs(bare))


@pytest.mark.parametrize("name", FLAT)
def test_right_means_the_isomer_that_rdkit_perceives(name):
    made = isomers(FLAT[name])
    assert len(made) > 1
    decisions = set()
    for labelled in made:
        for other in made:
            for coords in positions(other):
                right = stereo_right(labelled, coords[None])
                same = perceived(labelled, coords) == perceived(labelled, positions(labelled)[0])
                assert right.all() == same
                decisions.add(bool(same))
    assert decisions == {True, False}


def test_one_inverted_centre_of_two():
    made = isomers(FLAT["two different centres"])
    assert len(made) == 4
    wrong = sorted(
        int((~stereo_right(one, positions(other)[:1])).sum()) for one in made for other in made
    )
    assert wrong == [0] * 4 + [1] * 8 + [2] * 4


def test_a_meso_compound_and_its_mirror_image():
    meso = Chem.AddHs(Chem.MolFromSmiles("C[C@H](O)[C@@H](O)C"))
    chiral = Chem.AddHs(Chem.MolFromSmiles("C[C@H](O)[C@H](O)C"))
    for molecule in (meso, chiral):
        rdDistGeom.EmbedMultipleConfs(molecule, 3, randomSeed=1)
    kinds = {perceived(molecule, positions(molecule)[0]) for molecule in (meso, chiral)}
    assert len(kinds) == 2
    is_meso = perceived(meso, positions(meso)[0]) == perceived(meso, -positions(meso)[0])
    first, second = (meso, chiral) if is_meso else (chiral, meso)
    assert stereo_right(first, -positions(first)).all()
    assert not stereo_right(second, -positions(second)).any()
    assert (stereo_right(first, positions(second)).sum(1) == 1).all()


def test_nothing_labelled():
    molecule = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    rdDistGeom.EmbedMultipleConfs(molecule, 2, randomSeed=1)
    assert stereo_right(molecule, positions(molecule)).shape == (2, 0)
    assert len(stereo_elements(molecule).centres) == 0


def test_a_flat_centre_is_not_right():
    molecule = Chem.AddHs(Chem.MolFromSmiles("C[C@H](N)C(=O)O"))
    rdDistGeom.EmbedMultipleConfs(molecule, 1, randomSeed=1)
    assert not stereo_right(molecule, positions(molecule) * [1, 1, 0]).any()
