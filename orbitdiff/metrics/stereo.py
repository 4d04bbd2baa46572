"""Are the stereo labels of a SMILES those of the coordinates? Per stereocentre and double bond.

A centre with neighbours (a, b, c, d) in the order that its label makes clockwise is right where
det(b - a, c - a, d - a) > 0; of three neighbours, the centre itself is the fourth. A double bond is
right where its marked substituents lie on the side that the label says. Labels are compared up to
the symmetries of the graph: both centres of a meso compound inverted give the same molecule.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from orbitdiff.metrics.rmsd import HeavyAtoms, heavy_atoms
from orbitdiff.typing import Bool, Float

if TYPE_CHECKING:
    from rdkit.Chem import Mol

__all__ = ["StereoElements", "stereo_elements", "stereo_right"]


class StereoElements(NamedTuple):
    """What a molecule's SMILES marks.

    Attributes
    ----------
    centres : (S, 4) int64
        Neighbours a, b, c, d (or the centre) of positive volume.
    bonds : (D, 4) int64
        Substituent, the two atoms of the double bond, substituent.
    same_side : (D,) bool
    """

    centres: np.ndarray
    bonds: np.ndarray
    same_side: np.ndarray


def stereo_elements(molecule: "Mol") -> StereoElements:
    """Return the labelled tetrahedral centres and double bonds of a molecule.

    Parameters
    ----------
    molecule : rdkit Mol
        With explicit hydrogens.
    """
    from rdkit.Chem import BondStereo, ChiralType

    centres, bonds, same_side = [], [], []
    for number in range(molecule.GetNumAtoms()):
        atom = molecule.GetAtomWithIdx(number)
        tag = atom.GetChiralTag()
        if tag in (ChiralType.CHI_TETRAHEDRAL_CW, ChiralType.CHI_TETRAHEDRAL_CCW):
            around = [bond.GetOtherAtomIdx(number) for bond in atom.GetBonds()]
            a, b, c, d = (*around, number)[:4]
            clockwise = tag == ChiralType.CHI_TETRAHEDRAL_CW
            centres.append((a, b, c, d) if clockwise else (b, a, c, d))
    together = (BondStereo.STEREOZ, BondStereo.STEREOCIS)
    apart = (BondStereo.STEREOE, BondStereo.STEREOTRANS)
    for number in range(molecule.GetNumBonds()):
        bond = molecule.GetBondWithIdx(number)
        side = bond.GetStereo()
        if side in together + apart:
            first, last = bond.GetStereoAtoms()
            bonds.append((first, bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), last))
            same_side.append(side in together)
    return StereoElements(
        np.array(centres, dtype=np.int64).reshape(-1, 4),
        np.array(bonds, dtype=np.int64).reshape(-1, 4),
        np.array(same_side, dtype=bool),
    )


def stereo_right(
    molecule: "Mol",
    coords: Float[np.ndarray, "K n 3"],
    *,
    symmetries: HeavyAtoms | None = None,
) -> Bool[np.ndarray, "K E"]:
    """Which stereo elements of each conformer are as the molecule says.

    Parameters
    ----------
    molecule : rdkit Mol
        With explicit hydrogens.
    coords : (K, n, 3)
        Angstrom, in its atom order.
    symmetries : HeavyAtoms, optional
        From `heavy_atoms(molecule)`, where already known.

    Returns
    -------
    (K, E) bool
        Centres, then double bonds, under the symmetry of the graph that makes most of them right.
        A conformer is the right stereoisomer where its row is all true.
    """
    centres, bonds, same_side = stereo_elements(molecule)
    best = np.zeros((len(coords), len(centres) + len(bonds)), dtype=bool)
    if not best.size:
        return best
    involved = np.unique(np.concatenate([centres.ravel(), bonds.ravel()]))
    images = _images(molecule, involved, symmetries or heavy_atoms(molecule))
    for image in images:
        place = np.zeros(molecule.GetNumAtoms(), dtype=np.int64)
        place[involved] = image
        right = np.concatenate(
            [
                _volume(coords[:, place[centres]]) > 0,
                (_side(coords[:, place[bonds]]) > 0) == same_side,
            ],
            axis=1,
        )
        better = right.sum(1) > best.sum(1)
        best[better] = right[better]
    return best


def _images(molecule: "Mol", atoms: np.ndarray, symmetries: HeavyAtoms) -> np.ndarray:
    """Where the symmetries take some atoms, each combination once; hydrogens follow their atom."""
    size = molecule.GetNumAtoms()
    heavy, permutations = symmetries
    hydrogen = np.arange(size)
    bearer = np.arange(size)
    for atom in set(range(size)) - set(heavy.tolist()):
        bearer[atom] = molecule.GetAtomWithIdx(atom).GetNeighbors()[0].GetIdx()
        hydrogen[bearer[atom]] = atom
    row = np.zeros(size, dtype=np.int64)
    row[heavy] = np.arange(len(heavy))
    moved = heavy[permutations[:, row[bearer[atoms]]]]
    follows = bearer[atoms] != atoms
    moved[:, follows] = hydrogen[moved[:, follows]]
    return moved if len(moved) == 1 else np.unique(moved, axis=0)


def _volume(points: np.ndarray) -> np.ndarray:
    """det(b - a, c - a, d - a) of (..., 4, 3)."""
    volume: np.ndarray = np.linalg.det(points[..., 1:, :] - points[..., :1, :])
    return volume


def _side(points: np.ndarray) -> np.ndarray:
    """Positive where the outer two of four points lie on one side of the axis of the inner two."""
    u, v = points[..., 0, :] - points[..., 1, :], points[..., 3, :] - points[..., 2, :]
    axis = points[..., 2, :] - points[..., 1, :]
    along = (u * axis).sum(-1) * (v * axis).sum(-1)
    side: np.ndarray = (u * v).sum(-1) * np.square(axis).sum(-1) - along
    return side
