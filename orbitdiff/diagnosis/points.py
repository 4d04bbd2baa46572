"""Files and folders of a user, read one by one, with a reason for whatever cannot be used."""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from orbitdiff.diagnosis.formats import KINDS, kind_of, read_file
from orbitdiff.diagnosis.structure import Collection, Skipped, Structure
from orbitdiff.errors import BadInput, MissingExtra

__all__ = ["read_structures"]

MOST_STRUCTURES = 4096
"""Structures that are read, in order of file name; a diagnosis draws a few hundred of them."""


def read_structures(path: Path, *, most: int = MOST_STRUCTURES) -> Collection:
    """Read a file, or the files of a folder (not of the folders in it).

    Parameters
    ----------
    path : Path
        xyz, sdf, mol, npz, cif or pdb, text files also as .gz; see docs/diagnose.md.
    most : int
        Structures after which reading stops.

    Returns
    -------
    Collection
        At least one structure.

    Raises
    ------
    BadInput
        Nothing there, no file of a known kind, cells and point clouds together, or no structure
        that can be used.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
    elif path.is_file():
        files = [path]
    else:
        raise BadInput(f"expected a file or folder at {path}, found none")
    known = [file for file in files if kind_of(file) is not None]
    wanted = ", ".join(KINDS)
    if not known:
        raise BadInput(f"expected {wanted} files in {path}, found none")
    kinds = {kind_of(file) for file in known}
    if "cif" in kinds and len(kinds) > 1:
        raise BadInput(
            f"expected cells (cif) or point clouds in {path}, got {sorted(map(str, kinds))}; give "
            "each a folder of its own"
        )
    skipped = [Skipped(file.name, f"none of {wanted}") for file in files if file not in known]
    structures: list[Structure] = []
    complete = True
    for found in _each(known):
        if isinstance(found, Structure) and len(structures) == most:
            complete = False
            break
        if isinstance(found, Structure):
            structures.append(found)
        else:
            skipped.append(found)
    if not structures:
        first = skipped[0]
        raise BadInput(
            f"{path} has no structure that can be used; {len(skipped)} left out, "
            f"{first.name}: {first.reason}"
        )
    return Collection(tuple(structures), tuple(skipped), "cif" in kinds, complete)


def _each(files: Sequence[Path]) -> Iterator[Structure | Skipped]:
    """Yield the checked structures of all files."""
    for file in files:
        empty = True
        try:
            for found in read_file(file):
                empty = False
                yield _checked(found) if isinstance(found, Structure) else found
        except MissingExtra:
            raise
        except (OSError, EOFError, ValueError, zlib.error) as error:
            yield Skipped(file.name, f"could not be read: {str(error)[:120]}")
            empty = False
        if empty:
            yield Skipped(file.name, "holds no structure")


def _checked(structure: Structure) -> Structure | Skipped:
    """Refuse clouds without points, with strange shapes or with numbers that are not finite."""
    points = structure.points
    if points.ndim != 2 or points.shape[-1:] != (3,):
        return Skipped(structure.name, f"expected points (n, 3), got {points.shape}")
    if len(points) == 0:
        return Skipped(structure.name, "no points")
    if not np.isfinite(points).all():
        return Skipped(structure.name, "a coordinate is no finite number")
    return structure
