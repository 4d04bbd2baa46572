"""Readers of single files: each yields structures, and what it left out with the reason."""

import gzip
import zipfile
from collections.abc import Callable, Iterator, Mapping
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orbitdiff.diagnosis.structure import Skipped, Structure
from orbitdiff.errors import MissingExtra

__all__ = ["KINDS", "kind_of", "read_file"]

Found = Iterator[Structure | Skipped]
COORDINATES = ("coords", "positions", "pos", "points", "x_0")
"""Names under which an npz file may hold its coordinates."""
MOST_ATOMS = 500
"""Atoms of a cell: the exact mean over translations grows with their square."""


def kind_of(path: Path) -> str | None:
    """Kind of a file by its suffix, None where it is not known; .gz is read through."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    kind = suffixes[-1].removeprefix(".") if suffixes else ""
    kind = {"mol": "sdf", "extxyz": "xyz", "ent": "pdb"}.get(kind, kind)
    return kind if kind in KINDS else None


def read_file(path: Path) -> Found:
    """Yield the structures of one file of a known kind.

    Parameters
    ----------
    path : Path

    Raises
    ------
    MissingExtra
        rdkit, pymatgen or biotite is needed and not installed.
    OSError
        The file cannot be opened or unpacked.
    """
    kind = kind_of(path)
    assert kind is not None  # the caller chose it by its kind
    yield from KINDS[kind](path)


def _bytes(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def _text(path: Path) -> str:
    return _bytes(path).decode("utf-8", errors="replace")


def read_xyz(path: Path) -> Found:
    """Yield the frames: a count, a comment, then lines of symbol, x, y, z and anything else."""
    opener: Callable[..., Any] = gzip.open if path.suffix.lower() == ".gz" else open
    with opener(path, "rt", encoding="utf-8", errors="replace") as lines:
        frame = 0
        while head := lines.readline():
            if not head.strip():
                continue
            frame += 1
            name = f"{path.name} frame {frame}"
            try:
                count = int(head)
            except ValueError:
                yield Skipped(name, f"expected a number of atoms, got {head.strip()[:40]!r}")
                return  # no telling where the next frame starts
            lines.readline()
            rows = list(islice(lines, max(count, 0)))
            if len(rows) < count:
                yield Skipped(name, f"expected {count} atoms, the file ends after {len(rows)}")
                return
            try:
                points = np.array([row.split()[1:4] for row in rows], dtype=np.float64)
            except ValueError:
                yield Skipped(name, "an atom line is not: symbol x y z")
                continue
            yield Structure(name, points.reshape(-1, 3) if count == 0 else points)


def read_sdf(path: Path) -> Found:
    """Yield the molecules with their bonds, hydrogens as in the file."""
    try:
        from rdkit import Chem, rdBase
    except ImportError as error:
        raise MissingExtra.naming("rdkit", "mol") from error
    with rdBase.BlockLogs():
        supplier = Chem.SDMolSupplier()
        supplier.SetData(_text(path), removeHs=False)
        # a supplier that is indexed past a broken record goes on with the next one
        for index, molecule in enumerate(supplier, 1):
            name = f"{path.name} molecule {index}"
            if molecule is None:
                yield Skipped(name, "rdkit cannot read it")
            elif molecule.GetNumConformers() == 0 or not molecule.GetConformer().Is3D():
                yield Skipped(name, "no coordinates in three dimensions")
            else:
                Chem.AssignStereochemistryFrom3D(molecule)
                points = np.asarray(molecule.GetConformer().GetPositions(), dtype=np.float64)
                yield Structure(name, points, molecule)


def read_cif(path: Path) -> Found:
    """Yield the first crystal, in its Niggli cell."""
    from orbitdiff.data.cif import Rejected, parse_crystal

    found = parse_crystal(path.name, _text(path), max_atoms=MOST_ATOMS)
    if isinstance(found, Rejected):
        yield Skipped(path.name, f"{found.reason}: {found.detail}")
    else:
        yield Structure(path.name, found.frac)


def read_pdb(path: Path) -> Found:
    """Yield the CA trace of each model."""
    try:
        from biotite.structure import filter_amino_acids
        from biotite.structure.io.pdb import PDBFile
    except ImportError as error:
        raise MissingExtra.naming("biotite", "protein") from error
    import io

    try:
        models = PDBFile.read(io.StringIO(_text(path))).get_structure()
    except Exception as error:
        yield Skipped(path.name, f"biotite cannot read it: {str(error)[:120]}")
        return
    trace = filter_amino_acids(models) & (models.atom_name == "CA")
    for index, coordinates in enumerate(models.coord[:, trace], 1):
        name = f"{path.name} model {index}"
        if len(coordinates) == 0:
            yield Skipped(name, "no CA atoms of amino acids")
        else:
            yield Structure(name, coordinates.astype(np.float64))


def read_npz(path: Path) -> Found:
    """Yield the clouds of one array (B, N, 3) with a mask, or of (M, ..., 3) with offsets."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in _needed(stored)}
    except (ValueError, zipfile.BadZipFile, KeyError) as error:
        yield Skipped(path.name, f"numpy cannot read it: {str(error)[:120]}")
        return
    coordinates = _coordinates(arrays)
    if coordinates is None:
        yield Skipped(
            path.name, f"expected one array (..., 3) of numbers, or one named {COORDINATES}"
        )
        return
    offsets, mask = arrays.get("offsets"), arrays.get("mask")
    if offsets is not None:
        yield from _ragged(path.name, coordinates, offsets)
    elif coordinates.ndim == 2:
        yield Structure(path.name, coordinates.astype(np.float64))
    elif coordinates.ndim != 3:
        yield Skipped(path.name, f"expected (B, N, 3), or offsets, got {coordinates.shape}")
    elif mask is not None and mask.shape != coordinates.shape[:2]:
        yield Skipped(path.name, f"expected a mask {coordinates.shape[:2]}, got {mask.shape}")
    else:
        for index, cloud in enumerate(coordinates):
            real = cloud if mask is None else cloud[mask[index].astype(bool)]
            yield Structure(f"{path.name} row {index}", real.astype(np.float64))


