"""Is a conformer still the molecule of its SMILES, and is it another one than those before."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rdkit.Chem import Mol

__all__ = [
    "bonded",
    "covalent_radii",
    "distinct",
    "same_connectivity",
    "same_stereo",
    "with_conformers",
]

FORMED = 1.15
"""Atoms nearer than this, in sums of covalent radii, are bonded: over 10,000 GFN2 ensembles of QM9
molecules bonds end at 1.12 and other pairs, across strained cages, begin at 1.17."""

BROKEN = 1.25
"""A bond longer than this is gone."""


def covalent_radii(atomic_numbers: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Covalent radii (Cordero et al. 2008), (n,) angstrom."""
    from rdkit.Chem import GetPeriodicTable

    table = GetPeriodicTable()
    return np.array([table.GetRcovalent(int(number)) for number in atomic_numbers])


def bonded(
    atomic_numbers: Sequence[int] | NDArray[np.int64], coords: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which pairs of atoms are within bonding distance, (L, n, n).

    Parameters
    ----------
    atomic_numbers : (n,)
    coords : (L, n, 3)
        Angstrom.
    """
    near: NDArray[np.bool_] = reduced_distances(atomic_numbers, coords) < FORMED
    return near & ~np.eye(coords.shape[1], dtype=bool)


def reduced_distances(
    atomic_numbers: Sequence[int] | NDArray[np.int64], coords: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distances in sums of covalent radii, (L, n, n)."""
    radii = covalent_radii(atomic_numbers)
    distance = np.linalg.norm(coords[:, :, None] - coords[:, None], axis=-1)
    found: NDArray[np.float64] = distance / (radii[:, None] + radii)
    return found


def same_connectivity(molecule: "Mol", coords: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which conformers have every bond of the molecule and no other, (L,).

    Parameters
    ----------
    molecule : rdkit Mol
        With explicit hydrogens.
    coords : (L, n, 3)
        Angstrom, in its order of atoms.
    """
    from rdkit.Chem import GetAdjacencyMatrix

    bonds = GetAdjacencyMatrix(molecule).astype(bool)
    others = ~bonds & ~np.eye(len(bonds), dtype=bool)
    reduced = reduced_distances([atom.GetAtomicNum() for atom in molecule.GetAtoms()], coords)
    broken = (reduced > BROKEN) & bonds
    formed = (reduced < FORMED) & others
    whole: NDArray[np.bool_] = ~(broken | formed).any((1, 2)) & np.isfinite(coords).all((1, 2))
    return whole


def same_stereo(molecule: "Mol", coords: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which conformers have the configuration that the molecule states, (L,).

    Every stereocentre counts by itself: the sign of det(b - a, c - a, d - a) of its neighbours in
    RDKit's order (a lone pair, opposite of the other three, is the last). Double bonds count by
    the side of their substituents. What the molecule leaves open is not looked at.

    Parameters
    ----------
    molecule : rdkit Mol
        With explicit hydrogens.
    coords : (L, n, 3)
        Angstrom.
    """
    from rdkit.Chem import BondStereo, ChiralType

    right = np.ones(len(coords), dtype=bool)
    turns = {ChiralType.CHI_TETRAHEDRAL_CW: 1, ChiralType.CHI_TETRAHEDRAL_CCW: -1}
    for atom in molecule.GetAtoms():
        around = [bond.GetOtherAtomIdx(atom.GetIdx()) for bond in atom.GetBonds()]
        turn = turns.get(atom.GetChiralTag())
        if turn is None or len(around) not in (3, 4):
            continue
        corners = coords[:, around]
        if len(around) == 3:
            pair = 2 * coords[:, atom.GetIdx()] - corners.mean(1)
            corners = np.concatenate([corners, pair[:, None]], axis=1)
        right &= turn * np.linalg.det(corners[:, 1:] - corners[:, :1]) > 0
    sides = {
        **dict.fromkeys((BondStereo.STEREOZ, BondStereo.STEREOCIS), 1),
        **dict.fromkeys((BondStereo.STEREOE, BondStereo.STEREOTRANS), -1),
    }
    for bond in molecule.GetBonds():
        side = sides.get(bond.GetStereo())
        if side is None:
            continue
        begin, end = coords[:, bond.GetBeginAtomIdx()], coords[:, bond.GetEndAtomIdx()]
        one, other = (coords[:, index] for index in bond.GetStereoAtoms())
        axis = end - begin
        axis = axis / np.linalg.norm(axis, axis=-1, keepdims=True)
        one, other = one - begin, other - end
        along = (one * axis).sum(-1) * (other * axis).sum(-1)
        right &= side * ((one * other).sum(-1) - along) > 0
    return right


def with_conformers(molecule: "Mol", coords: NDArray[np.float64]) -> "Mol":
    """Copy a molecule with these conformers, (L, n, 3) angstrom, and no other."""
    from rdkit.Chem import Conformer, Mol

    copied = Mol(molecule)
    copied.RemoveAllConformers()
    for points in coords:
        conformer = Conformer(len(points))
        conformer.SetPositions(np.ascontiguousarray(points, dtype=np.float64))
        copied.AddConformer(conformer, assignId=True)
    return copied


def distinct(
    molecule: "Mol",
    coords: NDArray[np.float64],
    energies: NDArray[np.float64],
    *,
    energy: float,
    rmsd: float,
    most: int,
) -> list[int]:
    """Keep of each group of alike conformers the first.

    Two are alike if their energies differ by less than `energy` and their heavy atoms by less
    than `rmsd`, after the best superposition over the symmetries of the graph. Mirror images are
    not superposed.

    Parameters
    ----------
    molecule : rdkit Mol
    coords : (L, n, 3)
        Angstrom.
    energies : (L,)
        Ascending.
    energy, rmsd : float
        In the unit of `energies`; angstrom.
    most : int
        Stop when that many are kept.

    Returns
    -------
    list of int
        Rows, ascending.
    """
    from rdkit.Chem import Mol, RemoveAllHs
    from rdkit.Chem.rdMolAlign import GetBestRMS

    reference = with_conformers(molecule, coords)
    if any(atom.GetAtomicNum() > 1 for atom in molecule.GetAtoms()):
        reference = RemoveAllHs(reference, sanitize=False)
    probe = Mol(reference)  # GetBestRMS moves it
    kept: list[int] = []
    for row in range(len(coords)):
        if len(kept) == most:
            break
        near = [other for other in kept if abs(energies[row] - energies[other]) < energy]
        if not any(GetBestRMS(probe, reference, row, other) < rmsd for other in near):
            kept.append(row)
    return kept
