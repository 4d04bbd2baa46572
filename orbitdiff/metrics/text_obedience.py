"""Does a crystal obey its text: formula, elements, crystal system, space group."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from orbitdiff.data.crystals import Crystal, to_structure
from orbitdiff.data.prompts import PromptFields
from orbitdiff.metrics.base import Map, MetricResult, time_limit

__all__ = ["ANGLE_TOLERANCE", "SYMPREC", "Asked", "Obeyed", "obedience", "obeyed"]

SYMPREC = 0.2
"""Angstrom; tolerance of the symmetry search in drawn crystals, the texts' own is 0.01."""

ANGLE_TOLERANCE = 5.0
"""Degrees."""

SECONDS = 30.0
CHUNK = 32
FIGURES = ("formula", "elements", "crystal_system", "spacegroup")


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
    found_spacegroup : int
        0 where none was found.
    """

    id: str
    k: int
    formula: bool
    elements: bool
    crystal_system: bool
    spacegroup: bool
    found_spacegroup: int


def obeyed(asked: Asked) -> Obeyed:
    """Compare one crystal with the fields of its text.

    The space group is that of pymatgen's SpacegroupAnalyzer at 0.2 angstrom and 5 degrees; a
    crystal without one disobeys.

    Parameters
    ----------
    asked : Asked
    """
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    structure, fields = to_structure(asked.crystal), asked.fields
    composition = structure.composition
    number, system = 0, ""
    try:
        with time_limit(SECONDS):
            symmetry = SpacegroupAnalyzer(
                structure, symprec=SYMPREC, angle_tolerance=ANGLE_TOLERANCE
            )
            number, system = symmetry.get_space_group_number(), str(symmetry.get_crystal_system())
    except Exception:
        number, system = 0, ""
    return Obeyed(
        asked.id,
        asked.k,
        composition.reduced_formula == fields.formula,
        {element.symbol for element in composition.elements} == set(fields.elements),
        system == fields.crystal_system,
        number == fields.spacegroup,
        int(number),
    )


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
    every = sum(all(getattr(row, name) for name in FIGURES) for row in judged)
    summary |= {"all_fields": every / count, "symprec": SYMPREC, "angle_tolerance": ANGLE_TOLERANCE}
    return MetricResult(judged, summary)


def obeyed_chunk(asked: Sequence[Asked]) -> list[Obeyed]:
    """Compare several crystals in one task."""
    return [obeyed(one) for one in asked]
