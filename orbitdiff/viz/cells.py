"""Crystal cells: static side-by-side pictures and a standalone interactive view."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orbitdiff.data.crystals import Crystal

__all__ = ["cells_figure", "cells_html"]

PALETTE = ("#4C72B0", "#DD8452", "#55A868", "#C44E52", "#8172B3", "#937860", "#DA8BC3", "#8C8C8C")
TOLERANCE = 0.02


def _drawn(crystal: Crystal) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Cartesian atoms and their elements, atoms on faces and edges repeated."""
    points, types = [], []
    for position, number in zip(crystal.frac % 1.0, crystal.atom_types, strict=True):
        near_zero = position < TOLERANCE
        near_one = position > 1 - TOLERANCE
        choices = [
            (0, 1) if low else ((0, -1) if high else (0,))
            for low, high in zip(near_zero, near_one, strict=True)
        ]
        for shift in product(*choices):
            points.append((position + np.array(shift)) @ crystal.lattice)
            types.append(int(number))
    return np.array(points), np.array(types)


def _edges(lattice: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    corners = {corner: np.array(corner) @ lattice for corner in product((0, 1), repeat=3)}
    return [
        np.stack([corners[a], corners[b]])
        for a, b in product(corners, repeat=2)
        if sum(abs(x - y) for x, y in zip(a, b, strict=True)) == 1 and a < b
    ]


def _symbol(number: int) -> str:
    from pymatgen.core import Element

    return str(Element.from_Z(int(number)).symbol)


def cells_figure(pairs: Sequence[tuple[str, Crystal, Crystal]], path: Path) -> None:
    """Draw reference (top row) and generated cells (bottom row).

    Parameters
    ----------
    pairs : sequence of (title, reference, generated)
    path : Path
        PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = len(pairs)
    figure = plt.figure(figsize=(3.0 * columns, 6.4), constrained_layout=True)
    for column, (title, reference, generated) in enumerate(pairs):
        elements = list(dict.fromkeys(int(number) for number in reference.atom_types))
        for row, (kind, crystal) in enumerate((("reference", reference), ("generated", generated))):
            axis: Any = figure.add_subplot(2, columns, row * columns + column + 1, projection="3d")
            for edge in _edges(crystal.lattice):
                axis.plot(*edge.T, color="#666666", linewidth=0.8)
            points, types = _drawn(crystal)
            for index, number in enumerate(elements):
                chosen = points[types == number]
                if len(chosen):
                    axis.scatter(
                        *chosen.T,
                        s=90,
                        color=PALETTE[index % len(PALETTE)],
                        edgecolors="black",
                        linewidths=0.4,
                        depthshade=False,
                        label=_symbol(number),
                    )
            axis.set_title(f"{title}\n{kind}" if row == 0 else kind, fontsize=9)
            axis.set_axis_off()
            axis.set_box_aspect(np.ptp(np.concatenate([points, *_edges(crystal.lattice)]), axis=0))
            if row == 0:
                axis.legend(fontsize=7, loc="lower left", frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def cells_html(pairs: Sequence[tuple[str, Crystal, Crystal]]) -> str:
    """Return an interactive view as an HTML fragment with inline JavaScript.

    Parameters
    ----------
    pairs : sequence of (title, reference, generated)
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    titles = [title for title, _, _ in pairs] + ["generated"] * len(pairs)
    figure = make_subplots(
        rows=2,
        cols=len(pairs),
        specs=[[{"type": "scene"}] * len(pairs)] * 2,
        subplot_titles=titles,
        horizontal_spacing=0.01,
        vertical_spacing=0.06,
    )
    for column, (_, reference, generated) in enumerate(pairs, start=1):
        elements = list(dict.fromkeys(int(number) for number in reference.atom_types))
        for row, crystal in enumerate((reference, generated), start=1):
            lines = np.concatenate(
                [np.vstack([edge, np.full((1, 3), np.nan)]) for edge in _edges(crystal.lattice)]
            )
            figure.add_trace(
                go.Scatter3d(
                    x=lines[:, 0], y=lines[:, 1], z=lines[:, 2], mode="lines",
                    line={"color": "#888", "width": 2}, hoverinfo="skip", showlegend=False,
                ),
                row=row, col=column,
            )  # fmt: skip
            points, types = _drawn(crystal)
            figure.add_trace(
                go.Scatter3d(
                    x=points[:, 0], y=points[:, 1], z=points[:, 2], mode="markers",
                    text=[_symbol(number) for number in types],
                    hovertemplate="%{text} (%{x:.2f}, %{y:.2f}, %{z:.2f}) A<extra></extra>",
                    marker={
                        "size": 6,
                        "color": [PALETTE[elements.index(n) % len(PALETTE)] for n in types],
                        "line": {"width": 1, "color": "black"},
                    },
                    showlegend=False,
                ),
                row=row, col=column,
            )  # fmt: skip
    figure.update_scenes(
        xaxis_visible=False, yaxis_visible=False, zaxis_visible=False, aspectmode="data"
    )
    figure.update_layout(height=640, margin={"l": 0, "r": 0, "t": 30, "b": 0})
    html: str = figure.to_html(full_html=False, include_plotlyjs=True)
    return html
