"""The figure of a diagnosis: what the average removes, error, effective sample size, cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from orbitdiff.errors import BadInput
from orbitdiff.viz.style import INK, MISS, arm_colour, figure_file, plain_axes

__all__ = ["diagnosis_figure"]

COLOURS = {
    "plain": arm_colour("plain"),
    "exact": arm_colour("exact"),
    "rotations_alone": "#74a9cf",
    "haar": "#d9a400",
    "haar_without_true": MISS,
    "isir": arm_colour("isir"),
}
LABELS = {
    "plain": "plain",
    "exact": "exact",
    "rotations_alone": "exact, rotations alone",
    "haar": "Haar, with the true element",
    "haar_without_true": "Haar, without the true element",
    "isir": "i-SIR around the posterior",
}
WIDTHS = {"plain": 4.0, "haar": 3.0, "rotations_alone": 2.2}
"""Broad lines lie under those that may coincide with them."""
STYLES = (":", "--", "-")
FLOOR = 1e-5
"""Smallest error and share that is drawn."""

Rows = Sequence[Mapping[str, Any]]


def diagnosis_figure(rows: Rows, path: Path, *, title: str, noise_label: str) -> Path:
    """Draw share removed, error, ESS and cost of the estimators.

    Parameters
    ----------
    rows : sequence of mappings
        `noise`, `share`, `estimator`, `num_samples`, `error`, `ess_median`, `microseconds`.
    path : Path
        PNG.
    title : str
    noise_label : str
        With the unit.

    Raises
    ------
    BadInput
        No row.
    """
    if not rows:
        raise BadInput("expected at least one row of a diagnosis, got none")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(2, 2, figsize=(11, 8.6))
    figure.subplots_adjust(left=0.08, right=0.98, top=0.91, bottom=0.155, wspace=0.22, hspace=0.28)
    figure.suptitle(title, color=INK, fontsize=12, x=0.08, y=0.985, ha="left")
    counts = sorted({row["num_samples"] for row in rows if row["num_samples"]})
    shown = dict(
        zip(sorted({counts[0], counts[len(counts) // 2], counts[-1]}), STYLES, strict=False)
    )
    _draw_share(panels[0, 0], rows)
    _draw_errors(panels[0, 1], rows, shown)
    _draw_ess(panels[1, 0], rows, shown)
    _draw_cost(panels[1, 1], rows, counts)
    for axes in panels.flat:
        plain_axes(axes)
    for axes in panels.flat[:3]:
        _log_noise(axes, rows)
        axes.set_xlabel(noise_label)
    _legend(figure, rows, shown)
    return figure_file(figure, path)


def _log_noise(axes: Any, rows: Rows) -> None:
    """Logarithmic axis with plain numbers: 1, 2, 5 of each decade, or 1 alone where many."""
    from matplotlib.ticker import LogLocator, NullLocator

    noise = [row["noise"] for row in rows]
    axes.set_xscale("log")
    subs = (1.0, 2.0, 5.0) if max(noise) / min(noise) < 3000 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")


def _of(rows: Rows, name: str, count: int | None = None) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["estimator"] == name and row["num_samples"] == count]


def _sampled(rows: Rows) -> list[str]:
    """Names of the sampled estimators, in the order of the legend."""
    present = {row["estimator"] for row in rows if row["num_samples"]}
    return [name for name in LABELS if name in present]


def _draw_share(axes: Any, rows: Rows) -> None:
    plain = _of(rows, "plain")
    noise = [row["noise"] for row in plain]
    shares = [100 * row["share"] for row in plain]
    axes.plot(noise, shares, "o-", ms=4, lw=2, color=COLOURS["exact"])
    axes.fill_between(noise, shares, color=COLOURS["exact"], alpha=0.12, lw=0)
    axes.set_ylim(0, 105)
    for level in (10, 50):
        axes.axhline(level, color="#bbbbbb", lw=0.9, ls="--", zorder=1)
    axes.set_yticks([0, 10, 25, 50, 75, 100])
    axes.set_ylabel("% of the target's power")
    axes.set_title("symmetry noise that the exact mean removes", fontsize=10, loc="left")


def _draw_errors(axes: Any, rows: Rows, shown: Mapping[int, str]) -> None:
    whole = ("plain", "rotations_alone")
    lines: list[tuple[str, int | None, str]] = [(name, None, "-") for name in whole]
    lines += [(name, count, style) for name in _sampled(rows) for count, style in shown.items()]
    lowest = 1.0
    for name, count, style in lines:
        points = _of(rows, name, count)
        if not points:
            continue
        errors = [max(row["error"], FLOOR) for row in points]
        lowest = min(lowest, *errors)
        axes.plot([row["noise"] for row in points], errors, ls=style, lw=WIDTHS.get(name, 1.5),
                  color=COLOURS[name], zorder=4 if name == "rotations_alone" else 3)  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(bottom=max(FLOOR, 0.6 * lowest))
    axes.set_ylabel("error: rms |T − T*| / rms |T plain|")
    axes.set_title("distance to the exact mean T*", fontsize=10, loc="left")


def _draw_ess(axes: Any, rows: Rows, shown: Mapping[int, str]) -> None:
    for name in _sampled(rows):
        for count, style in shown.items():
            points = [row for row in _of(rows, name, count) if row["ess_median"] is not None]
            axes.plot([row["noise"] for row in points], [row["ess_median"] for row in points],
                      ls=style, lw=WIDTHS.get(name, 1.5), color=COLOURS[name])  # fmt: skip
    for count in shown:
        axes.axhline(count, color="#cccccc", lw=0.9, zorder=1)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.9)
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_ylabel("effective sample size 1 / Σ w² (median)")
    axes.set_title("effective number of the K elements", fontsize=10, loc="left")


def _draw_cost(axes: Any, rows: Rows, counts: Sequence[int]) -> None:
    for name in _sampled(rows):
        known = [count for count in counts if _of(rows, name, count)]
        costs = [median(row["microseconds"] for row in _of(rows, name, count)) for count in known]
        width = WIDTHS.get(name, 1.5)
        axes.plot(known, costs, "o-", ms=2.5 * width, lw=width, color=COLOURS[name])
    for name in ("plain", "rotations_alone", "exact"):
        points = _of(rows, name)
        if points:
            cost = median(row["microseconds"] for row in points)
            axes.axhline(cost, color=COLOURS[name], lw=2)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_xlabel("K, number of sampled elements")
    axes.set_ylabel("µs per sample (median over levels)")
    axes.set_title("cost of a target", fontsize=10, loc="left")


def _legend(figure: Any, rows: Rows, shown: Mapping[int, str]) -> None:
    """Colours are estimators, line styles are K; below the panels, so that it covers nothing."""
    from matplotlib.lines import Line2D

    present = {row["estimator"] for row in rows}
    handles = [
        Line2D([], [], color=COLOURS[name], lw=2, label=label)
        for name, label in LABELS.items()
        if name in present
    ]
    styles = [
        Line2D([], [], color=INK, ls=style, lw=1.5, label=f"K = {count:,}")
        for count, style in shown.items()
    ]
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.07, 0.015), ncol=3,
                  frameon=False, fontsize=9)  # fmt: skip
    figure.legend(handles=styles, loc="lower right", bbox_to_anchor=(0.98, 0.015), ncol=1,
                  frameon=False, fontsize=9)  # fmt: skip
