"""Static picture: true and generated cells side by side, drawn in depth order."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orbitdiff.data.crystals import Crystal
from orbitdiff.errors import BadInput
from orbitdiff.viz.scene import Comparison, Scene, align, colour, make_scene, radius, symbol
from orbitdiff.viz.style import INK, MATCH, MISS, figure_file

__all__ = ["draw_comparisons", "draw_message"]

COLUMNS = 4
PIECES = 8
"""Parts of an edge, each with its own depth, so that atoms hide what lies behind them."""


def camera(*, azimuth: float = 28.0, elevation: float = 16.0) -> NDArray[np.float64]:
    """Orthographic view: rows are right, up and towards the eye.

    Parameters
    ----------
    azimuth, elevation : float
        Degrees.
    """
    a, e = np.radians([azimuth, elevation])
    towards = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    right = np.array([-np.sin(a), np.cos(a), 0.0])
    return np.stack([right, np.cross(towards, right), towards])


def draw_comparisons(comparisons: Sequence[Comparison], path: Path) -> Path:
    """Draw pairs of cells, true on the left, generated on the right of each pair.

    Parameters
    ----------
    comparisons : sequence of Comparison
        At least one.
    path : Path
        PNG to write.

    Raises
    ------
    BadInput
        Nothing to draw.
    """
    if not comparisons:
        raise BadInput("expected at least one pair of crystals to draw, got none")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = min(COLUMNS, len(comparisons))
    rows = -(-len(comparisons) // columns)
    figure = plt.figure(figsize=(3.5 * columns, 2.5 * rows), layout=None)
    grid = figure.add_gridspec(
        rows, columns, left=0.01, right=0.99, top=1 - 0.1 / rows, bottom=0.02 / rows,
        wspace=0.08, hspace=0.22,
    )  # fmt: skip
    for index, comparison in enumerate(comparisons):
        cell = grid[index // columns, index % columns]
        draw_pair(figure, cell, comparison)
    return figure_file(figure, path)


def draw_pair(figure: Any, place: Any, comparison: Comparison) -> None:
    """Draw one pair into a cell of the grid, with formula, verdict and elements."""
    inner = place.subgridspec(2, 2, height_ratios=[1, 0.2], wspace=0.02, hspace=0.0)
    truth = make_scene(comparison.reference)
    made = make_scene(align(comparison.generated, comparison.reference))
    reach = max(extent(truth), extent(made))
    for column, (scene, label) in enumerate([(truth, "true"), (made, "generated")]):
        axes = figure.add_subplot(inner[0, column])
        draw_scene(axes, scene, reach)
        axes.text(0.5, -0.01, label, transform=axes.transAxes, ha="center", va="top",
                  fontsize=8.5, color="#666666")  # fmt: skip
        if column == 0:
            axes.set_title(
                formula(comparison.reference), loc="left", fontsize=10.5, fontweight="bold",
                color=INK, pad=4,
            )  # fmt: skip
        else:
            tone = MISS if comparison.rmse is None else MATCH
            axes.set_title(comparison.verdict, loc="right", fontsize=9.5, color=tone, pad=4)
    below = figure.add_subplot(inner[1, :])
    below.axis("off")
    numbers = list(dict.fromkeys(sorted(comparison.reference.atom_types.tolist())))
    handles = [
        below.plot([], [], "o", color=colour(z), markeredgecolor="#333333", markeredgewidth=0.6,
                   markersize=7, label=symbol(z))[0]
        for z in numbers
    ]  # fmt: skip
    below.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False,
                 handletextpad=0.05, columnspacing=0.9, fontsize=8.5)  # fmt: skip


def extent(scene: Scene) -> float:
    """Half the width of the square that shows a scene."""
    points = np.concatenate([scene.edges.reshape(-1, 3), scene.positions]) @ camera().T
    return float(np.abs(points[:, :2]).max()) + 0.8


def draw_scene(axes: Any, scene: Scene, reach: float) -> None:
    """Draw edges and shaded atoms, far ones first."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Circle

    view = camera()
    depth = np.concatenate([scene.edges.reshape(-1, 3), scene.positions]) @ view[2]
    low, high = float(depth.min()), float(depth.max())

    def fade(value: float) -> float:
        # rounding may leave a value just outside, which is no colour
        return 0.45 * min(1.0, max(0.0, (high - value) / max(high - low, 1e-9)))

    parts = np.linspace(0, 1, PIECES + 1)
    for start, end in scene.edges @ view.T:
        points = start + parts[:, None] * (end - start)
        for first, second in pairwise(points):
            middle = float(first[2] + second[2]) / 2
            grey = 0.25 + 1.1 * fade(middle)
            axes.plot([first[0], second[0]], [first[1], second[1]], color=(grey,) * 3, lw=1.0,
                      solid_capstyle="round", zorder=10 + middle)  # fmt: skip
    for position, number in zip(scene.positions @ view.T, scene.numbers, strict=True):
        x, y, z = (float(value) for value in position)
        size = radius(int(number))
        base = np.array(to_rgb(colour(int(number))))
        base = base + (1 - base) * fade(z)
        order = 10 + z + size
        axes.add_patch(Circle((x, y), size, facecolor=base, edgecolor="#303030", lw=0.7,
                              zorder=order))  # fmt: skip
        for step, share in enumerate((0.62, 0.3), start=1):
            light = base + (1 - base) * (0.28 * step)
            offset = size * (0.16 * step)
            axes.add_patch(Circle((x - offset, y + offset), size * share, facecolor=light,
                                  edgecolor="none", zorder=order + step * 1e-4))  # fmt: skip
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_aspect("equal")
    axes.axis("off")


def formula(crystal: Crystal) -> str:
    """Formula of one cell with subscripts, elements in order of the periodic table."""
    numbers, counts = np.unique(crystal.atom_types, return_counts=True)
    parts = [
        symbol(z) + (f"$_{{{n}}}$" if n > 1 else "")
        for z, n in zip(numbers.tolist(), counts.tolist(), strict=True)
    ]
    return "".join(parts)


def draw_message(text: str, path: Path) -> Path:
    """Write a figure that only says why there is no picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(7, 1.4))
    figure.text(0.5, 0.5, text, ha="center", va="center", color="#888888")
    return figure_file(figure, path)
