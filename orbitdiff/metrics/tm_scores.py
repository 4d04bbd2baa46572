"""Diversity and novelty of chains by TM-score after structural alignment (TM-align)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orbitdiff.data.protein_chain import Backbone
from orbitdiff.errors import BadInput, MissingExtra
from orbitdiff.metrics.base import Map, MetricResult

__all__ = ["Nearest", "clusters", "diversity", "novelty", "pairwise_tm", "tm_score"]

SAME_FOLD = 0.5
CHUNK = 64
SHORTEST = 3
"""Residues; TM-align aligns no less."""


def tm_score(first: NDArray[Any], second: NDArray[Any]) -> tuple[float, float]:
    """TM-score of two chains, over the length of the first and over that of the second.

    Parameters
    ----------
    first, second : (L, 3), angstrom
        CA atoms; lengths may differ.

    References
    ----------
    Zhang, Skolnick 2005 (TM-align).
    """
    try:
        from tmtools import tm_align
    except ImportError as error:
        raise MissingExtra.naming("tmtools", "protein") from error
    if min(len(first), len(second)) < SHORTEST:
        raise BadInput(f"expected chains of at least {SHORTEST} residues to align, got fewer")
    a, b = (np.ascontiguousarray(ca, dtype=np.float64) for ca in (first, second))
    found = tm_align(a, b, "A" * len(a), "A" * len(b))
    return float(found.tm_norm_chain1), float(found.tm_norm_chain2)


def _pairs(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> list[tuple[float, float]]:
    return [tm_score(first, second) for first, second in pairs]


def pairwise_tm(chains: Sequence[NDArray[Any]], *, parallel: Map) -> NDArray[np.float64]:
    """TM-scores of all pairs, (M, M): entry (i, j) is over the length of chain i.

    Parameters
    ----------
    chains : sequence of (L, 3), angstrom
    parallel : Map
        An executor's `map`.
    """
    places = list(combinations(range(len(chains)), 2))
    pairs = [(np.asarray(chains[i]), np.asarray(chains[j])) for i, j in places]
    chunks = [pairs[start : start + CHUNK] for start in range(0, len(pairs), CHUNK)]
    found = [two for part in parallel(_pairs, chunks, description="align pairs") for two in part]
    scores = np.eye(len(chains))
    for (i, j), (over_i, over_j) in zip(places, found, strict=True):
        scores[i, j], scores[j, i] = over_i, over_j
    return scores


def clusters(scores: NDArray[Any], *, threshold: float = SAME_FOLD) -> list[list[int]]:
    """Greedy set cover: again and again the chain with most unassigned neighbours and these.

    Parameters
    ----------
    scores : (M, M)
        TM-scores; two chains are neighbours where both directions reach the threshold.
    threshold : float

    Returns
    -------
    list of lists
        Members of each cluster, its representative first.
    """
    near = np.minimum(scores, scores.T) >= threshold
    np.fill_diagonal(near, True)
    free = np.ones(len(near), dtype=bool)
    found = []
    while free.any():
        counts = np.where(free, (near & free).sum(1), 0)
        best = int(counts.argmax())
        members = np.flatnonzero(near[best] & free).tolist()
        found.append([best, *(member for member in members if member != best)])
        free[members] = False
    return found


def diversity(backbones: Sequence[Backbone], *, parallel: Map) -> dict[str, Any]:
    """Mean TM-score of pairs of different chains, clusters at 0.5, and clusters per chain.

    The score of a pair is the mean of both directions. With chains of several lengths, compare
    sets of the same lengths only.

    Parameters
    ----------
    backbones : sequence of Backbone
    parallel : Map

    Returns
    -------
    dict
        chains, mean_tm (None for fewer than two chains), clusters, cluster_ratio.
    """
    if not backbones:
        raise BadInput("expected at least one chain to measure diversity, got none")
    scores = pairwise_tm([backbone.ca for backbone in backbones], parallel=parallel)
    count = len(backbones)
    groups = len(clusters(scores))
    upper = ((scores + scores.T) / 2)[np.triu_indices(count, 1)]
    return {
        "chains": count,
        "mean_tm": float(upper.mean()) if count > 1 else None,
        "clusters": groups,
        "cluster_ratio": groups / count,
    }


@dataclass(frozen=True)
class Nearest:
    """The most similar chain of a reference set, TM-score over the length of the judged chain."""

    id: str
    reference: str
    tm: float


@dataclass(frozen=True)
class _Search:
    judged: Backbone
    references: Sequence[Backbone]


def _nearest(search: _Search) -> Nearest:
    """Align with references by length, near ones first; skip those too short to win."""
    length = len(search.judged)
    best, name = -1.0, ""
    order = sorted(search.references, key=lambda other: abs(len(other) - length))
    for other in order:
        if len(other) / length <= best:
            continue  # at most len(other) residues score, at most 1 each
        score = tm_score(search.judged.ca, other.ca)[0]
        if score > best:
            best, name = score, other.id
    return Nearest(search.judged.id, name, best)


def novelty(
    backbones: Sequence[Backbone], references: Sequence[Backbone], *, parallel: Map
) -> MetricResult[Nearest]:
    """Highest TM-score of each chain to a reference set (the training set): low is novel.

    Parameters
    ----------
    backbones, references : sequences of Backbone
        At least one each.
    parallel : Map

    Returns
    -------
    MetricResult
        Summary: mean_max_tm, and the share of chains with a reference of the same fold (0.5).
    """
    if not backbones or not references:
        raise BadInput(
            f"expected chains and references, got {len(backbones)} and {len(references)}"
        )
    searches = [_Search(backbone, references) for backbone in backbones]
    rows = parallel(_nearest, searches, description="search the training set")
    scores = np.array([row.tm for row in rows])
    summary = {
        "references": len(references),
        "mean_max_tm": float(scores.mean()),
        "known_fold": float((scores >= SAME_FOLD).mean()),
    }
    return MetricResult(rows, summary)
