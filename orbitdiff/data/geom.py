"""GEOM as published: the `rdkit_folder` of pickles or the msgpack release, a molecule at a time.

Axelrod, Gomez-Bombarelli, Sci. Data 9, 185 (2022).
"""

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from orbitdiff.data.geom_atoms import Quarantine, to_ensemble
from orbitdiff.data.molecules import Ensemble
from orbitdiff.data.rejected import Rejected
from orbitdiff.data.restricted_pickle import load_npy, load_pickle
from orbitdiff.errors import BadInput, MissingExtra

__all__ = ["SPLIT_PARTS", "read_msgpack", "read_rdkit_folder", "read_split"]

SPLIT_PARTS = ("train", "val", "test")


def read_rdkit_folder(
    folder: Path,
    *,
    quarantine: Quarantine,
    subset: str = "qm9",
    rows: Sequence[int] | NDArray[np.int64] | None = None,
    corrected: Mapping[str, str] | None = None,
) -> Iterator[Ensemble]:
    """Read the pickles of one subset, in order of file name.

    Parameters
    ----------
    folder : Path
        `rdkit_folder`, with `{subset}/*.pickle` and usually `summary_{subset}.json`.
    quarantine : callable
        Is told what is left out and why.
    subset : str
        `qm9` or `drugs`.
    rows : sequence of int, optional
        Places in the sorted list of all files, as GeoMol's splits count them (`read_split`).
    corrected : mapping, optional
        GEOM's SMILES to the one to use, where GEOM's has a wrong bond order.

    Yields
    ------
    Ensemble
        Energies ascending from 0; weights are GEOM's over the conformers that are kept.

    Raises
    ------
    BadInput
        No such files; rows that are not there; rows asked for, but files of the summary missing,
        since every later place would be another molecule.
    """
    paths = sorted((folder / subset).glob("*.pickle"), key=lambda path: path.name)
    if not paths:
        raise BadInput(f"expected {folder / subset}/*.pickle, found none")
    absent = missing_files(folder, subset)
    if rows is not None:
        if absent:
            raise BadInput(
                f"expected all files that summary_{subset}.json lists, {len(absent)} are missing "
                f"({absent[0]}): the places of the split would be those of other molecules"
            )
        if len(rows) and not 0 <= min(rows) <= max(rows) < len(paths):
            raise BadInput(f"expected places below {len(paths)}, got up to {max(rows)}")
        paths = [paths[row] for row in sorted(set(map(int, rows)))]
    else:
        for name in absent:
            quarantine(Rejected(name, "missing file", "listed in the summary"))
    for path in paths:
        try:
            content = load_pickle(path)
        except BadInput as error:
            quarantine(Rejected(path.name, "unreadable file", str(error)))
            continue
        smiles = str(content.get("smiles")) if isinstance(content, dict) else path.name
        found = checked(smiles, content, quarantine, corrected)
        if found is not None:
            yield found


def read_msgpack(
    path: Path, *, quarantine: Quarantine, corrected: Mapping[str, str] | None = None
) -> Iterator[Ensemble]:
    """Read `qm9_crude.msgpack` or `drugs_crude.msgpack`, molecule by molecule.

    Parameters
    ----------
    path : Path
        `*.msgpack`, or the published `*.msgpack.tar.gz`.
    quarantine, corrected
        See `read_rdkit_folder`.

    Yields
    ------
    Ensemble

    Raises
    ------
    BadInput
        Missing, truncated, or no maps of SMILES to molecules.
    MissingExtra
        The package msgpack is not installed.
    """
    try:
        import msgpack
    except ImportError as error:
        raise MissingExtra.naming("msgpack", "mol") from error
    with open_msgpack(path) as file:
        unpacker = msgpack.Unpacker(file, raw=False, strict_map_key=False)
        while True:
            try:
                size = unpacker.read_map_header()
            except msgpack.OutOfData:
                return
            except Exception as error:
                raise BadInput(f"{path} is no map of molecules ({error!r})") from error
            for _ in range(size):
                try:
                    smiles, content = unpacker.unpack(), unpacker.unpack()
                except Exception as error:
                    raise BadInput(f"{path} is truncated or damaged ({error!r})") from error
                found = checked(str(smiles), content, quarantine, corrected)
                if found is not None:
                    yield found


def read_split(path: Path) -> dict[str, NDArray[np.int64]]:
    """Read a split file of GeoMol, such as `split0.npy`.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict
        train, val and test to ascending places for `read_rdkit_folder`.

    Raises
    ------
    BadInput
        No three lists of places, or lists that overlap.
    """
    parts = load_npy(path)
    try:
        found = {
            name: np.unique(np.asarray(part, dtype=np.int64))
            for name, part in zip(SPLIT_PARTS, parts, strict=True)
        }
    except (TypeError, ValueError) as error:
        raise BadInput(f"expected three lists of places in {path}: {error}") from error
    together = np.concatenate(list(found.values()))
    if len(np.unique(together)) < len(together) or (len(together) and together.min() < 0):
        raise BadInput(f"expected three lists of places without overlap in {path}")
    return found


def checked(
    smiles: str, content: object, quarantine: Quarantine, corrected: Mapping[str, str] | None
) -> Ensemble | None:
    """Turn the entry of a molecule into its ensemble."""
    conformers = content.get("conformers") if isinstance(content, dict) else None
    if not isinstance(conformers, list):
        quarantine(Rejected(smiles, "broken row", "no list of conformers"))
        return None
    return to_ensemble((corrected or {}).get(smiles, smiles), conformers, quarantine)


def missing_files(folder: Path, subset: str) -> list[str]:
    """Files that the summary lists and the folder lacks; none where there is no summary."""
    summary = folder / f"summary_{subset}.json"
    if not summary.is_file():
        return []
    try:
        entries = json.loads(summary.read_text())
        listed = [entry.get("pickle_path") for entry in entries.values()]
    except (ValueError, AttributeError) as error:
        raise BadInput(f"{summary} is no whole summary ({error}); copy it again") from error
    there = {path.name for path in (folder / subset).iterdir()}
    return sorted(name for name in listed if name and name.rsplit("/", 1)[-1] not in there)


@contextmanager
def open_msgpack(path: Path) -> Iterator[IO[bytes]]:
    """Open a msgpack file, inside a tar.gz where it is in one."""
    try:
        if not path.name.endswith((".tar.gz", ".tgz")):
            with path.open("rb") as file:
                yield file
            return
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                inside = archive.extractfile(member) if member.isfile() else None
                if inside is not None:
                    yield inside
                    return
        raise BadInput(f"expected a msgpack file in {path}, found none")
    except (OSError, EOFError, tarfile.TarError) as error:
        raise BadInput(f"could not read {path}: {error}") from error
