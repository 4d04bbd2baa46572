"""Crystal structure prediction: match rate and RMSE, validity, METRe and cRMSE.

A pair matches where pymatgen's StructureMatcher finds a mapping within its tolerances; RMSE is
the displacement divided by (V/N)^(1/3), averaged over matched references only.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from orbitdiff.data.crystals import Crystal, to_structure

__all__ = ["Judged", "Pair", "Tolerances", "aggregate", "judge", "valid_crystal"]

LARGEST_COMPOSITION_SEARCH = 8


@dataclass(frozen=True)
class Tolerances:
    """StructureMatcher's tolerances (published: 0.5, 0.3, 10 degrees)."""

    stol: float = 0.5
    ltol: float = 0.3
    angle_tol: float = 10.0


@dataclass(frozen=True)
class Pair:
    """A generated crystal and the reference that it answers to."""

    id: str
    k: int
    generated: Crystal
    reference: Crystal
    tolerances: Tolerances


@dataclass(frozen=True)
class Judged:
    """Per-sample values.

    Attributes
    ----------
    rmse : normalised displacement, None where there is no match
    valid_generated, valid_reference : composition and structure valid
    failure : error text where the comparison failed, else empty
    """

    id: str
    k: int
    rmse: float | None
    valid_generated: bool
    valid_reference: bool
    failure: str


def valid_crystal(crystal: Crystal) -> bool:
    """SMACT-valid composition, smallest distance above 0.5 angstrom, volume above 0.1.

    Parameters
    ----------
    crystal : Crystal
    """
    structure = to_structure(crystal)
    if not structure.volume > 0.1:
        return False
    distances = structure.distance_matrix
    off = distances[~np.eye(len(structure), dtype=bool)]
    shortest = min(float(length) for length in structure.lattice.abc)
    if min([shortest, *off.tolist()]) <= 0.5:
        return False
    return _valid_composition(structure.composition.reduced_formula)


def _valid_composition(formula: str) -> bool:
    from pymatgen.core import Composition
    from smact.screening import smact_validity

    if len(Composition(formula)) > LARGEST_COMPOSITION_SEARCH:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return bool(smact_validity(Composition(formula)))
        except (TypeError, ValueError, KeyError, NameError):
            return False


def judge(pair: Pair) -> Judged:
    """Compare one pair; a failing comparison is recorded, never raised.

    Parameters
    ----------
    pair : Pair
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher(**asdict(pair.tolerances))
    try:
        generated, reference = to_structure(pair.generated), to_structure(pair.reference)
        found = matcher.get_rms_dist(generated, reference)
        rmse = None if found is None else float(found[0])
        return Judged(
            pair.id, pair.k, rmse, valid_crystal(pair.generated), valid_crystal(pair.reference), ""
        )
    except Exception as error:
        return Judged(pair.id, pair.k, None, False, False, f"{type(error).__name__}: {error}")


def aggregate(judged: Sequence[Judged], *, stol: float) -> dict[str, Any]:
    """Match rate and RMSE under both validity rules, cRMSE.

    A reference counts as matched where any of its k samples matches; its RMSE is the best one.
    Rule `all` counts every pair; rule `valid` asks that generated and reference crystal are
    valid at k = 1, and the generated one alone at k > 1. Rates divide by all references.

    Parameters
    ----------
    judged : sequence of Judged
    stol : float
        Site tolerance, what cRMSE charges for a miss.

    Returns
    -------
    dict
        JSON types; RMSE is None where nothing matched.
    """
    samples: dict[str, list[Judged]] = defaultdict(list)
    for row in judged:
        samples[row.id].append(row)
    k = max((len(rows) for rows in samples.values()), default=0)

    def valid(row: Judged) -> bool:
        return row.valid_generated and (k > 1 or row.valid_reference)

    rules: Mapping[str, Callable[[Judged], bool]] = {"all": lambda row: True, "valid": valid}
    out: dict[str, Any] = {"num_references": len(samples), "samples_per_crystal": k}
    out["failures"] = sum(bool(row.failure) for row in judged)
    for rule, counts in rules.items():
        best = [
            min((row.rmse for row in rows if row.rmse is not None and counts(row)), default=None)
            for rows in samples.values()
        ]
        matched = [value for value in best if value is not None]
        out[f"match_rate_{rule}"] = len(matched) / max(1, len(best))
        out[f"rmse_{rule}"] = float(np.mean(matched)) if matched else None
        charged = [stol if value is None else value for value in best]
        out[f"crmse_{rule}"] = float(np.mean(charged)) if charged else None
    out["valid_generated"] = sum(row.valid_generated for row in judged) / max(1, len(judged))
    return out


def metre(
    generated: Sequence[Crystal], references: Sequence[Crystal], tolerances: Tolerances
) -> float:
    """Share of references that any generated crystal of the same composition matches (METRe).

    Parameters
    ----------
    generated, references : sequence of Crystal
    tolerances : Tolerances

    References
    ----------
    arXiv 2509.12178.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher(**asdict(tolerances))
    by_formula: dict[tuple[int, ...], list[Any]] = defaultdict(list)
    for crystal in generated:
        by_formula[tuple(sorted(crystal.atom_types.tolist()))].append(to_structure(crystal))
    found = 0
    for crystal in references:
        reference = to_structure(crystal)
        candidates = by_formula[tuple(sorted(crystal.atom_types.tolist()))]
        found += any(_fits(matcher, candidate, reference) for candidate in candidates)
    return found / max(1, len(references))


def _fits(matcher: Any, first: Any, second: Any) -> bool:
    try:
        return matcher.get_rms_dist(first, second) is not None
    except (ValueError, ArithmeticError, np.linalg.LinAlgError):
        return False


def chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Cut a sequence into parts of at most `size`."""
    edges = [*range(0, len(items), size), len(items)]
    return [items[start:stop] for start, stop in pairwise(edges)]


def judge_chunk(pairs: Sequence[Pair]) -> list[Judged]:
    """Judge several pairs in one task."""
    return [judge(pair) for pair in pairs]
