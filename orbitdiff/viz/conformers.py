"""Static picture: generated conformers on their nearest references, drawn in depth order."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from orbitdiff.errors import BadInput
from orbitdiff.viz.molecule_scene import Overlay, colour, radius, symbol
from orbitdiff.viz.style import INK, figure_file

__all__ = ["REFERENCE", "draw_overlays", "stick_colour"]

REFERENCE = "#8fb4e8"
"""Colour of the reference in all pictures."""
COLUMNS = 4
PIECES = 6
"""Parts of half a bond, each with its own depth, so that near parts hide far ones."""

TILT = np.radians(18.0)
"""Turn about the long axis, so that flat molecules do not lie exactly in the page."""

IN_FRONT = 1000.0
"""The generated conformer is drawn over the reference; depth orders the parts of each."""

HYDROGEN_STICK = "#b4b4b4"
SMALLEST = 2.1
"""Half the height of a panel at least, angstrom, so that small molecules are not blown up."""


def draw_overlays(overlays: Sequence[Overlay], path: Path) -> Path:
    """Draw generated conformers (elements in colour) on references (blue), four to a line.

    Parameters
    ----------
    overlays : sequence of Overlay
        At least one.
    path : Path
        PNG to write.

    Raises
    ------
    BadInput
        Nothing to draw.
    """
    if not overlays:
        raise BadInput("expected at least one pair of conformers to draw, got none")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = min(COLUMNS, len(overlays))
    rows = -(-len(overlays) // columns)
    height = 2.55 * rows + 0.55
    figure, grid = plt.subplots(rows, columns, figsize=(3.1 * columns, height), squeeze=False)
    figure.subplots_adjust(
        left=0.01, right=0.99, top=1 - 0.32 / height, bottom=0.6 / height, wspace=0.04, hspace=0.2
    )
    for axes in grid.flat:
        axes.axis("off")
    for axes, shown in zip(grid.flat, overlays, strict=False):
        draw_overlay(axes, shown)
    legend(figure, overlays)
    return figure_file(figure, path)


def draw_overlay(axes: Any, shown: Overlay) -> None:
    """Draw one pair with its distance above and its SMILES below."""
    turn = np.array([
        [1, 0, 0], [0, np.cos(TILT), -np.sin(TILT)], [0, np.sin(TILT), np.cos(TILT)],
    ])  # fmt: skip
    truth, made = shown.reference @ turn.T, shown.generated @ turn.T
    depth = np.concatenate([truth[:, 2], made[:, 2]])
    low, high = float(depth.min()), float(depth.max())

    def fade(tone: Any, z: float) -> np.ndarray:
        from matplotlib.colors import to_rgb

        base = np.array(to_rgb(tone))
        return np.asarray(base + (1 - base) * 0.4 * (high - z) / max(high - low, 1.0))

    numbers = shown.numbers.tolist()
    for start, end in shown.bonds.tolist():
        light = 1 in (numbers[start], numbers[end])
        draw_bond(axes, truth[start], truth[end], (REFERENCE, REFERENCE), fade, 3.0 if light else 7)
        tones = stick_colour(numbers[start]), stick_colour(numbers[end])
        draw_bond(axes, made[start], made[end], tones, fade, 1.4 if light else 2.8, order=IN_FRONT)
    from matplotlib.patches import Circle

    for (x, y, z), number in zip(made.tolist(), numbers, strict=True):
        size = radius(number) * (0.75 if number == 1 else 0.85)
        axes.add_patch(Circle((x, y), size, facecolor=fade(colour(number), z), edgecolor="#303030",
                              lw=0.6, zorder=IN_FRONT + z + size))  # fmt: skip
    both = np.concatenate([truth, made])[:, :2]
    middle, half = (both.max(0) + both.min(0)) / 2, (both.max(0) - both.min(0)) / 2 + 0.6
    box = axes.get_window_extent()
    tall = max(float(half[1]), float(half[0]) * box.height / box.width, SMALLEST)
    wide = tall * box.width / box.height
    axes.set_xlim(middle[0] - wide, middle[0] + wide)
    axes.set_ylim(middle[1] - tall, middle[1] + tall)
    note = f"{shown.note}: " if shown.note else ""
    axes.set_title(note + shown.verdict, loc="center", fontsize=10, fontweight="bold", color=INK,
                   pad=3)  # fmt: skip
    axes.text(0.5, -0.02, shown.smiles, transform=axes.transAxes, ha="center", va="top",
              fontsize=7.5, color="#666666")  # fmt: skip


def stick_colour(number: int) -> str:
    """Colour of an atom's half of a bond; hydrogen's own would not be seen on white."""
    return HYDROGEN_STICK if number == 1 else colour(number)


def draw_bond(
    axes: Any,
    start: np.ndarray,
    end: np.ndarray,
    tones: tuple[str, str],
    fade: Any,
    width: float,
    *,
    order: float = 100.0,
) -> None:
    """Draw a stick in two halves, each in the colour of its atom."""
    cuts = np.linspace(0, 1, 2 * PIECES + 1)
    points = start + cuts[:, None] * (end - start)
    for place, (first, second) in enumerate(pairwise(points)):
        z = float(first[2] + second[2]) / 2
        tone = tones[0] if place < PIECES else tones[1]
        axes.plot([first[0], second[0]], [first[1], second[1]], color=fade(tone, z), lw=width,
                  solid_capstyle="round", zorder=order + z)  # fmt: skip


def legend(figure: Any, overlays: Sequence[Overlay]) -> None:
    """Reference, generated and the elements, in one line at the bottom."""
    from matplotlib.lines import Line2D

    numbers = sorted({int(number) for shown in overlays for number in shown.numbers})
    handles = [
        Line2D([], [], color=REFERENCE, lw=6, label="nearest reference"),
        Line2D([], [], color="#4d4d4d", lw=2.6, marker="o", ms=6, markeredgecolor="#303030",
               label="generated"),
    ]  # fmt: skip
    handles += [
        Line2D([], [], ls="", marker="o", ms=7, color=colour(number), markeredgecolor="#303030",
               markeredgewidth=0.6, label=symbol(number))
        for number in numbers
    ]  # fmt: skip
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False,
                  fontsize=9, handletextpad=0.5, columnspacing=1.2)  # fmt: skip
