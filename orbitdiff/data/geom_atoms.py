"""A molecule of GEOM, its conformers brought into the atom order of its SMILES.

GEOM keeps the order of CREST's input, which need not be that of the SMILES, and some conformers
have reacted. Bonds are taken as the coordinates show them: whatever bond orders were perceived, a
conformer has the elements, bonds and configuration of its SMILES, or it is left out.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orbitdiff.data.conformer_checks import bonded, same_connectivity, same_stereo
from orbitdiff.data.molecule_graph import molecule_of_smiles
from orbitdiff.data.molecules import Ensemble
from orbitdiff.data.rejected import Rejected
from orbitdiff.errors import BadInput

if TYPE_CHECKING:
    from rdkit.Chem import Mol

__all__ = ["Quarantine", "to_ensemble"]

MATCHES = 4096
"""Orders of the heavy atoms that are tried for one with the right configuration."""

Quarantine = Callable[[Rejected], None]
"""Is told of each molecule and conformer that is left out, such as `list.append`."""


class Fault(Exception):
    """A conformer cannot be used; carries reason and detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class GeomConformer(NamedTuple):
    """One conformer as GEOM has it: atoms in its own order."""

    numbers: NDArray[np.int64]
    coords: NDArray[np.float64]
    energy: float
    weight: float


def to_ensemble(smiles: str, entries: Sequence[Any], quarantine: Quarantine) -> Ensemble | None:
    """Bring the conformers of one molecule into the order of its SMILES.

    Parameters
    ----------
    smiles : str
    entries : sequence of dict
        With `relativeenergy` (kcal/mol), `boltzmannweight`, and `rd_mol` or `xyz`.
    quarantine : callable
        Is told what is left out.

    Returns
    -------
    Ensemble or None
        Energies ascending from 0; None where no conformer is left.
    """
    try:
        molecule = molecule_of_smiles(smiles)
    except BadInput as error:
        quarantine(Rejected(str(smiles), "unusable SMILES", str(error)))
        return None
    kept: list[GeomConformer] = []
    order: NDArray[np.int64] | None = None
    for place, entry in enumerate(entries):
        try:
            conformer = read_conformer(entry)
            order = atom_order(molecule, conformer, guess=order)
        except Fault as fault:
            quarantine(Rejected(smiles, fault.reason, f"conformer {place}: {fault.detail}"))
            continue
        kept.append(conformer._replace(coords=conformer.coords[order]))
    if not kept:
        quarantine(Rejected(smiles, "no conformer left", f"of {len(entries)}"))
        return None
    kept.sort(key=lambda conformer: conformer.energy)
    energies = np.array([conformer.energy for conformer in kept])
    weights = np.array([conformer.weight for conformer in kept])
    if weights.sum() <= 0:
        weights = np.ones(len(kept))
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.int64)
    coords = np.array([conformer.coords for conformer in kept])
    return Ensemble(smiles, numbers, coords, energies - energies[0], weights / weights.sum())


def read_conformer(entry: Any) -> GeomConformer:
    """Read one conformer of either release."""
    try:
        if "rd_mol" in entry:
            atoms = entry["rd_mol"].GetAtoms()
            numbers = np.array([atom.GetAtomicNum() for atom in atoms], dtype=np.int64)
            coords = entry["rd_mol"].GetConformer().GetPositions()
        else:
            table = np.array(entry["xyz"], dtype=np.float64).reshape(-1, 4)
            numbers, coords = table[:, 0].astype(np.int64), table[:, 1:]
        energy = float(entry["relativeenergy"])
        weight = float(entry["boltzmannweight"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise Fault("broken row", repr(error)) from error
    if not (np.isfinite(coords).all() and np.isfinite([energy, weight]).all() and weight >= 0):
        raise Fault("not finite", "a coordinate, the energy or the weight")
    return GeomConformer(numbers, coords, energy, weight)


def atom_order(
    molecule: "Mol", conformer: GeomConformer, *, guess: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Which atom of a conformer is each atom of the molecule, (n,).

    `guess`, the order of the conformer before, is taken where it fits, so that all conformers of a
    molecule are numbered alike.
    """
    numbers, coords = conformer.numbers, conformer.coords
    wanted = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
    if not np.array_equal(np.sort(numbers), np.sort(wanted)):
        raise Fault("other atoms", f"{len(numbers)}, of other elements than the SMILES")
    if guess is not None and np.array_equal(numbers[guess], wanted):
        placed = coords[guess][None]
        if same_connectivity(molecule, placed)[0] and same_stereo(molecule, placed)[0]:
            return guess
    orders = skeleton_orders(molecule, numbers, bonded(numbers, coords[None])[0])
    if not len(orders):
        raise Fault("changed connectivity", "its bonds are not those of the SMILES")
    right = same_stereo(molecule, coords[orders])
    if not right.any():
        raise Fault("wrong configuration", "a stereocentre or double bond is not as in the SMILES")
    chosen: NDArray[np.int64] = orders[int(right.argmax())]
    return chosen


def skeleton_orders(
    molecule: "Mol", numbers: NDArray[np.int64], bonds: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Orders that map elements and bonds onto the molecule's, (M, n), M = 0 if there is none.

    Hydrogens of one atom keep their order: exchanging them is a symmetry of the graph.
    """
    from rdkit.Chem import GetAdjacencyMatrix

    wanted = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
    size = len(wanted)
    target = skeleton(wanted, GetAdjacencyMatrix(molecule).astype(bool))
    source = skeleton(numbers, bonds)
    if target is None or source is None or target[0].GetNumBonds() != source[0].GetNumBonds():
        return np.zeros((0, size), dtype=np.int64)
    matches = source[0].GetSubstructMatches(target[0], uniquify=False, maxMatches=MATCHES)
    orders = np.zeros((len(matches), size), dtype=np.int64)
    for row, match in enumerate(matches):
        for here, there in enumerate(match):
            orders[row, target[1][here]] = source[1][there]
    return orders


def skeleton(
    numbers: NDArray[np.int64], bonds: NDArray[np.bool_]
) -> tuple["Mol", list[list[int]]] | None:
    """Graph of heavy atoms, labelled by their hydrogens; and each with its hydrogens.

    None where a hydrogen has not one bond, to a heavy atom. Two hydrogens alone are their own
    skeleton.
    """
    from rdkit.Chem import Atom, BondType, RWMol

    centres = np.flatnonzero(numbers > 1) if (numbers > 1).any() else np.arange(len(numbers))
    outer = np.setdiff1d(np.arange(len(numbers)), centres)
    if (bonds[outer].sum(1) != 1).any() or bonds[np.ix_(outer, outer)].any():
        return None
    groups = [[int(c), *(int(h) for h in outer if bonds[c, h])] for c in centres]
    graph = RWMol()
    for centre, *hydrogens in groups:
        atom = Atom(int(numbers[centre]))
        atom.SetIsotope(1 + len(hydrogens))
        atom.SetNoImplicit(True)
        graph.AddAtom(atom)
    for one, other in np.argwhere(np.triu(bonds[np.ix_(centres, centres)])):
        graph.AddBond(int(one), int(other), BondType.SINGLE)
    return graph.GetMol(), groups
