"""Long texts on disk by the content they depend on: each is kept the moment it is finished."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

import numpy as np

from orbitdiff.data.cif import Crystal
from orbitdiff.errors import BadInput

__all__ = ["Keep", "Kept", "keeping", "kept_texts", "software", "text_key"]

PACKAGES = ("robocrys", "matminer", "pymatgen-core", "spglib", "openbabel", "openbabel-wheel")
"""What a text depends on beside the crystal; openbabel, where it is installed, names molecules."""

TEXT_VERSION = 1
"""Raised when a change here alters texts."""

DECIMALS = 6


class Kept(NamedTuple):
    """A text, or the reason why robocrys has none."""

    text: str
    reason: str


class Keep(Protocol):
    """Writes one finished text under its key."""

    def __call__(self, key: str, kept: Kept) -> None:
        """Write it through to the file."""
        ...


def software() -> dict[str, str]:
    """Versions of the packages that the text depends on, `none` where one is missing."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def text_key(structure: Crystal | str, versions: dict[str, str]) -> str:
    """SHA-256 of what is described, and of the software that describes it.

    Parameters
    ----------
    structure : Crystal or str
        Elements, coordinates and cell to six decimals (the id does not matter); or a CIF text,
        whatever its line ends.
    versions : dict
        From `software`.
    """
    digest = sha256(json.dumps([TEXT_VERSION, versions], sort_keys=True).encode())
    if isinstance(structure, str):
        digest.update("\n".join(structure.split()).encode())
        return digest.hexdigest()
    frac = np.round(structure.frac, DECIMALS) % 1.0
    lattice = np.round(structure.lattice, DECIMALS) + 0.0
    for part in (structure.atom_types.astype("<i8"), frac.astype("<f8"), lattice.astype("<f8")):
        digest.update(part.tobytes())
    return digest.hexdigest()


def kept_texts(folder: Path) -> dict[str, Kept]:
    """Read all texts of a cache; a line that was cut when its writer was killed is passed over.

    Parameters
    ----------
    folder : Path
        Need not exist.
    """
    found: dict[str, Kept] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
                found[row["key"]] = Kept(row["text"], row["reason"])
            except (ValueError, KeyError, TypeError):
                continue
    return found


@contextmanager
def keeping(folder: Path) -> Iterator[Keep]:
    """Open a file of this process in a cache; other processes may write and read beside it.

    Parameters
    ----------
    folder : Path
        Made where it does not exist.

    Raises
    ------
    BadInput
        Full disk, or a folder that cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{uuid4().hex}.jsonl").open("x", encoding="utf-8") as file:

            def keep(key: str, kept: Kept) -> None:
                row: dict[str, Any] = {"key": key, **kept._asdict()}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()

            yield keep
    except OSError as error:
        raise BadInput(f"could not write {folder}: {error}; free some space there") from error
