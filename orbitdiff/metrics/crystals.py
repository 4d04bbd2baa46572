"""Crystal structure prediction: match rate and RMSE, validity, METRe and cRMSE.

A pair matches where pymatgen's StructureMatcher finds a mapping within its tolerances; RMSE is
the displacement divided by (V/N)^(1/3), averaged over matched references only. Definitions and
rules: docs/metrics.md.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from orbitdiff.data.crystals import Crystal, to_structure
from orbitdiff.metrics.base import Map, MetricResult, time_limit

__all__ = [
    "VALIDITY_RULES",
    "Judged",
    "Pair",
    "Tolerances",
    "aggregate",
    "compare_crystals",
    "composition_key",
    "judge",
    "valid_composition",
    "valid_crystal",
    "valid_structure",
]

LARGEST_COMPOSITION_SEARCH = 8
"""Elements; SMACT's search over oxidation states takes minutes above."""

MIN_DISTANCE = 0.5
MIN_VOLUME = 0.1
PAIR_SECONDS = 60.0
CHUNK = 16
VALIDITY_RULES = (
    "all: every pair counts; valid: SMACT composition, distances > 0.5 angstrom, volume > 0.1"
)


@dataclass(frozen=True)
class Tolerances:
    """StructureMatcher's tolerances (published: 0.5, 0.3, 10 degrees)."""

    stol: float = 0.5
    ltol: float = 0.3
    angle_tol: float = 10.0


@dataclass(frozen=True)
class Pair:
    """A generated crystal and the reference that it answers to.

    Attributes
    ----------
    seconds : limit on the time of the comparison
    check_validity : False where only the match is asked for
    """

    id: str
    k: int
    generated: Crystal
    reference: Crystal
    tolerances: Tolerances
    seconds: float = PAIR_SECONDS
    check_validity: bool = True


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
    """Structure and composition valid.

    Parameters
    ----------
    crystal : Crystal
    """
    return valid_structure(crystal) and valid_composition(crystal)


def valid_structure(crystal: Crystal) -> bool:
    """Smallest distance above 0.5 angstrom, volume above 0.1.

    Distances are over periodic images, an atom's own images included.

    Parameters
    ----------
    crystal : Crystal
    """
    structure = to_structure(crystal)
    if not structure.volume > MIN_VOLUME:
        return False
    distances = structure.distance_matrix
    off = distances[~np.eye(len(structure), dtype=bool)]
    shortest = min(float(length) for length in structure.lattice.abc)
    return min([shortest, *off.tolist()]) > MIN_DISTANCE


def valid_composition(crystal: Crystal) -> bool:
    """SMACT: charge-neutral with the more electronegative atoms negative; alloys are valid.

    Parameters
    ----------
    crystal : Crystal
    """
    from pymatgen.core import Composition
    from smact.screening import smact_validity

    numbers, counts = np.unique(crystal.atom_types, return_counts=True)
    whole = Composition(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
    formula = whole.reduced_formula
    if len(Composition(formula)) > LARGEST_COMPOSITION_SEARCH:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return bool(smact_validity(Composition(formula)))
        except (TypeError, ValueError, KeyError, NameError):
            return False  # an element without known oxidation states


def judge(pair: Pair) -> Judged:
    """Compare one pair; a failing or endless comparison is recorded, never raised.

    Parameters
    ----------
    pair : Pair
    """
    failures: list[str] = []

    def attempt(function: Callable[[], Any], default: Any) -> Any:
        try:
            with time_limit(pair.seconds):
                return function()
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}")
            return default

    rmse = attempt(lambda: _rms(pair), None)
    valid = [False, False]
    if pair.check_validity:
        valid = [
            attempt(lambda: valid_crystal(pair.generated), False),
            attempt(lambda: valid_crystal(pair.reference), False),
        ]
    return Judged(pair.id, pair.k, rmse, valid[0], valid[1], "; ".join(failures))


def _rms(pair: Pair) -> float | None:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher(**asdict(pair.tolerances))
    found = matcher.get_rms_dist(to_structure(pair.generated), to_structure(pair.reference))
    return None if found is None else float(found[0])