def _needed(stored: Mapping[str, Any]) -> list[str]:
    """Names of the arrays to read: coordinates by name, else all; texts stay in the file."""
    named = [name for name in COORDINATES if name in stored]
    chosen = named[:1] or [name for name in stored if name not in ("offsets", "mask")]
    return [*chosen, *(name for name in ("offsets", "mask") if name in stored)]


def _coordinates(arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
    """Return the only array with a last axis of three numbers."""
    fitting = [
        array
        for name, array in arrays.items()
        if name not in ("offsets", "mask")
        and array.ndim > 1
        and array.shape[-1] == 3
        and array.dtype.kind == "f"
    ]
    return fitting[0] if len(fitting) == 1 else None


def _ragged(name: str, points: NDArray[Any], offsets: NDArray[Any]) -> Found:
    """Yield points[offsets[i] : offsets[i + 1]]; axes between the first and last are points too."""
    ends = offsets.astype(np.int64) if offsets.dtype.kind in "iu" else np.zeros((0, 0), np.int64)
    if ends.ndim != 1 or len(ends) < 2 or ends[0] < 0 or ends[-1] > len(points):
        yield Skipped(name, f"expected offsets (B + 1,) up to {len(points)} rows of coordinates")
        return
    for index, (start, stop) in enumerate(pairwise(ends)):
        cloud = points[start:stop].reshape(-1, 3).astype(np.float64)
        yield Structure(f"{name} row {index}", cloud)


KINDS: dict[str, Callable[[Path], Found]] = {
    "xyz": read_xyz,
    "sdf": read_sdf,
    "npz": read_npz,
    "cif": read_cif,
    "pdb": read_pdb,
}
"""Readers by kind of file."""
