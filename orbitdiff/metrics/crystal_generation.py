"""Crystals drawn without a reference each: validity, uniqueness, novelty, distributions.

Unlike in structure prediction, a generated crystal is no answer to one reference: what counts is
whether it could exist, whether it is there already, and whether the set looks like the real ones.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from orbitdiff.data.crystals import Crystal, to_structure
from orbitdiff.metrics.base import Map, MetricResult, time_limit
from orbitdiff.metrics.crystal_coverage import DEFAULT_CUTOFFS, coverage, fingerprints
from orbitdiff.metrics.crystals import (
    Tolerances,
    composition_key,
    valid_composition,
    valid_structure,
)

__all__ = ["GeneratedRow", "Sample", "judge_generation"]

SECONDS = 60.0
CHUNK = 32
ATOMIC_MASS = 1.66053907
"""Gram per cubic centimetre of one dalton in a cubic angstrom."""


@dataclass(frozen=True)
class Sample:
    """A generated crystal: the id of its prompt, the number of the sample, the crystal."""

    id: str
    k: int
    crystal: Crystal


@dataclass(frozen=True)
class GeneratedRow:
    """Per-sample values.

    Parameters
    ----------
    id : str
    k : int
    formula : str
        Reduced.
    valid_structure, valid_composition : bool
    unique : bool
        No earlier sample of the set is the same crystal.
    novel : bool
        No training crystal is the same.
    density : float
        Gram per cubic centimetre.
    num_elements : int
    """

    id: str
    k: int
    formula: str
    valid_structure: bool
    valid_composition: bool
    unique: bool
    novel: bool
    density: float
    num_elements: int


def judge_generation(
    samples: Sequence[Sample],
    references: Sequence[Crystal],
    training: Sequence[Crystal],
    *,
    tolerances: Tolerances,
    parallel: Map,
    cutoffs: tuple[float, float] = DEFAULT_CUTOFFS,
    with_coverage: bool = True,
) -> MetricResult[GeneratedRow]:
    """Judge a set of generated crystals.

    Two crystals are the same where pymatgen's StructureMatcher finds a mapping within the
    tolerances. Distances of distributions are Wasserstein-1 between valid samples and references.

    Parameters
    ----------
    samples : sequence of Sample
        At least one.
    references : sequence of Crystal
        Test crystals.
    training : sequence of Crystal
    tolerances : Tolerances
    parallel : Map
        An executor's `map`.
    cutoffs : (float, float)
        Of COV: structure and composition.
    with_coverage : bool
        Fingerprints take a tenth of a second per atom.

    Returns
    -------
    MetricResult
    """
    keys = [composition_key(one.crystal) for one in samples]
    known: dict[tuple[int, ...], list[Crystal]] = defaultdict(list)
    for crystal in training:
        known[composition_key(crystal)].append(crystal)
    earlier: dict[tuple[int, ...], list[Crystal]] = defaultdict(list)
    tasks = []
    for key, one in zip(keys, samples, strict=True):
        tasks.append(_Task(one, tuple(earlier[key]), tuple(known.get(key, ())), tolerances))
        earlier[key].append(one.crystal)
    edges = [*range(0, len(tasks), CHUNK), len(tasks)]
    parts = [tasks[start:stop] for start, stop in pairwise(edges)]
    found = parallel(judge_chunk, parts, description="judge generated crystals")
    rows = [row for part in found for row in part]
    summary = aggregate(rows, references)
    summary["matcher"] = asdict(tolerances)
    if with_coverage:
        valid = [
            one.crystal
            for one, row in zip(samples, rows, strict=True)
            if row.valid_structure and row.valid_composition
        ]
        made = [*fingerprints(valid, parallel=parallel), *[None] * (len(rows) - len(valid))]
        truth = fingerprints(references, parallel=parallel)
        summary |= coverage(made, truth, cutoffs=cutoffs)
        summary["cov_cutoffs"] = {"structure": cutoffs[0], "composition": cutoffs[1]}
    return MetricResult(rows, summary)


def aggregate(rows: Sequence[GeneratedRow], references: Sequence[Crystal]) -> dict[str, Any]:
    """Return shares over the set and distances of its distributions to those of references.

    Parameters
    ----------
    rows : sequence of GeneratedRow
    references : sequence of Crystal

    Returns
    -------
    dict
        JSON types; distances are None where no sample is valid.
    """
    from scipy.stats import wasserstein_distance

    def share(counts: Callable[[GeneratedRow], bool]) -> float:
        return sum(map(counts, rows)) / max(1, len(rows))

    def valid(row: GeneratedRow) -> bool:
        return row.valid_structure and row.valid_composition

    def distance(values: Sequence[float], known: Sequence[float]) -> float | None:
        return float(wasserstein_distance(values, known)) if values and known else None

    good = [row for row in rows if valid(row)]
    truth = [composition_figures(crystal) for crystal in references]
    out: dict[str, Any] = {
        "num_samples": len(rows),
        "num_references": len(references),
        "valid_structure": share(lambda row: row.valid_structure),
        "valid_composition": share(lambda row: row.valid_composition),
        "valid": share(valid),
        "unique": share(lambda row: row.unique),
        "novel": share(lambda row: row.novel),
        "valid_unique_novel": share(lambda row: valid(row) and row.unique and row.novel),
    }
    out["density_distance"] = distance(
        [row.density for row in good], [density for _, density, _ in truth]
    )
    out["num_elements_distance"] = distance(
        [row.num_elements for row in good], [number for _, _, number in truth]
    )
    return out


def composition_figures(crystal: Crystal) -> tuple[str, float, int]:
    """Reduced formula, density in g/cm3 and number of elements."""
    structure = to_structure(crystal)
    composition = structure.composition
    volume = max(float(structure.volume), 1e-9)
    density = ATOMIC_MASS * float(composition.weight) / volume
    return composition.reduced_formula, density, len(composition)


@dataclass(frozen=True)
class _Task:
    """A sample with the earlier samples and the training crystals of its composition."""

    sample: Sample
    earlier: tuple[Crystal, ...]
    known: tuple[Crystal, ...]
    tolerances: Tolerances


def judge_chunk(tasks: Sequence[_Task]) -> list[GeneratedRow]:
    """Judge several samples in one task."""
    return [judge_one(task) for task in tasks]


def judge_one(task: _Task) -> GeneratedRow:
    """Judge one sample; a comparison that fails or does not end finds no equal."""
    crystal = task.sample.crystal
    formula, density, number = composition_figures(crystal)
    return GeneratedRow(
        task.sample.id,
        task.sample.k,
        formula,
        valid_structure(crystal),
        valid_composition(crystal),
        not any(same(crystal, other, task.tolerances) for other in task.earlier),
        not any(same(crystal, other, task.tolerances) for other in task.known),
        density,
        number,
    )


def same(first: Crystal, second: Crystal, tolerances: Tolerances) -> bool:
    """Say whether StructureMatcher maps one crystal on the other."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    try:
        with time_limit(SECONDS):
            matcher = StructureMatcher(**asdict(tolerances))
            return bool(matcher.fit(to_structure(first), to_structure(second)))
    except Exception:
        return False
