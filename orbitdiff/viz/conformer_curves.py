"""Static figures of the conformers task: training by coupling, AMR by arm, AMR by calls."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from orbitdiff.errors import BadInput
from orbitdiff.viz.curves import (
    History,
    empty,
    level_bars,
    log_levels,
    log_values,
    seed_lines,
    validations,
)
from orbitdiff.viz.style import INK, figure_file, plain_axes
from orbitdiff.viz.style import arm_colour as spare_colour

__all__ = [
    "ARMS",
    "amr_by_arm",
    "amr_by_calls",
    "arm_label",
    "distance_by_time",
    "training_by_coupling",
]

ARMS = {
    "et_flow": ("ET-Flow", "#6b6b6b"),
    "published": ("published OrbDiff", "#e6550d"),
    "aligned": ("aligned", "#b8860b"),
    "aligned_permutations": ("aligned, permutations", "#8c6bb1"),
    "independent": ("independent", "#74a9cf"),
    "independent_kept": ("independent, exact, prior sample kept", "#41b6c4"),
    "independent_exact": ("independent, exact", "#1f5fbf"),
    "independent_conformers": ("independent, exact, conformers", "#1a9e77"),
    "tuned": ("fine-tuned, plain", "#8a8a8a"),
    "tuned_exact": ("fine-tuned, exact", "#c2185b"),
}
"""Label and colour of the arms, in the order of the tables."""

AMR = {"amr_r_mean": "AMR-R (Å)", "amr_p_mean": "AMR-P (Å)"}
LINES = ("--", ":")

Panels = Mapping[str, Mapping[str, Sequence[History]]]
"""Title of a panel to its arms, each with the histories of its seeds."""


def arm_label(arm: str) -> str:
    """Name of an arm as tables and legends write it."""
    return ARMS[arm][0] if arm in ARMS else arm


def look(arm: str) -> tuple[str, str]:
    """Colour and label of an arm."""
    return ARMS[arm][1] if arm in ARMS else spare_colour(arm), arm_label(arm)


def grid(rows: int, columns: int, *, width: float, height: float) -> tuple[Any, Any]:
    """Make a figure with rows x columns axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        rows, columns, figsize=(width, height), squeeze=False, constrained_layout=True
    )
    for one in axes.flat:
        plain_axes(one)
    return figure, axes


def training_by_coupling(panels: Panels, path: Path) -> Path:
    """Draw loss (above) and validation distance (below) against steps, a column per coupling.

    Parameters
    ----------
    panels : mapping of title to {arm: histories of its seeds}
        Arms of a panel share their yardstick.
    path : Path
        PNG.

    Raises
    ------
    BadInput
        No panel.
    """
    if not panels:
        raise BadInput("expected at least one coupling to draw, got none")
    figure, axes = grid(2, len(panels), width=max(7.6, 3.9 * len(panels)), height=6.6)
    for (title, arms), upper, lower in zip(panels.items(), axes[0], axes[1], strict=True):
        losses = {arm: [values(history, "train", "loss") for history in histories]
                  for arm, histories in arms.items()}  # fmt: skip
        distances = {
            arm: [{row["step"]: row["distance_mean"] for row in validations(history)}
                  for history in histories]
            for arm, histories in arms.items()
        }  # fmt: skip
        for one, lines in ((upper, losses), (lower, distances)):
            if seed_lines(one, lines, look=look):
                one.legend(frameon=False, fontsize=8)
            else:
                empty(one, "no record")
        upper.set_title(title, fontsize=10, loc="left", color=INK)
        upper.set_xlabel("")
    axes[0, 0].set_ylabel("training loss (Å²)")
    axes[1, 0].set_ylabel("distance to the best known\nmean velocity (Å²)")
    return figure_file(figure, path)


def values(history: History, kind: str, key: str) -> dict[int, float]:
    """Value by step of the records of one kind that have it."""
    return {row["step"]: row[key] for row in history if row.get("kind") == kind and key in row}


def distance_by_time(panels: Panels, path: Path) -> Path:
    """Draw the last validation distance against time, a panel per coupling.

    Parameters
    ----------
    panels : mapping of title to {arm: histories of its seeds}
    path : Path
        PNG.

    Raises
    ------
    BadInput
        No panel.
    """
    if not panels:
        raise BadInput("expected at least one coupling to draw, got none")
    figure, axes = grid(1, len(panels), width=max(7.6, 3.9 * len(panels)), height=3.8)
    for (title, arms), one in zip(panels.items(), axes[0], strict=True):
        if level_bars(one, arms, look=look):
            log_axis(one)
            one.legend(frameon=False, fontsize=8)
        else:
            empty(one, "no record")
        one.set_title(title, fontsize=10, loc="left", color=INK)
        one.set_xlim(0, 1)
        one.set_xlabel("time t (0 data, 1 noise)")
    axes[0, 0].set_ylabel("distance to the best known\nmean velocity (Å²)")
    return figure_file(figure, path)


