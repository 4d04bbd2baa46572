"""Conformers in files: SDF and JSON lines, gzip or not, grouped by molecule.

JSON lines: one object a line with `smiles`, `coords` (L, n, 3) or (n, 3) in angstrom in the atom
order of `Chem.AddHs(Chem.MolFromSmiles(smiles))`, optionally `atomic_numbers` and `energies_kcal`.
SDF: one conformer a record; the molecule is the property `smiles`, else a title that is a SMILES,
else the record's own graph. A row that cannot be used is left out with its reason.
"""

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from orbitdiff.data.conformer_rows import (
    ConformerRow,
    RefusedRow,
    atom_order,
    canonical_smiles,
    parsed_smiles,
    row_from_json,
    row_from_sdf,
)
from orbitdiff.data.molecules import Ensemble
from orbitdiff.data.tables import open_text
from orbitdiff.errors import BadInput
from orbitdiff.typing import Float

if TYPE_CHECKING:
    from rdkit.Chem import Mol

__all__ = [
    "KT",
    "EnsembleFile",
    "RejectedRow",
    "read_ensembles",
    "to_molecule",
    "with_coords",
    "write_ensembles",
]

KT = 0.5924837
"""Boltzmann's constant times 298.15 K, kcal/mol."""

FORMATS = (".jsonl", ".sdf")
DECIMALS = 6


class RejectedRow(NamedTuple):
    """A conformer, record or line that was left out.

    Attributes
    ----------
    row : int
        Number of the line (JSON lines) or record (SDF), from 1.
    smiles : str
        Canonical SMILES of its molecule, empty where it is not known.
    reason, detail : str
    """

    row: int
    smiles: str
    reason: str
    detail: str


