"""A data set without data: AFLOW prototypes that pymatgen ships, decorated anew."""

import gzip
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orbitdiff.data.cif import Crystal, Rejected, reduce_structure, require_pymatgen
from orbitdiff.errors import BadInput

if TYPE_CHECKING:
    from pymatgen.core import Structure

__all__ = ["Decoration", "build_crystal", "choose_decorations", "library_sha256"]

FAMILIES = (
    ("Li", "Na", "K", "Rb", "Cs"),
    ("Mg", "Ca", "Sr", "Ba"),
    ("Sc", "Y", "La", "Ce", "Pr", "Nd", "Sm", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Lu"),
    ("Ti", "Zr", "Hf"),
    ("V", "Nb", "Ta"),
    ("Cr", "Mo", "W"),
    ("Mn", "Tc", "Re"),
    ("Fe", "Ru", "Os"),
    ("Co", "Rh", "Ir"),
    ("Ni", "Pd", "Pt"),
    ("Cu", "Ag", "Au"),
    ("Zn", "Cd", "Hg"),
    ("Al", "Ga", "In", "Tl"),
    ("Si", "Ge", "Sn", "Pb"),
    ("P", "As", "Sb", "Bi"),
    ("S", "Se", "Te"),
    ("Cl", "Br", "I"),
    ("Th", "U"),
)
"""Elements that take the same valence; every other element keeps its place, as do the small
ones of the second period (Be, B, C, N, O, F), whose crystals differ from those below them."""

VOLUME_PER_ATOM = (5.0, 80.0)
"""Cubic angstrom; a predicted cell outside is refused."""

PER_PROTOTYPE = 400
"""Candidates considered of one prototype."""


@dataclass(frozen=True)
class Decoration:
    """One crystal to build: which prototype, and which element replaces which.

    Parameters
    ----------
    id : str
        `{AFLOW label}:{formula}`, unique.
    prototype : int
        Row of pymatgen's library.
    elements : tuple of (str, str)
        Element of the prototype and its substitute.
    """

    id: str
    prototype: int
    elements: tuple[tuple[str, str], ...]


def library_path() -> Path:
    """Path of the AFLOW prototype library inside pymatgen."""
    require_pymatgen()
    from importlib.util import find_spec

    for package, name in (
        ("pymatgen.analysis.prototypes", "aflow_prototypes.json.gz"),
        ("pymatgen.analysis", "aflow_prototypes.json"),
    ):
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (Path(folder) / name).is_file():
                return Path(folder) / name
    raise BadInput("this pymatgen ships no AFLOW prototypes; install the one in constraints.txt")


def library_sha256() -> str:
    """SHA-256 of the library's unpacked bytes."""
    return sha256(library_bytes()).hexdigest()


def library_bytes() -> bytes:
    """Return the unpacked json of the library."""
    content = library_path().read_bytes()
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


@cache
def library() -> tuple[dict[str, Any], ...]:
    """Rows of the library as json: `tags` and the structure `snl`."""
    return tuple(json.loads(library_bytes()))


def choose_decorations(count: int, *, max_atoms: int) -> list[Decoration]:
    """Choose which crystals to build; the same ones on every machine.

    Prototypes take turns, so that each gives about as many; within one prototype the order
    is that of the SHA-256 of the id. A (formula, AFLOW label) pair occurs once, therefore
    none can be in two splits.

    Parameters
    ----------
    count : int
        Crystals wanted; fewer where the library has no more.
    max_atoms : int
        Larger prototypes are left out.

    Raises
    ------
    BadInput
        count below 1, or no prototype is small enough.
    """
    if count < 1:
        raise BadInput(f"expected at least 1 crystal, got count = {count}")
    seen: set[str] = set()
    queues = []
    for row, entry in enumerate(library()):
        sites = entry["snl"]["sites"]
        ordered = all(
            len(site["species"]) == 1 and site["species"][0]["occu"] == 1 for site in sites
        )
        if ordered and len(sites) <= max_atoms:
            queues.append(decorations_of(row, seen))
    if not queues:
        raise BadInput(f"no prototype has at most {max_atoms} atoms; raise data.max_atoms")
    chosen: list[Decoration] = []
    while queues and len(chosen) < count:
        remaining = []
        for queue in queues:
            found = next(queue, None)
            if found is not None:
                chosen.append(found)
                remaining.append(queue)
        queues = remaining
    return chosen[:count]


def decorations_of(row: int, seen: set[str]) -> Iterator[Decoration]:
    """Yield the decorations of one prototype whose (formula, label) is new."""
    entry = library()[row]
    label = entry["tags"]["aflow"]
    present = [site["species"][0]["element"] for site in entry["snl"]["sites"]]
    own = list(dict.fromkeys(present))
    candidates = []
    for choice in product(*(family(element) for element in own)):
        if len(set(choice)) == len(own):
            amounts = sorted(
                (new, present.count(old)) for old, new in zip(own, choice, strict=True)
            )
            formula = "".join(f"{new}{amount}" for new, amount in amounts)
            pairs = tuple(zip(own, choice, strict=True))
            candidates.append(Decoration(f"{label}:{formula}", row, pairs))
    candidates.sort(key=lambda found: sha256(repr((found.id, found.elements)).encode()).digest())
    for found in candidates[:PER_PROTOTYPE]:
        if found.id not in seen:
            seen.add(found.id)
            yield found


def family(element: str) -> Sequence[str]:
    """Elements that may stand in for this one, itself among them."""
    return next((members for members in FAMILIES if element in members), (element,))


def build_crystal(decoration: Decoration, *, max_atoms: int) -> Crystal | Rejected:
    """Substitute the elements and scale the cell by the predicted change of volume.

    V = V_prototype DLS(substituted) / DLS(prototype)

    DLS is pymatgen's data-mined lattice scaling. The quotient keeps the measured volume of
    the prototype where DLS misjudges its shape; shape and coordinates are the prototype's.

    Parameters
    ----------
    decoration : Decoration
    max_atoms : int

    Returns
    -------
    Crystal or Rejected
    """
    require_pymatgen()
    from pymatgen.analysis.structure_prediction.volume_predictor import DLSVolumePredictor

    predictor = DLSVolumePredictor(min_scaling=None, max_scaling=None)
    own = tuple((old, old) for old, _ in decoration.elements)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        original = substituted(Decoration(decoration.id, decoration.prototype, own))
        structure = substituted(decoration)
        try:
            growth = predictor.predict(structure) / predictor.predict(original)
        except (ValueError, TypeError, ZeroDivisionError) as error:
            return Rejected(decoration.id, "no predicted volume", str(error)[:120])
        volume = original.volume * growth / len(structure)
        if not VOLUME_PER_ATOM[0] <= volume <= VOLUME_PER_ATOM[1]:
            detail = f"{volume:.1f} cubic angstrom per atom"
            return Rejected(decoration.id, "implausible volume", detail)
        structure.scale_lattice(original.volume * growth)
        return reduce_structure(decoration.id, structure, max_atoms=max_atoms)


def substituted(decoration: Decoration) -> "Structure":
    """Return the prototype with its elements replaced, at the prototype's volume."""
    from pymatgen.core import Lattice, Structure

    stored = library()[decoration.prototype]["snl"]
    replace = dict(decoration.elements)
    return Structure(
        Lattice(stored["lattice"]["matrix"]),
        [replace[site["species"][0]["element"]] for site in stored["sites"]],
        [site["abc"] for site in stored["sites"]],
    )
