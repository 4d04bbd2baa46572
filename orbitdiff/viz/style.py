"""One look for all figures: colours of the arms, axes, how a file is written."""

import os
from pathlib import Path
from typing import Any

__all__ = ["INK", "MATCH", "MISS", "arm_colour", "arm_label", "figure_file", "plain_axes"]

INK = "#222222"
MATCH = "#1b7837"
MISS = "#b2182b"
COLOURS = {
    "plain": "#6b6b6b",
    "augmentation": "#8c6bb1",
    "orbdiff_u": "#d9a400",
    "orbdiff_wn": "#e6550d",
    "isir": "#1a9e77",
    "exact": "#1f5fbf",
}
LABELS = {
    "plain": "plain",
    "orbdiff_u": "OrbDiff_U",
    "orbdiff_wn": "OrbDiff_WN",
    "isir": "i-SIR",
    "exact": "exact",
}
SPARE = ("#a6761d", "#e7298a", "#66a61e", "#7570b3", "#17becf")


def arm_colour(arm: str) -> str:
    """Colour of an estimator, the same in all figures."""
    return COLOURS.get(arm) or SPARE[sum(arm.encode()) % len(SPARE)]


def arm_label(arm: str) -> str:
    """Name of an estimator as tables and legends write it."""
    return LABELS.get(arm, arm)


def plain_axes(axes: Any) -> None:
    """Light grid, no box."""
    axes.grid(True, color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def figure_file(figure: Any, path: Path, *, dpi: int = 160) -> Path:
    """Write a figure as PNG under another name, rename it, close it."""
    from matplotlib import pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        figure.savefig(partial, format="png", dpi=dpi, facecolor="white")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
        plt.close(figure)
    return path
