"""Static figures: validation distance by steps and noise level, ESS, calls of the network."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orbitdiff.errors import BadInput
from orbitdiff.viz.style import arm_colour, arm_label, figure_file, plain_axes

__all__ = [
    "calls_curve",
    "distance_by_level",
    "distance_lines",
    "empty",
    "ess_by_level",
    "learning_curves",
    "level_bars",
    "log_levels",
    "log_values",
    "match_rate_by_steps",
    "seed_lines",
    "validations",
]

History = Sequence[Mapping[str, Any]]
Look = Callable[[str], tuple[str, str]]
"""Colour and label of an arm."""

DISTANCE = "mean-square distance to the exact\ntranslation × permutation target"


def shared_look(arm: str) -> tuple[str, str]:
    """Colour and label as all figures of the estimators have them."""
    return arm_colour(arm), arm_label(arm)


def canvas(*, width: float = 7.6, height: float = 4.3) -> tuple[Any, Any]:
    """Make a figure with one pair of axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height), constrained_layout=True)
    plain_axes(axes)
    return figure, axes


def validations(history: History) -> list[Mapping[str, Any]]:
    """Validation records with a distance."""
    return [row for row in history if row.get("kind") == "validation" and "distance_mean" in row]


def distance_lines(
    arms: Mapping[str, Sequence[History]],
) -> dict[str, list[dict[int, float]]]:
    """Validation distance by step, of each seed of each arm."""
    return {
        name: [{row["step"]: row["distance_mean"] for row in validations(history)}
               for history in histories]
        for name, histories in arms.items()
    }  # fmt: skip


