"""Does a crystal obey its text: formula, elements, crystal system, space group, shape of cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from orbitdiff.data.crystals import Crystal, to_structure
from orbitdiff.data.prompts import PromptFields
from orbitdiff.metrics.base import Map, MetricResult, time_limit

if TYPE_CHECKING:
    from pymatgen.core import Structure

__all__ = ["ANGLE_TOLERANCE", "SYMPREC", "Asked", "Obeyed", "obedience", "obeyed"]

SYMPREC = 0.2
"""Angstrom; tolerance of the symmetry search in drawn crystals, the texts' own is 0.01."""

ANGLE_TOLERANCE = 5.0
"""Degrees."""

SECONDS = 30.0
CHUNK = 32
FIELDS = ("formula", "elements", "crystal_system", "spacegroup")
FIGURES = (*FIELDS, "cell_system")

LATTICES = {"trigonal": ("trigonal", "hexagonal")}
"""Systems of the bare cell that a crystal system may have, where that is more than its own."""


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
        The cell alone, its atoms left out, has the symmetry of the stated system.
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
    allowed = LATTICES.get(fields.crystal_system, (fields.crystal_system,))
    return Obeyed(
        asked.id,
        asked.k,
        composition.reduced_formula == fields.formula,
        {element.symbol for element in composition.elements} == set(fields.elements),
        system == fields.crystal_system,
        number == fields.spacegroup,
        cell in allowed,
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
