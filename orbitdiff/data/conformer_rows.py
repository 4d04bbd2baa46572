"""One row of a conformer file: a line of JSON or a record of an SDF, checked against its SMILES."""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from orbitdiff.data.molecule_graph import molecule_of_smiles
from orbitdiff.errors import BadInput

if TYPE_CHECKING:
    from rdkit.Chem import Mol

__all__ = [
    "ConformerRow",
    "RefusedRow",
    "atom_order",
    "canonical_smiles",
    "parsed_smiles",
    "row_from_json",
    "row_from_sdf",
]

KEPT = 20_000
"""Molecules that are parsed once."""

PROPERTY = re.compile(r"^>.*<smiles>.*\n(.*)$", re.MULTILINE)


class RefusedRow(Exception):
    """A row is of no use.

    Attributes
    ----------
    smiles : str
        Canonical SMILES of its molecule, empty where it is not known.
    reason, detail : str
    """

    def __init__(self, smiles: str, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.smiles, self.reason, self.detail = smiles, reason, detail


class ConformerRow(NamedTuple):
    """Conformers of one line or record.

    Attributes
    ----------
    smiles : str
    coords : (L, n, 3) float64
        Angstrom, in the atom order of `Chem.AddHs(Chem.MolFromSmiles(smiles))`.
    energies : sequence of float or None
        kcal/mol.
    """

    smiles: str
    coords: np.ndarray
    energies: Sequence[float | None]


@lru_cache(maxsize=KEPT)
def parsed_smiles(smiles: str) -> "Mol":
    """Return `molecule_of_smiles`, parsed once; not to be changed.

    Parameters
    ----------
    smiles : str
    """
    return molecule_of_smiles(smiles)


@lru_cache(maxsize=KEPT)
def canonical_smiles(smiles: str) -> str:
    """Return the canonical isomeric SMILES that names a molecule.

    Parameters
    ----------
    smiles : str

    Raises
    ------
    BadInput
        See `molecule_of_smiles`.
    """
    from rdkit import Chem

    return str(Chem.MolToSmiles(Chem.RemoveHs(parsed_smiles(smiles))))


def atom_order(source: "Mol", target: "Mol") -> np.ndarray | None:
    """Atoms of one molecule in the order of another with the same graph.

    Parameters
    ----------
    source, target : rdkit Mol
        With explicit hydrogens.

    Returns
    -------
    (n,) int64 or None
        Entry i is the atom of `source` that is atom i of `target`; stereo labels agree where they
        can. None where the graphs differ.
    """
    if source.GetNumAtoms() != target.GetNumAtoms() or source.GetNumBonds() != target.GetNumBonds():
        return None
    if _edges(source) == _edges(target):
        return np.arange(source.GetNumAtoms())
    match = source.GetSubstructMatch(target, useChirality=True) or source.GetSubstructMatch(target)
    return np.array(match, dtype=np.int64) if match else None


def _edges(molecule: "Mol") -> tuple[Any, Any]:
    atoms = [(atom.GetAtomicNum(), atom.GetFormalCharge()) for atom in molecule.GetAtoms()]
    bonds = {
        (*sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())), int(bond.GetBondType()))
        for bond in molecule.GetBonds()
    }
    return atoms, bonds


def row_from_json(text: str) -> ConformerRow:
    """Read a line.

    Parameters
    ----------
    text : str
        `smiles`, `coords` (L, n, 3) or (n, 3); optionally `atomic_numbers`, `energies_kcal`.

    Raises
    ------
    RefusedRow
    """
    try:
        row = json.loads(text)
        smiles, coords = row["smiles"], row["coords"]
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedRow("", "no row with smiles and coords", f"{error!r}") from error
    molecule, known = _molecule(smiles)
    numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
    if row.get("atomic_numbers", numbers) != numbers:
        raise RefusedRow(known, "atom order", "atomic_numbers are not those of Chem.AddHs(smiles)")
    try:
        points = np.array(coords, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise RefusedRow(known, "coordinates", f"{error}") from error
    if points.size == 0:
        points = points.reshape(0, len(numbers), 3)
    if points.ndim == 2:
        points = points[None]
    if points.shape[1:] != (len(numbers), 3):
        wanted = f"(L, {len(numbers)}, 3)"
        raise RefusedRow(known, "coordinates", f"expected {wanted}, got {points.shape}")
    try:
        known_energies = [float(energy) for energy in row.get("energies_kcal") or []]
    except (ValueError, TypeError) as error:
        raise RefusedRow(known, "energies", f"{error}") from error
    energies: Sequence[float | None] = known_energies or [None] * len(points)
    if len(energies) != len(points):
        raise RefusedRow(known, "energies", f"{len(energies)} for {len(points)} conformers")
    return ConformerRow(smiles, points, energies)


def row_from_sdf(text: str) -> ConformerRow:
    """Read a record; its atoms are brought into the order of its SMILES.

    Parameters
    ----------
    text : str
        Without the closing `$$$$`. Its molecule is the property `smiles`, else a title that is a
        SMILES, else its own graph with the stereochemistry of the coordinates. Hydrogens that it
        lacks are placed by RDKit.

    Raises
    ------
    RefusedRow
    """
    from rdkit import Chem, rdBase

    smiles = _declared(text)
    with rdBase.BlockLogs():
        supplier = Chem.SDMolSupplier()
        supplier.SetData(text, removeHs=False)
        record = supplier[0] if len(supplier) else None
    if record is None or not record.GetNumAtoms():
        known = _molecule(smiles)[1] if smiles else ""
        raise RefusedRow(known, "unreadable record", "RDKit reads no valid molecule from it")
    if not smiles:
        Chem.AssignStereochemistryFrom3D(record)
        smiles = Chem.MolToSmiles(Chem.RemoveHs(record))
    molecule, known = _molecule(smiles)
    if not record.GetConformer().Is3D():
        raise RefusedRow(known, "no 3D coordinates", "the record is marked 2D")
    if record.GetNumAtoms() < molecule.GetNumAtoms():
        record = Chem.AddHs(record, addCoords=True)
    order = atom_order(record, molecule)
    if order is None:
        own = Chem.MolToSmiles(Chem.RemoveHs(record))
        raise RefusedRow(known, "another molecule", f"its graph is {own}, its SMILES {smiles}")
    energy = record.GetDoubleProp("energy_kcal") if record.HasProp("energy_kcal") else None
    return ConformerRow(smiles, record.GetConformer().GetPositions()[order][None], [energy])


def _declared(text: str) -> str:
    """Property `smiles` of a record, or its title where that is a SMILES; else empty."""
    from rdkit import Chem, rdBase

    found = PROPERTY.search(text)
    if found:
        return found[1].strip()
    title = text.split("\n", 1)[0].strip()
    with rdBase.BlockLogs():
        return title if title and Chem.MolFromSmiles(title) is not None else ""


def _molecule(smiles: object) -> tuple["Mol", str]:
    try:
        return parsed_smiles(str(smiles)), canonical_smiles(str(smiles))
    except BadInput as error:
        raise RefusedRow("", "molecule", str(error)) from error
