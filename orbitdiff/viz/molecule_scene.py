"""What a picture of conformers shows: a generated one superposed on its nearest reference."""

from dataclasses import dataclass

import numpy as np
import torch

from orbitdiff.data.conformer_rows import parsed_smiles
from orbitdiff.errors import BadInput
from orbitdiff.groups.kabsch import kabsch
from orbitdiff.metrics.rmsd import HeavyAtoms, best_rmsd, heavy_atoms
from orbitdiff.typing import Float

__all__ = ["Overlay", "colour", "overlay", "radius", "superpose", "symbol"]

COLOURS = {
    1: "#ededed", 5: "#ffb5b5", 6: "#4d4d4d", 7: "#3050f8", 8: "#ee2010", 9: "#6cc04a",
    14: "#d0b080", 15: "#ff8000", 16: "#e0c020", 17: "#1fd01f", 35: "#a62929", 53: "#940094",
}  # fmt: skip
"""Jmol's colours, carbon darker and a few others less pale, to be seen on white."""
GREY = "#9a9a9a"
AT_ONCE = 20_000
"""Symmetries that are superposed at once."""


@dataclass(frozen=True)
class Overlay:
    """A generated conformer on its nearest reference.

    Attributes
    ----------
    smiles : str
    numbers : (n,) int64
        Atomic numbers.
    bonds : (E, 2) int64
    generated, reference : (n, 3) float64
        Angstrom, in one frame: the reference's principal axes, the longest first.
    rmsd : float
        Of the heavy atoms, angstrom.
    note : str
        Where the molecule stands in its set.
    """

    smiles: str
    numbers: np.ndarray
    bonds: np.ndarray
    generated: np.ndarray
    reference: np.ndarray
    rmsd: float
    note: str = ""

    @property
    def verdict(self) -> str:
        """Distance in words."""
        return f"RMSD {self.rmsd:.3f} Å"


def overlay(
    smiles: str,
    generated: Float[np.ndarray, "K n 3"],
    reference: Float[np.ndarray, "L n 3"],
    *,
    note: str = "",
) -> Overlay:
    """Show the typical generated conformer of a molecule on its nearest reference.

    Typical is the one whose distance to its nearest reference is the (lower) median of all.

    Parameters
    ----------
    smiles : str
        Gives the atom order, `Chem.AddHs(Chem.MolFromSmiles(smiles))`.
    generated, reference : (K, n, 3), (L, n, 3)
        Angstrom.
    note : str

    Raises
    ------
    BadInput
        No conformer on one side.
    """
    if not len(generated) or not len(reference):
        raise BadInput(
            f"expected conformers of {smiles} on both sides, got {len(generated)} generated and "
            f"{len(reference)} reference ones"
        )
    molecule = parsed_smiles(smiles)
    atoms = heavy_atoms(molecule)
    distance = best_rmsd(
        generated[:, atoms.indices], reference[:, atoms.indices], atoms.permutations
    )
    nearest = distance.min(1)
    chosen = int(np.argsort(nearest, kind="stable")[(len(nearest) - 1) // 2])
    truth = reference[int(distance[chosen].argmin())]
    truth = (truth - truth[atoms.indices].mean(0)) @ principal_axes(truth).T
    made = superpose(generated[chosen], truth, atoms)
    pairs = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in molecule.GetBonds()]
    return Overlay(
        smiles=smiles,
        numbers=np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.int64),
        bonds=np.array(pairs, dtype=np.int64).reshape(-1, 2),
        generated=made,
        reference=truth,
        rmsd=float(nearest[chosen]),
        note=note,
    )


def superpose(
    probe: Float[np.ndarray, "n 3"], reference: Float[np.ndarray, "n 3"], atoms: HeavyAtoms
) -> Float[np.ndarray, "n 3"]:
    """Move a conformer onto another by the symmetry and proper rotation with the least RMSD.

    Parameters
    ----------
    probe, reference : (n, 3)
        All atoms, angstrom.
    atoms : HeavyAtoms
        The atoms that count and their symmetries.

    Returns
    -------
    (n, 3)
        The probe in the frame of the reference, its atoms in their own order.
    """
    goal = torch.as_tensor(reference[atoms.indices]).double()
    start = torch.as_tensor(probe[atoms.indices]).double()
    centre, origin = goal.mean(0), start.mean(0)
    best, turn = np.inf, torch.eye(3, dtype=torch.float64)
    for first in range(0, len(atoms.permutations), AT_ONCE):
        order = torch.as_tensor(atoms.permutations[first : first + AT_ONCE])
        images = goal[order] - centre
        turns = kabsch(start - origin, images)
        squares = ((start - origin) @ turns.mT - images).square().sum((-2, -1))
        place = int(squares.argmin())
        if float(squares[place]) < best:
            best, turn = float(squares[place]), turns[place]
    moved = (torch.as_tensor(probe).double() - origin) @ turn.mT + centre
    return moved.numpy()


def principal_axes(points: np.ndarray) -> np.ndarray:
    """Rows are the principal axes of points (n, 3), the longest first; a proper rotation."""
    axes = np.linalg.svd(points - points.mean(0), full_matrices=True)[2]
    axes[2] *= np.sign(np.linalg.det(axes))
    return np.asarray(axes, dtype=np.float64)


def symbol(number: int) -> str:
    """Chemical symbol of an atomic number."""
    from rdkit.Chem import GetPeriodicTable

    return str(GetPeriodicTable().GetElementSymbol(int(number)))


def colour(number: int) -> str:
    """Colour of an element, #rrggbb; grey where it has none."""
    return COLOURS.get(int(number), GREY)


def radius(number: int) -> float:
    """Drawing radius in angstrom: 0.32 times the covalent radius plus 0.07."""
    from rdkit.Chem import GetPeriodicTable

    return 0.07 + 0.32 * float(GetPeriodicTable().GetRcovalent(int(number)))