class EnsembleFile(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    ensembles : dict
        Canonical isomeric SMILES to the conformers of that molecule, in order of appearance. Atoms
        are in the order of the first SMILES with which the molecule appears.
    rejected : list of RejectedRow
    """

    ensembles: dict[str, Ensemble]
    rejected: list[RejectedRow]


@dataclass
class _Group:
    smiles: str
    coords: list[np.ndarray] = field(default_factory=list)
    energies: list[float | None] = field(default_factory=list)


def read_ensembles(path: Path) -> EnsembleFile:
    """Read conformers of any number of molecules.

    Parameters
    ----------
    path : Path
        `*.jsonl`, `*.jsonl.gz`, `*.sdf` or `*.sdf.gz`. Hydrogens that a record of an SDF lacks are
        placed by RDKit.

    Returns
    -------
    EnsembleFile
        Weights follow from the energies (Boltzmann, 298.15 K); equal where energies are missing.

    Raises
    ------
    BadInput
        Missing, truncated or empty file, another format.
    """
    groups: dict[str, _Group] = {}
    rejected: list[RejectedRow] = []
    number = 0
    try:
        for number, text in enumerate(_texts(path), 1):
            try:
                row = row_from_json(text) if _format(path) == ".jsonl" else row_from_sdf(text)
                known = canonical_smiles(row.smiles)
                group = groups.setdefault(known, _Group(row.smiles))
                for problem in _add(group, row):
                    rejected.append(RejectedRow(number, known, *problem))
            except RefusedRow as refused:
                rejected.append(RejectedRow(number, refused.smiles, refused.reason, refused.detail))
    except FileNotFoundError as error:
        raise BadInput(f"expected the file {path}, found none") from error
    except (EOFError, zlib.error) as error:
        raise BadInput(f"{path} is truncated ({error}); copy or download it again") from error
    except (UnicodeDecodeError, gzip.BadGzipFile, OSError) as error:
        raise BadInput(f"could not read {path}: {error}") from error
    if not number:
        raise BadInput(f"expected conformers in {path}, got an empty file")
    found = {known: _ensemble(group) for known, group in groups.items() if group.coords}
    return EnsembleFile(found, rejected)


def write_ensembles(ensembles: Iterable[Ensemble], path: Path) -> None:
    """Write conformers, the whole file or nothing.

    Parameters
    ----------
    ensembles : iterable of Ensemble
    path : Path
        The suffix chooses the format as in `read_ensembles`. An SDF keeps four decimals.

    Raises
    ------
    BadInput
        Another suffix.
    """
    write = _to_json if _format(path) == ".jsonl" else _to_sdf
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as raw:
            packed = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if path.suffix == ".gz" else raw
            with packed as file:
                for ensemble in ensembles:
                    file.write(write(ensemble).encode())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def with_coords(ensemble: Ensemble, coords: Float[np.ndarray, "K n 3"]) -> Ensemble:
    """Return an ensemble of the same molecule with other conformers, of unknown energies.

    Parameters
    ----------
    ensemble : Ensemble
    coords : (K, n, 3)
        Angstrom, in its atom order; K = 0 says that nothing was generated.
    """
    num = len(coords)
    return replace(
        ensemble, coords=coords, energies=np.zeros(num), weights=np.full(num, 1 / max(1, num))
    )


def to_molecule(ensemble: Ensemble) -> "Mol":
    """Return an RDKit molecule with all conformers.

    Parameters
    ----------
    ensemble : Ensemble

    Returns
    -------
    rdkit Mol
        Its own copy, hydrogens explicit, conformers numbered from 0.
    """
    from rdkit import Chem

    molecule = Chem.Mol(parsed_smiles(ensemble.smiles))
    for coords in ensemble.coords:
        conformer = Chem.Conformer(molecule.GetNumAtoms())
        conformer.SetPositions(np.ascontiguousarray(coords, dtype=np.float64))
        molecule.AddConformer(conformer, assignId=True)
    return molecule


def _format(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    if not suffixes or suffixes[-1] not in FORMATS:
        raise BadInput(f"expected *.sdf or *.jsonl (or either with .gz), got {path.name}")
    return suffixes[-1]


def _texts(path: Path) -> Iterator[str]:
    """Lines of JSON, or records of an SDF."""
    lines = _format(path) == ".jsonl"
    with open_text(path) as file:
        record: list[str] = []
        for line in file:
            if lines:
                if line.strip():
                    yield line
                continue
            if line.startswith("$$$$"):
                yield "".join(record)
                record = []
            else:
                record.append(line)
        if any(line.strip() for line in record):
            yield "".join(record)


def _add(group: _Group, row: ConformerRow) -> list[tuple[str, str]]:
    """Append the finite conformers of a row in the group's atom order; reasons of the others."""
    coords = row.coords
    if row.smiles != group.smiles:
        order = atom_order(parsed_smiles(row.smiles), parsed_smiles(group.smiles))
        if order is None:
            detail = f"{row.smiles} has not the graph of {group.smiles}"
            return [("another molecule", detail)] * len(coords)
        coords = coords[:, order]
    problems = []
    for points, energy in zip(coords, row.energies, strict=True):
        if np.isfinite(points).all():
            group.coords.append(points)
            group.energies.append(energy)
        else:
            problems.append(("not finite", "a coordinate is NaN or infinite"))
    return problems


def _ensemble(group: _Group) -> Ensemble:
    numbers = [atom.GetAtomicNum() for atom in parsed_smiles(group.smiles).GetAtoms()]
    energies = np.zeros(len(group.coords))
    if None not in group.energies:
        energies = np.array(group.energies, dtype=np.float64)
        energies = energies - energies.min()
    weights = np.exp(-energies / KT)
    return Ensemble(
        smiles=group.smiles,
        atomic_numbers=np.array(numbers, dtype=np.int64),
        coords=np.stack(group.coords),
        energies=energies,
        weights=weights / weights.sum(),
    )


def _to_json(ensemble: Ensemble) -> str:
    row = {
        "smiles": ensemble.smiles,
        "atomic_numbers": ensemble.atomic_numbers.tolist(),
        "coords": np.round(ensemble.coords, DECIMALS).tolist(),
        "energies_kcal": np.round(ensemble.energies, DECIMALS).tolist(),
    }
    return json.dumps(row) + "\n"


def _to_sdf(ensemble: Ensemble) -> str:
    from rdkit import Chem

    molecule = to_molecule(ensemble)
    text = StringIO()
    writer = Chem.SDWriter(text)
    molecule.SetProp("_Name", ensemble.smiles)
    molecule.SetProp("smiles", ensemble.smiles)
    for number, energy in enumerate(ensemble.energies.tolist()):
        molecule.SetIntProp("conformer", number)
        molecule.SetDoubleProp("energy_kcal", round(energy, DECIMALS))
        writer.write(molecule, confId=number)
    writer.close()
    return text.getvalue()