def aggregate(judged: Sequence[Judged], *, stol: float) -> dict[str, Any]:
    """Match rate, RMSE and cRMSE under both validity rules, at k and at one sample.

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
        JSON types; RMSE is None where nothing matched. With k > 1 the figures of the first
        sample alone stand beside under `..._at_1`.
    """
    samples: dict[str, list[Judged]] = defaultdict(list)
    for row in judged:
        samples[row.id].append(row)
    k = max((len(rows) for rows in samples.values()), default=0)
    out: dict[str, Any] = {"num_references": len(samples), "samples_per_crystal": k}
    out["failures"] = sum(bool(row.failure) for row in judged)
    out |= _rates(list(samples.values()), stol=stol, k=k)
    if k > 1:
        first = [[min(rows, key=lambda row: row.k)] for rows in samples.values()]
        at_1 = _rates(first, stol=stol, k=1)
        out |= {f"{name}_at_1": value for name, value in at_1.items()}
    out["valid_generated"] = float(np.mean([float(row.valid_generated) for row in judged] or [0.0]))
    return out


def _rates(samples: Sequence[Sequence[Judged]], *, stol: float, k: int) -> dict[str, Any]:
    def valid(row: Judged) -> bool:
        return row.valid_generated and (k > 1 or row.valid_reference)

    rules: Mapping[str, Callable[[Judged], bool]] = {"all": lambda row: True, "valid": valid}
    out: dict[str, Any] = {}
    for rule, counts in rules.items():
        best = [
            min((row.rmse for row in rows if row.rmse is not None and counts(row)), default=None)
            for rows in samples
        ]
        matched = [value for value in best if value is not None]
        out[f"match_rate_{rule}"] = len(matched) / max(1, len(best))
        out[f"rmse_{rule}"] = float(np.mean(matched)) if matched else None
        charged = [stol if value is None else value for value in best]
        out[f"crmse_{rule}"] = float(np.mean(charged)) if charged else None
    return out


def compare_crystals(
    pairs: Sequence[Pair], *, unreadable: Sequence[Judged] = (), parallel: Map
) -> MetricResult[Judged]:
    """Judge all pairs in parallel, then aggregate, with METRe over the whole set.

    Parameters
    ----------
    pairs : sequence of Pair
        At least one; all with the same tolerances.
    unreadable : sequence of Judged
        Samples that could not be read; they count as misses of their references.
    parallel : Map
        An executor's `map`.
    """
    judged = [*_judge_all(pairs, parallel, "match structures"), *unreadable]
    tolerances = pairs[0].tolerances
    summary = aggregate(judged, stol=tolerances.stol)
    summary["metre"] = metre(pairs, judged, parallel=parallel)
    summary["matcher"] = asdict(tolerances)
    summary["validity_rules"] = VALIDITY_RULES
    return MetricResult(judged, summary)


def metre(pairs: Sequence[Pair], judged: Sequence[Judged], *, parallel: Map) -> float:
    """Share of references that any generated crystal of the same composition matches (METRe).

    Only references that none of their own samples matches are compared with the others.

    Parameters
    ----------
    pairs : sequence of Pair
    judged : sequence of Judged
        Of these pairs and of unreadable samples.
    parallel : Map

    References
    ----------
    arXiv 2509.12178.
    """
    found = {row.id for row in judged if row.rmse is not None}
    everyone = {row.id for row in judged}
    by_composition: dict[tuple[int, ...], list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_composition[composition_key(pair.generated)].append(pair)
    left = {pair.id: pair.reference for pair in pairs if pair.id not in found}
    others = [
        Pair(name, other.k, other.generated, reference, other.tolerances, other.seconds, False)
        for name, reference in left.items()
        for other in by_composition[composition_key(reference)]
        if other.id != name
    ]
    if others:
        crossed = _judge_all(others, parallel, "match across references (METRe)")
        found |= {row.id for row in crossed if row.rmse is not None}
    return len(found) / max(1, len(everyone))


def composition_key(crystal: Crystal) -> tuple[int, ...]:
    """Reduced composition as a flat tuple, so that cells of different size compare."""
    numbers, counts = np.unique(crystal.atom_types, return_counts=True)
    divisor = int(np.gcd.reduce(counts))
    return (*numbers.tolist(), *(counts // divisor).tolist())


def _judge_all(pairs: Sequence[Pair], parallel: Map, description: str) -> list[Judged]:
    edges = [*range(0, len(pairs), CHUNK), len(pairs)]
    parts = [pairs[start:stop] for start, stop in pairwise(edges)]
    found = parallel(judge_chunk, parts, description=description)
    return [row for part in found for row in part]


def judge_chunk(pairs: Sequence[Pair]) -> list[Judged]:
    """Judge several pairs in one task."""
    return [judge(pair) for pair in pairs]
