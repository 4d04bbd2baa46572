"""The rule that turns the numbers of a diagnosis into one paragraph."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import final

from orbitdiff.diagnosis.arms import Arms
from orbitdiff.diagnosis.measure import LevelResult, Row

__all__ = ["CLOSE", "MUCH", "SOME", "WORTH", "Recommendation", "recommend"]

WORTH = 0.01
"""Below this share at every noise level an average is not worth it."""
SOME, MUCH = 0.10, 0.50
"""Shares whose noise levels are named."""
CLOSE = 0.05
"""Largest error, at any noise level, at which a sampled estimator counts as close to exact."""
USUAL = 1000
"""K at which uniform elements without the true one are judged (OrbDiff_U: 1000)."""


@final
@dataclass(frozen=True)
class Recommendation:
    """What to do, and the numbers that it rests on.

    Parameters
    ----------
    worth_it : bool
    estimator : str
        Kind in params.yaml: that of the exact mean, or plain.
    mean_share : float
        Share of the target's power that the average removes, over the times of training.
    largest_share : float
        At the noise level where it is largest.
    close_samples : int or None
        Least K at which the best unbiased sampled estimator is within `CLOSE` at every level.
    text : str
        One paragraph.
    """

    worth_it: bool
    estimator: str
    mean_share: float
    largest_share: float
    close_samples: int | None
    text: str


def recommend(levels: Sequence[LevelResult], arms: Arms, *, unit: str) -> Recommendation:
    """Recommend an estimator by the thresholds of this module.

    Parameters
    ----------
    levels : sequence of LevelResult
        By ascending noise.
    arms : Arms
    unit : str
        Of the noise levels, such as " Å".

    Returns
    -------
    Recommendation
    """
    mean_share = sum(found.level.weight * found.share for found in levels)
    largest = max(found.share for found in levels)
    ends = f"{levels[0].level.noise:.3g} to {levels[-1].level.noise:.3g}{unit}"
    cost, plain = _cost(levels, "exact"), _cost(levels, "plain")
    if largest < WORTH:
        text = (
            f"Not worth it here: at noise levels of {ends} the average over {arms.elements} "
            f"removes at most {_percent(largest)} of the target's power (less than "
            f"{_percent(WORTH)} everywhere). The posterior over the group is a point: x_t tells "
            f"which element made it. Train on the plain target; the exact mean would cost "
            f"{_number(cost)} µs per sample instead of {_number(plain)}."
        )
        return Recommendation(False, "plain", mean_share, largest, None, text)
    name = "isir" if _rows(levels, "isir") else "haar"
    close = _least_close(levels, name)
    sentences = [
        f"Take the exact mean (estimator kind `{arms.exact_kind}`): over the noise levels "
        f"{ends} the average over {arms.elements} removes {_percent(mean_share)} of the "
        f"target's power, weighed by the times of training, and up to {_percent(largest)}; "
        f"{_where(levels, SOME, unit)}, {_where(levels, MUCH, unit)}.",
        f"It costs {_number(cost)} µs per sample, the plain target {_number(plain)}.",
        _sampled(levels, name, close, cost, unit),
        *_partial(levels, unit),
        _without(levels),
    ]
    return Recommendation(
        True, arms.exact_kind, mean_share, largest, close, " ".join(sentences).strip()
    )


def _rows(levels: Sequence[LevelResult], name: str, count: int | None = None) -> list[Row]:
    """Rows of an estimator, with K or with all K, by ascending noise."""
    return [
        row
        for found in levels
        for row in found.rows
        if row.estimator == name and (count is None or row.num_samples == count)
    ]


def _counts(levels: Sequence[LevelResult], name: str) -> list[int]:
    return sorted({row.num_samples for row in _rows(levels, name) if row.num_samples})


def _cost(levels: Sequence[LevelResult], name: str, count: int | None = None) -> float:
    return median(row.microseconds for row in _rows(levels, name, count))


def _worst(levels: Sequence[LevelResult], name: str, count: int) -> tuple[float, float]:
    """Largest error at K elements, and the noise level of it."""
    rows = _rows(levels, name, count)
    return max((row.error, found.level.noise) for row, found in zip(rows, levels, strict=True))


def _least_close(levels: Sequence[LevelResult], name: str) -> int | None:
    return next(
        (count for count in _counts(levels, name) if _worst(levels, name, count)[0] <= CLOSE), None
    )


def _where(levels: Sequence[LevelResult], share: float, unit: str) -> str:
    """Name the noise levels at which more than a share is removed."""
    above = [found.share > share for found in levels]
    what = f"more than {_percent(share)}"
    if not any(above):
        return f"{what} at no level"
    if all(above):
        return f"{what} at every level"
    noises = [found.level.noise for found in levels]
    first = above.index(True)
    if all(above[first:]):
        return f"{what} from {noises[first]:.3g}{unit} on"
    named = [f"{noise:.3g}" for noise, high in zip(noises, above, strict=True) if high]
    return f"{what} at {', '.join(named)}{unit}"


def _sampled(
    levels: Sequence[LevelResult], name: str, close: int | None, cost: float, unit: str
) -> str:
    """Say what sampling would cost instead."""
    what = "around the posterior" if name == "isir" else "with Haar elements"
    if close is not None:
        price = _cost(levels, name, close)
        return (
            f"i-SIR {what} comes within {_percent(CLOSE)} of it at every level "
            f"with K = {close:,}, at {_number(price)} µs per sample, {_number(price / cost)} times "
            "the exact mean."
        )
    count = _counts(levels, name)[-1]
    error, noise = _worst(levels, name, count)
    price = _cost(levels, name, count)
    return (
        f"i-SIR {what} does not come within {_percent(CLOSE)} of it with up to "
        f"K = {count:,}: the error is {_percent(error)} at {noise:.3g}{unit}, at {_number(price)} "
        f"µs per sample, {_number(price / cost)} times the exact mean."
    )


def _partial(levels: Sequence[LevelResult], unit: str) -> list[str]:
    """Say what the mean over rotations alone leaves, where permutations count too."""
    rows = _rows(levels, "rotations_alone")
    if not rows:
        return []
    error, noise = max(
        (row.error, found.level.noise) for row, found in zip(rows, levels, strict=True)
    )
    return [
        f"The mean over rotations alone is up to {_percent(error)} away from it (at "
        f"{noise:.3g}{unit}), and so are the sampled ones, which know no automorphisms."
    ]


def _without(levels: Sequence[LevelResult]) -> str:
    """Say how often uniform elements without the true one are worse than no average."""
    known = _counts(levels, "haar_without_true")
    count = max(known[0], max((k for k in known if k <= USUAL), default=known[0]))
    pairs = [
        (row.error, next(r.error for r in found.rows if r.estimator == "plain"))
        for row, found in zip(_rows(levels, "haar_without_true", count), levels, strict=True)
    ]
    worse = [error / plain for error, plain in pairs if error > plain]
    if not worse:
        return (
            f"Haar elements without the true one (K = {count:,}) are biased, though at none of "
            "these levels worse than no average."
        )
    return (
        f"Haar elements without the true one (K = {count:,}) are worse than no average at "
        f"{len(worse)} of {len(levels)} levels, by up to {_number(max(worse))} times: never "
        "train on them."
    )


def _percent(share: float) -> str:
    """Three digits at most; shares next to nothing as such."""
    return f"{100 * share:.3g} %" if share >= 1e-5 else "less than 0.001 %"


def _number(value: float) -> str:
    """Three digits, without an exponent."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:,.{digits}f}" if value < 1000 else f"{float(f'{value:.3g}'):,.0f}"
