"""Static figures of the backbones task: training of the network, its errors by time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orbitdiff.errors import BadInput
from orbitdiff.viz.curves import History, empty, level_bars, log_values, seed_lines, validations
from orbitdiff.viz.style import arm_colour as spare_colour
from orbitdiff.viz.style import figure_file, plain_axes

__all__ = ["ARMS", "arm_label", "errors_by_time", "training_curves"]

ARMS = {
    "plain": ("base, plain", "#6b6b6b"),
    "exact": ("base, exact", "#74a9cf"),
    "published": ("base, published", "#fdae6b"),
    "published_true": ("base, published with the true rotation", "#b8860b"),
    "tuned": ("fine-tuned, plain", "#8c6bb1"),
    "tuned_published": ("fine-tuned, published", "#e6550d"),
    "tuned_published_true": ("fine-tuned, published with the true rotation", "#1a9e77"),
    "tuned_exact": ("fine-tuned, exact", "#1f5fbf"),
}
"""Label and colour of the arms, in the order of the tables."""

ERRORS = {
    "distance": "distance to the exact\nmean velocity (Å²)",
    "equivariance": "equivariance error (Å²)",
}

NAMES = {"distance": "distance", "equivariance": "equivariance error"}

Arms = Mapping[str, Sequence[History]]


def arm_label(arm: str) -> str:
    """Name of an arm as tables and legends write it."""
    return ARMS[arm][0] if arm in ARMS else arm


def look(arm: str) -> tuple[str, str]:
    """Colour and label of an arm."""
    return ARMS[arm][1] if arm in ARMS else spare_colour(arm), arm_label(arm)


def training_curves(panels: Mapping[str, Arms], path: Path) -> Path:
    """Draw both errors against steps, a column per panel.

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
    figure, grid = _grid(panels)
    for column, (title, arms) in enumerate(panels.items()):
        for row, key in enumerate(ERRORS):
            lines = {
                arm: [_by_step(history, f"{key}_mean") for history in histories]
                for arm, histories in arms.items()
            }
            axes = grid[row, column]
            if not seed_lines(axes, lines, look=look):
                empty(axes, "no record")
            elif axes.get_legend() is not None:
                axes.get_legend().remove()
            axes.set_ylabel(ERRORS[key] if column == 0 else "")
        _legend_below(grid[-1, column])
        grid[0, column].set_title(title, fontsize=10, loc="left")
    return figure_file(figure, path)


def errors_by_time(panels: Mapping[str, Arms], path: Path) -> Path:
    """Draw both errors at the end of training against time, a column per panel.

    Several arms are drawn relative to the first one of their panel, since they lie close together.

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
    figure, grid = _grid(panels)
    for column, (title, arms) in enumerate(panels.items()):
        for row, key in enumerate(ERRORS):
            axes = grid[row, column]
            named = {
                arm: [_renamed(history, key) for history in histories]
                for arm, histories in arms.items()
            }
            shared = relative(named) if len(named) > 1 else named
            if not level_bars(axes, shared, look=look):
                empty(axes, "no record")
            axes.set_xlim(0, 1)
            axes.set_xlabel("time t (0 data, 1 noise)")
            axes.set_ylabel(ERRORS[key])
            if len(named) > 1:
                axes.set_ylabel(f"{NAMES[key]} / that of\n{arm_label(next(iter(named)))}")
            elif key == "equivariance":
                log_values(axes)
        _legend_below(grid[-1, column])
        grid[0, column].set_title(title, fontsize=10, loc="left")
    return figure_file(figure, path)


def _grid(panels: Mapping[str, Arms]) -> tuple[Any, Any]:
    """Axes with a row per error and a column per panel."""
    if not panels:
        raise BadInput("expected at least one group of arms to draw, got none")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    size = (max(7.6, 4.6 * len(panels)), 6.6)
    figure, grid = plt.subplots(
        len(ERRORS), len(panels), figsize=size, squeeze=False, layout="constrained"
    )
    for axes in grid.flat:
        plain_axes(axes)
    return figure, grid


def relative(arms: Arms) -> dict[str, list[list[dict[str, Any]]]]:
    """Divide the last errors by time by the mean of those of the first arm.

    Parameters
    ----------
    arms : mapping of arm to the histories of its seeds
    """
    ends = {
        arm: [history[-1]["distance"] for history in histories if history]
        for arm, histories in arms.items()
    }
    first = next((found for found in ends.values() if found), [])
    levels = set.intersection(*map(set, first)) if first else set()
    unit = {level: sum(end[level] for end in first) / len(first) for level in levels}

    def divided(end: Mapping[str, float]) -> dict[str, Any]:
        shares = {level: end[level] / unit[level] for level in end if level in unit}
        return {"kind": "validation", "distance_mean": 1.0, "distance": shares}

    return {arm: [[divided(end)] for end in found] for arm, found in ends.items()}


def _legend_below(axes: Any) -> None:
    """Put the names of the lines under a column."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2))


def _by_step(history: History, key: str) -> dict[int, float]:
    return {row["step"]: row[key] for row in validations(history) if key in row}


def _renamed(history: History, key: str) -> list[dict[str, Any]]:
    """Records whose `distance` is another error by time."""
    return [{**row, "distance": row[key]} for row in validations(history) if key in row]
