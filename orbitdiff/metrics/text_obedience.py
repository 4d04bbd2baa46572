"""Does a crystal obey its text: formula, elements, crystal system, space group, shape of cell.

A drawn crystal has no exact symmetry: its group is searched at 0.2 angstrom and 5 degrees. At this
tolerance a real crystal, too, may have a higher group than the one that its text states (found at
0.01): half of the perovskites do. So both are searched alike, and the crystal that a text was
written of obeys it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from orbitdiff.data.crystals import Crystal, to_structure
from orbitdiff.data.prompts import PromptFields
from orbitdiff.metrics.base import Map, MetricResult, time_limit

if TYPE_CHECKING:
    from pymatgen.core import Structure

__all__ = ["ANGLE_TOLERANCE", "SYMPREC", "Asked", "Obeyed", "obedience", "obeyed", "wanted_of"]

SYMPREC = 0.2
"""Angstrom; tolerance of the symmetry search in drawn crystals, the texts' own is 0.01."""

ANGLE_TOLERANCE = 5.0
"""Degrees."""

SECONDS = 30.0
CHUNK = 32
FIELDS = ("formula", "elements", "crystal_system", "spacegroup")
FIGURES = (*FIELDS, "cell_system")

CELLS = {
    "triclinic": (
        "triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic",
    ),
    "monoclinic": (
        "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic",
    ),
    "orthorhombic": ("orthorhombic", "tetragonal", "hexagonal", "cubic"),
    "tetragonal": ("tetragonal", "cubic"),
    "trigonal": ("trigonal", "hexagonal", "cubic"),
    "hexagonal": ("hexagonal",),
    "cubic": ("cubic",),
}  # fmt: skip
"""Systems of bare cells in which a crystal of a system can be: with its rotations, or more."""


@dataclass(frozen=True)
class Asked:
    """A drawn crystal and what its text asked for.

    Parameters
    ----------
    id : str
    k : int
        Number of the sample.
    crystal : Crystal
    fields : PromptFields
        From `wanted_of`.
    """

    id: str
    k: int
    crystal: Crystal
    fields: PromptFields


@dataclass(frozen=True)
class Obeyed:
    """Whether one crystal has what its text states.

    Parameters
    ----------
    id : str
    k : int
    formula, elements, crystal_system, spacegroup : bool
    cell_system : bool
        The cell alone, its atoms left out, has at least the symmetry of the stated system.
    found_spacegroup : int
        0 where none was found.
    """

    id: str
    k: int
    formula: bool
    elements: bool
    crystal_system: bool
    spacegroup: bool
    cell_system: bool
    found_spacegroup: int


def wanted_of(fields: PromptFields, crystal: Crystal) -> PromptFields:
    """Return the fields of a text, its symmetry found at the tolerance of drawn crystals.

    Parameters
    ----------
    fields : PromptFields
    crystal : Crystal
        The one that the text was written of.
    """
    number, system = symmetry_of(to_structure(crystal))
    return replace(fields, spacegroup=number, crystal_system=system)


def obeyed(asked: Asked) -> Obeyed:
    """Compare one crystal with the fields of its text.

    The space group is that of pymatgen's SpacegroupAnalyzer at 0.2 angstrom and 5 degrees; a
    crystal without one disobeys.

    Parameters
    ----------
    asked : Asked
    """
    from pymatgen.core import Structure

    structure, fields = to_structure(asked.crystal), asked.fields
    composition = structure.composition
    number, system = symmetry_of(structure)
    _, cell = symmetry_of(Structure(structure.lattice, ["H"], [[0.0, 0.0, 0.0]]))
    return Obeyed(
        asked.id,
        asked.k,
        composition.reduced_formula == fields.formula,
        {element.symbol for element in composition.elements} == set(fields.elements),
        system == fields.crystal_system,
        number == fields.spacegroup,
        cell in CELLS.get(fields.crystal_system, ()),
        number,
    )


def symmetry_of(structure: "Structure") -> tuple[int, str]:
    """Number of the space group and crystal system, 0 and nothing where none is found."""
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    try:
        with time_limit(SECONDS):
            found = SpacegroupAnalyzer(structure, symprec=SYMPREC, angle_tolerance=ANGLE_TOLERANCE)
            return int(found.get_space_group_number()), str(found.get_crystal_system())
    except Exception:
        return 0, ""


def obedience(asked: Sequence[Asked], *, parallel: Map) -> MetricResult[Obeyed]:
    """Share of crystals that have the formula, elements, system and space group of their text.

    Parameters
    ----------
    asked : sequence of Asked
    parallel : Map
        An executor's `map`.

    Returns
    -------
    MetricResult
        `summary`: a share for each, `all_fields`, and the tolerances.
    """
    edges = [*range(0, len(asked), CHUNK), len(asked)]
    parts = [list(asked[start:stop]) for start, stop in pairwise(edges)]
    judged = [row for part in parallel(obeyed_chunk, parts, description="texts") for row in part]
    count = max(1, len(judged))
    summary: dict[str, Any] = {
        name: sum(getattr(row, name) for row in judged) / count for name in FIGURES
    }
    every = sum(all(getattr(row, name) for name in FIELDS) for row in judged)
    summary |= {"all_fields": every / count, "symprec": SYMPREC, "angle_tolerance": ANGLE_TOLERANCE}
    return MetricResult(judged, summary)


def obeyed_chunk(asked: Sequence[Asked]) -> list[Obeyed]:
    """Compare several crystals in one task."""
    return [obeyed(one) for one in asked]
