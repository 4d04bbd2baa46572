"""COV-R and COV-P of generated crystals, with the fingerprints of CDVAE."""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orbitdiff.data.crystals import Crystal, to_structure
from orbitdiff.errors import MissingExtra
from orbitdiff.metrics.base import Map, time_limit
from orbitdiff.metrics.crystals import valid_structure

__all__ = ["CUTOFFS", "Fingerprint", "coverage", "fingerprints"]

CUTOFFS = {"perov_5": (0.2, 4.0), "mp_20": (0.4, 10.0)}
"""Largest distance of structure and of composition that counts as covered, as CDVAE sets them."""

DEFAULT_CUTOFFS = CUTOFFS["mp_20"]
SECONDS = 60.0
CHUNK = 8


class Fingerprint(NamedTuple):
    """Mean CrystalNN fingerprint of the sites, and Magpie features of the composition."""

    structure: NDArray[np.float64]
    composition: NDArray[np.float64]


@cache
def featurizers() -> tuple[Any, Any]:
    """Return matminer's CrystalNN ("ops") and Magpie presets, as CDVAE takes them."""
    try:
        from matminer.featurizers.composition.composite import ElementProperty
        from matminer.featurizers.site.fingerprint import CrystalNNFingerprint
    except ImportError as error:
        raise MissingExtra.naming("matminer", "text") from error
    return CrystalNNFingerprint.from_preset("ops"), ElementProperty.from_preset(
        "magpie", impute_nan=False
    )


def fingerprint(crystal: Crystal) -> Fingerprint | None:
    """Return the fingerprint of one crystal, None where it is not valid or matminer finds none."""
    import warnings

    # in a cell of no size the search for neighbours does not end
    if not valid_structure(crystal):
        return None
    sites, elements = featurizers()
    structure = to_structure(crystal)
    try:
        with warnings.catch_warnings(), time_limit(SECONDS):
            warnings.simplefilter("ignore")
            rows = [sites.featurize(structure, index) for index in range(len(structure))]
            composition = np.asarray(elements.featurize(structure.composition), dtype=np.float64)
    except Exception:
        return None
    mean = np.asarray(rows, dtype=np.float64).mean(0)
    if not (np.isfinite(mean).all() and np.isfinite(composition).all()):
        return None
    return Fingerprint(mean, composition)


def fingerprints(crystals: Sequence[Crystal], *, parallel: Map) -> list[Fingerprint | None]:
    """Return the fingerprint of each crystal.

    Parameters
    ----------
    crystals : sequence of Crystal
    parallel : Map
    """
    edges = [*range(0, len(crystals), CHUNK), len(crystals)]
    parts = [list(crystals[start:stop]) for start, stop in pairwise(edges)]
    found = parallel(fingerprint_chunk, parts, description="fingerprints")
    return [row for part in found for row in part]


def fingerprint_chunk(crystals: Sequence[Crystal]) -> list[Fingerprint | None]:
    """Find the fingerprints of several crystals in one task."""
    return [fingerprint(crystal) for crystal in crystals]


def coverage(
    generated: Sequence[Fingerprint | None],
    references: Sequence[Fingerprint | None],
    *,
    cutoffs: tuple[float, float] = DEFAULT_CUTOFFS,
) -> dict[str, float]:
    """COV-R and COV-P: who has a neighbour in the other set, by structure and by composition.

    COV-R is the share of references that some generated crystal is near to in both distances,
    COV-P the share of generated crystals near to some reference.

    Parameters
    ----------
    generated : sequence of Fingerprint or None
        None for a crystal that is not valid: it covers nothing and counts in COV-P.
    references : sequence of Fingerprint or None
        Those without one are left out.
    cutoffs : (float, float)
        Of structure and composition.

    Returns
    -------
    dict
        `cov_r`, `cov_p`.

    Notes
    -----
    Source: CDVAE (Xie et al. 2022), with one difference: Magpie features are standardised by the
    references here, by fixed numbers of the Materials Project there.
    """
    near = [one for one in references if one is not None]
    made = [one for one in generated if one is not None]
    if not near or not made:
        return {"cov_r": 0.0, "cov_p": 0.0}
    mean = np.mean([one.composition for one in near], 0)
    deviation = np.std([one.composition for one in near], 0)
    deviation[deviation < 1e-9] = 1.0

    def rows(found: Sequence[Fingerprint]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        structures = np.stack([one.structure for one in found])
        return structures, (np.stack([one.composition for one in found]) - mean) / deviation

    (made_s, made_c), (near_s, near_c) = rows(made), rows(near)
    both = (distances(near_s, made_s) <= cutoffs[0]) & (distances(near_c, made_c) <= cutoffs[1])
    return {
        "cov_r": float(both.any(1).mean()),
        "cov_p": float(both.any(0).sum() / max(1, len(generated))),
    }


def distances(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances between the rows of two tables."""
    square = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
    return np.asarray(np.sqrt(square.clip(min=0)))