def empty(axes: Any, text: str) -> None:
    """Say why a figure shows nothing."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#888888")


def learning_curves(arms: Mapping[str, Sequence[History]], path: Path) -> Path:
    """Draw the validation distance against steps: thin lines per seed, thick their mean.

    Parameters
    ----------
    arms : mapping of estimator to the histories of its seeds
        Arms without a validation record are left out.
    path : Path
        PNG.
    """
    figure, axes = canvas()
    axes.set_ylabel(DISTANCE)
    if seed_lines(axes, distance_lines(arms)):
        log_values(axes)
    else:
        empty(axes, "no run has a validation record")
    return figure_file(figure, path)


def match_rate_by_steps(
    arms: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], path: Path
) -> Path:
    """Draw the match rate against training steps: thin lines per seed, thick their mean.

    Parameters
    ----------
    arms : mapping of estimator to the points of its seeds
        Points hold `step` and `match_rate_all`.
    path : Path
        PNG.
    """
    figure, axes = canvas()
    lines = {
        name: [{point["step"]: point["match_rate_all"] for point in points} for points in seeds]
        for name, seeds in arms.items()
    }
    axes.set_ylabel("match rate (rule: all)")
    if seed_lines(axes, lines):
        axes.set_ylim(bottom=0)
    else:
        empty(axes, "no run has a curve over steps")
    return figure_file(figure, path)


def seed_lines(
    axes: Any, arms: Mapping[str, Sequence[Mapping[int, float]]], *, look: Look = shared_look
) -> bool:
    """Draw values by step: thin lines per seed, thick their mean; False where there are none.

    Parameters
    ----------
    axes : matplotlib axes
    arms : mapping of arm to {step: value} of each seed
    look : callable
    """
    drawn = False
    for name, seeds in arms.items():
        lines = [line for line in seeds if line]
        if not lines:
            continue
        drawn = True
        tone, title = look(name)
        for line in lines:
            axes.plot(*zip(*sorted(line.items()), strict=True), color=tone, lw=0.9, alpha=0.45)
        shared = sorted(set.intersection(*(set(line) for line in lines)))
        means = [float(np.mean([line[step] for line in lines])) for step in shared]
        many = f"{len(lines)} seeds" if len(lines) > 1 else "1 seed"
        axes.plot(shared, means, color=tone, lw=2.2, label=f"{title} ({many})",
                  marker="o" if len(shared) < 3 else None)  # fmt: skip
    axes.set_xlabel("training steps")
    if drawn:
        axes.legend(frameon=False)
    return drawn


def distance_by_level(arms: Mapping[str, Sequence[History]], path: Path) -> Path:
    """Draw the last validation distance against the noise level, bars from min to max of seeds.

    Parameters
    ----------
    arms : mapping of estimator to the histories of its seeds
    path : Path
        PNG.
    """
    figure, axes = canvas()
    levels = level_bars(axes, arms, shift=1.025)
    axes.set_xlabel("noise level σ of the fractional coordinates (fractions of a period)")
    axes.set_ylabel(DISTANCE)
    if levels:
        log_levels(axes, levels)
        log_values(axes)
        axes.legend(frameon=False)
    else:
        empty(axes, "no run has a validation record by noise level")
    return figure_file(figure, path)


def level_bars(
    axes: Any,
    arms: Mapping[str, Sequence[History]],
    *,
    shift: float = 1.0,
    look: Look = shared_look,
) -> list[float]:
    """Draw the last distance by level with bars from min to max of the seeds; the levels drawn.

    Parameters
    ----------
    axes : matplotlib axes
    arms : mapping of arm to the histories of its seeds
    shift : float
        Factor between the levels of neighbouring arms, so that their bars stand side by side.
    look : callable
    """
    known = {
        name: [validations(history)[-1]["distance"] for history in histories if
               validations(history) and validations(history)[-1].get("distance")]
        for name, histories in arms.items()
    }  # fmt: skip
    known = {name: finals for name, finals in known.items() if finals}
    for index, (name, finals) in enumerate(known.items()):
        tone, title = look(name)
        levels = sorted(set.intersection(*(set(final) for final in finals)), key=float)
        values = np.array([[final[level] for level in levels] for final in finals])
        x = np.array([float(level) for level in levels]) * shift ** (index - len(known) / 2)
        centre = values.mean(0)
        bars = np.stack([centre - values.min(0), values.max(0) - centre]).clip(min=0)
        axes.errorbar(x, centre, yerr=bars if len(finals) > 1 else None, fmt="o-", ms=4.5, lw=1.6,
                      capsize=2.5, color=tone, label=title)  # fmt: skip
    return sorted({float(level) for finals in known.values() for level in finals[0]})


def ess_by_level(arms: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    """Draw the effective sample size of sampled estimators against the noise level.

    Parameters
    ----------
    arms : mapping of estimator to {"num_samples": K, "ess": {sigma: mean over crystals}}
    path : Path
        PNG.

    Raises
    ------
    BadInput
        No arm.
    """
    if not arms:
        raise BadInput("expected at least one sampled estimator, got none")
    figure, axes = canvas()
    levels = sorted({float(level) for arm in arms.values() for level in arm["ess"]})
    for name, arm in arms.items():
        pairs = sorted((float(level), value) for level, value in arm["ess"].items())
        axes.plot(*zip(*pairs, strict=True), "o-", ms=4.5, lw=1.8, color=arm_colour(name),
                  label=f"{arm_label(name)}, K = {arm['num_samples']}")  # fmt: skip
    for count in sorted({int(arm["num_samples"]) for arm in arms.values()}):
        axes.axhline(count, color="#bbbbbb", lw=1, ls="--")
        axes.annotate(f"K = {count}", (levels[0], count), xytext=(0, 3),
                      textcoords="offset points", fontsize=8, color="#888888")  # fmt: skip
    log_levels(axes, levels)
    log_values(axes)
    axes.set_ylim(bottom=1)
    axes.set_xlabel("noise level σ of the fractional coordinates (fractions of a period)")
    axes.set_ylabel("effective sample size 1 / Σ w²")
    axes.legend(frameon=False)
    return figure_file(figure, path)


def calls_curve(points: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Draw the match rate against the number of network calls, a line per estimator and sampler.

    Parameters
    ----------
    points : sequence of {"estimator", "sampler", "calls", "match_rate_all"}
    path : Path
        PNG.

    Raises
    ------
    BadInput
        No point.
    """
    if not points:
        raise BadInput("expected at least one sampler setting, got none")
    figure, axes = canvas()
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for point in points:
        key = (str(point["estimator"]), str(point["sampler"]))
        lines.setdefault(key, []).append((int(point["calls"]), float(point["match_rate_all"])))
    samplers = list(dict.fromkeys(sampler for _, sampler in lines))
    for (name, sampler), line in lines.items():
        style = ("o-", "s--", "^:", "D-.")[samplers.index(sampler) % 4]
        axes.plot(*zip(*sorted(line), strict=True), style, ms=5, lw=1.8,
                  color=arm_colour(name), label=f"{arm_label(name)}, {sampler}")  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("network calls per structure")
    axes.set_ylabel("match rate (rule: all)")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return figure_file(figure, path)


def log_levels(axes: Any, levels: Sequence[float]) -> None:
    """Logarithmic axis of noise levels with a tick at each, thinned where they crowd."""
    axes.set_xscale("log")
    shown: list[float] = []
    for level in levels:
        if not shown or level / shown[-1] > 1.25:
            shown.append(level)
    axes.set_xticks(shown, [f"{level:g}" for level in shown])
    axes.set_xticks([], minor=True)


def log_values(axes: Any) -> None:
    """Logarithmic vertical axis with plain numbers at 1, 2, 3, 5 of each decade."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