def log_axis(axes: Any) -> None:
    """Logarithmic vertical axis with plain numbers, more of them within one decade."""
    from matplotlib.ticker import LogLocator

    log_values(axes)
    low, high = axes.get_ylim()
    if high < 10 * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0)))


def amr_by_arm(
    blocks: Sequence[Mapping[str, Mapping[str, Sequence[float]]]],
    path: Path,
    *,
    lines: Mapping[str, Mapping[str, float]],
) -> Path:
    """Draw AMR-R and AMR-P of each arm: points are seeds, bars their mean.

    Parameters
    ----------
    blocks : sequence of {arm: {"amr_r_mean", "amr_p_mean": a value per seed}}
        A gap stands between blocks.
    path : Path
        PNG.
    lines : mapping of label to {"amr_r_mean", "amr_p_mean"}
        Drawn over all arms.

    Raises
    ------
    BadInput
        No arm.
    """
    places: list[tuple[float, str, Mapping[str, Sequence[float]]]] = []
    height = 0.0
    for block in blocks:
        for arm, found in block.items():
            places.append((height, arm, found))
            height += 1
        height += 0.6 if block else 0
    if not places:
        raise BadInput("expected at least one arm to draw, got none")
    figure, axes = grid(1, 2, width=10.4, height=1.5 + 0.42 * height)
    for one, (key, label) in zip(axes[0], AMR.items(), strict=True):
        for y, arm, found in places:
            tone = look(arm)[0]
            known = found.get(key, ())
            if known:
                one.plot([mean(known)] * 2, [y - 0.3, y + 0.3], color=tone, lw=3)
                one.plot(known, [y] * len(known), "o", ms=6, color=tone, alpha=0.75,
                         markeredgecolor="white", markeredgewidth=0.7)  # fmt: skip
                one.annotate(f"{mean(known):.3f}", (max(known), y), xytext=(9, 0), va="center",
                             textcoords="offset points", fontsize=8.5, color=tone)  # fmt: skip
        for style, (name, levels) in zip(LINES, lines.items(), strict=False):
            if key in levels:
                one.axvline(levels[key], color=INK, lw=1.2, ls=style, zorder=1, label=name)
        one.set_yticks([y for y, _, _ in places], [arm_label(arm) for _, arm, _ in places])
        one.set_ylim(height - 0.9, -0.7)
        one.set_xlabel(label)
        ends = [value for _, _, found in places for value in found.get(key, ())]
        ends += [levels[key] for levels in lines.values() if key in levels]
        if ends:
            one.set_xlim(0.9 * min(ends), 1.1 * max(ends))
        one.grid(False, axis="y")
    axes[0, 1].set_yticklabels([])
    handles, names = axes[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside lower center", ncols=len(handles),
                      frameon=False, fontsize=9)  # fmt: skip
    return figure_file(figure, path)


def amr_by_calls(arms: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], path: Path) -> Path:
    """Draw AMR against network calls: a colour per arm, a line style per solver, means of seeds.

    Parameters
    ----------
    arms : mapping of arm to the points of its seeds
        Points hold `sampler`, `calls`, `amr_r_mean` and `amr_p_mean`.
    path : Path
        PNG.

    Raises
    ------
    BadInput
        No point.
    """
    points = [(arm, point) for arm, seeds in arms.items() for seed in seeds for point in seed]
    if not points:
        raise BadInput("expected at least one sampler setting, got none")
    samplers = list(dict.fromkeys(str(point["sampler"]) for _, point in points))
    figure, axes = grid(1, 2, width=10.4, height=4.2)
    calls = sorted({int(point["calls"]) for _, point in points})
    for one, (key, label) in zip(axes[0], AMR.items(), strict=True):
        found: dict[tuple[str, str], dict[int, list[float]]] = {}
        for arm, point in points:
            if point[key] is not None:
                line = found.setdefault((arm, str(point["sampler"])), {})
                line.setdefault(int(point["calls"]), []).append(float(point[key]))
        for (arm, sampler), line in found.items():
            tone, title = look(arm)
            style = ("o-", "s--", "^:", "D-.")[samplers.index(sampler) % 4]
            pairs = sorted((count, mean(known)) for count, known in line.items())
            one.plot(*zip(*pairs, strict=True), style, ms=5, lw=1.8, color=tone,
                     label=f"{title}, {sampler}")  # fmt: skip
        log_levels(one, calls)
        one.set_ylim(bottom=0)
        one.set_xlabel("network calls per conformer")
        one.set_ylabel(label)
    axes[0, 0].legend(frameon=False, fontsize=8)
    return figure_file(figure, path)
