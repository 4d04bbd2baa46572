"""Standalone interactive view: true and generated cells in two linked plotly scenes."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from orbitdiff.data.crystals import Crystal
from orbitdiff.errors import BadInput, MissingExtra
from orbitdiff.export import write_atomically
from orbitdiff.viz.scene import Comparison, Scene, align, colour, make_scene, radius, symbol

__all__ = ["interactive_fragment", "write_interactive", "write_view"]

PIXELS_PER_ANGSTROM = 46.0


def write_interactive(comparisons: Sequence[Comparison], path: Path, *, title: str) -> Path:
    """Write one HTML file with a menu of crystals; needs no network and no other file.

    Parameters
    ----------
    comparisons : sequence of Comparison
        At least one.
    path : Path
    title : str

    Raises
    ------
    BadInput
        Nothing to show.
    MissingExtra
        plotly is not installed.
    """
    return write_view(interactive_fragment(comparisons), path, title=title)


def write_view(fragment: str, path: Path, *, title: str) -> Path:
    """Write a fragment as a whole HTML file.

    Parameters
    ----------
    fragment : str
        From `interactive_fragment`, or a sentence that says why there is none.
    path : Path
    title : str
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(
        path,
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title></head>"
        '<body style="font-family:system-ui,sans-serif;color:#222;margin:1rem 1.5rem">'
        f"<h1 style='font-size:1.2rem'>{escape(title)}</h1>{fragment}</body></html>\n",
    )
    return path


def interactive_fragment(comparisons: Sequence[Comparison]) -> str:
    """Return the view as an HTML fragment with plotly's script inline.

    Parameters
    ----------
    comparisons : sequence of Comparison
        At least one.

    Raises
    ------
    BadInput
        Nothing to show.
    MissingExtra
        plotly is not installed.
    """
    if not comparisons:
        raise BadInput("expected at least one pair of crystals to show, got none")
    try:
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots
    except ImportError as error:
        raise MissingExtra.naming("plotly", "viz") from error
    figure = make_subplots(
        1, 2, specs=[[{"type": "scene"}, {"type": "scene"}]], horizontal_spacing=0.02,
        subplot_titles=("true", "generated"),
    )  # fmt: skip
    owners: list[int] = []
    for index, comparison in enumerate(comparisons):
        made = align(comparison.generated, comparison.reference)
        for column, crystal in enumerate((comparison.reference, made), start=1):
            for trace in traces(go, crystal, legend=column == 1):
                trace.visible = index == 0
                figure.add_trace(trace, row=1, col=column)
                owners.append(index)
    buttons = [
        {
            "label": f"{plain_formula(item.reference)}  ({item.verdict})",
            "method": "update",
            "args": [{"visible": [owner == index for owner in owners]}],
        }
        for index, item in enumerate(comparisons)
    ]
    hidden = {"visible": False}
    scene = {
        "xaxis": hidden, "yaxis": hidden, "zaxis": hidden, "aspectmode": "data",
        "camera": {"projection": {"type": "orthographic"},
                   "eye": {"x": 1.5, "y": 0.8, "z": 0.5}},
    }  # fmt: skip
    figure.update_layout(
        scene=scene, scene2=scene, height=560, margin={"l": 8, "r": 8, "t": 84, "b": 8},
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#222222"},
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "y": 0.0,
                "itemsizing": "constant"},
        updatemenus=[{"buttons": buttons, "x": 0.0, "xanchor": "left", "y": 1.16,
                      "yanchor": "top", "bgcolor": "white"}],
    )  # fmt: skip
    fragment: str = figure.to_html(
        include_plotlyjs=True,
        include_mathjax=False,
        full_html=False,
        config={"displaylogo": False, "responsive": True},
    )
    return fragment


def plain_formula(crystal: Crystal) -> str:
    """Formula of one cell without markup."""
    numbers, counts = np.unique(crystal.atom_types, return_counts=True)
    pairs = zip(numbers.tolist(), counts.tolist(), strict=True)
    return "".join(symbol(z) + (str(n) if n > 1 else "") for z, n in pairs)


def traces(go: Any, crystal: Crystal, *, legend: bool) -> list[Any]:
    """Edges, then one set of markers per element."""
    scene: Scene = make_scene(crystal)
    points: list[list[float | None]] = [[], [], []]
    for edge in scene.edges:
        for axis in range(3):
            points[axis] += [float(edge[0, axis]), float(edge[1, axis]), None]
    x, y, z = points
    out = [
        go.Scatter3d(x=x, y=y, z=z, mode="lines", line={"color": "#555555", "width": 4},
                     hoverinfo="skip", showlegend=False)
    ]  # fmt: skip
    for number in dict.fromkeys(sorted(scene.numbers.tolist())):
        at = scene.positions[scene.numbers == number].round(4)
        name = symbol(number)
        out.append(
            go.Scatter3d(
                x=at[:, 0].tolist(), y=at[:, 1].tolist(), z=at[:, 2].tolist(),
                mode="markers", name=name, legendgroup=name, showlegend=legend,
                hovertemplate=name + " (%{x:.2f}, %{y:.2f}, %{z:.2f}) angstrom<extra></extra>",
                marker={"size": PIXELS_PER_ANGSTROM * radius(number), "color": colour(number),
                        "line": {"color": "#333333", "width": 1}, "opacity": 1.0},
            )
        )  # fmt: skip
    return out
