"""Standalone interactive view: generated conformers on their nearest references, in plotly."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from orbitdiff.errors import BadInput, MissingExtra
from orbitdiff.viz.conformers import REFERENCE, stick_colour
from orbitdiff.viz.molecule_scene import Overlay, colour, radius, symbol

__all__ = ["overlay_fragment"]

PIXELS_PER_ANGSTROM = 42.0
STICKS = {"reference": 11, "generated": 6}
"""Widths in pixels."""


def overlay_fragment(overlays: Sequence[Overlay]) -> str:
    """Return the view as an HTML fragment with plotly's script inline and a menu of molecules.

    Parameters
    ----------
    overlays : sequence of Overlay
        At least one.

    Raises
    ------
    BadInput
        Nothing to show.
    MissingExtra
        plotly is not installed.
    """
    if not overlays:
        raise BadInput("expected at least one pair of conformers to show, got none")
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise MissingExtra.naming("plotly", "viz") from error
    figure = go.Figure()
    owners: list[int] = []
    for index, shown in enumerate(overlays):
        for trace in traces(go, shown):
            trace.visible = index == 0
            figure.add_trace(trace)
            owners.append(index)
    buttons = [
        {
            "label": label(shown),
            "method": "update",
            "args": [{"visible": [owner == index for owner in owners]}],
        }
        for index, shown in enumerate(overlays)
    ]
    hidden = {"visible": False}
    figure.update_layout(
        scene={
            "xaxis": hidden, "yaxis": hidden, "zaxis": hidden, "aspectmode": "data",
            "camera": {"projection": {"type": "orthographic"}, "up": {"x": 0, "y": 1, "z": 0},
                       "eye": {"x": 0.2, "y": 0.5, "z": 1.5}},
        },
        height=600, margin={"l": 8, "r": 8, "t": 64, "b": 8},
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#222222"},
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "y": 0.0,
                "itemsizing": "constant"},
        updatemenus=[{"buttons": buttons, "x": 0.0, "xanchor": "left", "y": 1.1,
                      "yanchor": "top", "bgcolor": "white"}],
    )  # fmt: skip
    fragment: str = figure.to_html(
        include_plotlyjs=True,
        include_mathjax=False,
        full_html=False,
        config={"displaylogo": False, "responsive": True},
    )
    return fragment


def label(shown: Overlay) -> str:
    """Line of the menu."""
    note = f"{shown.note}: " if shown.note else ""
    return f"{note}{shown.smiles}  ({shown.verdict})"


def traces(go: Any, shown: Overlay) -> list[Any]:
    """Sticks of both, then the atoms of both."""
    out = []
    for name, points in (("reference", shown.reference), ("generated", shown.generated)):
        x, y, z, tones = sticks(shown, points, name)
        out.append(
            go.Scatter3d(
                x=x, y=y, z=z, mode="lines", name=name, legendgroup=name, hoverinfo="skip",
                line={"color": tones, "width": STICKS[name]},
            )
        )  # fmt: skip
        at = points.round(3)
        elements = [symbol(number) for number in shown.numbers.tolist()]
        out.append(
            go.Scatter3d(
                x=at[:, 0].tolist(), y=at[:, 1].tolist(), z=at[:, 2].tolist(), mode="markers",
                name=name, legendgroup=name, showlegend=False,
                text=[f"{name} {element}{place}" for place, element in enumerate(elements)],
                hovertemplate="%{text} (%{x:.2f}, %{y:.2f}, %{z:.2f}) Å<extra></extra>",
                marker=balls(shown.numbers, name),
            )
        )  # fmt: skip
    return out


def balls(numbers: np.ndarray, name: str) -> dict[str, Any]:
    """Markers of the atoms: small joints in the reference's colour, or elements."""
    if name == "reference":
        return {"size": STICKS[name] - 3, "color": REFERENCE, "opacity": 1.0}
    known: list[int] = numbers.tolist()
    return {
        "size": [round(PIXELS_PER_ANGSTROM * radius(number), 1) for number in known],
        "color": [colour(number) for number in known],
        "line": {"color": "#333333", "width": 1},
        "opacity": 1.0,
    }


def sticks(
    shown: Overlay, points: np.ndarray, name: str
) -> tuple[list[float | None], list[float | None], list[float | None], list[str]]:
    """Half bonds with a gap after each, and the colour of every vertex."""
    places: list[list[float | None]] = [[], [], []]
    tones: list[str] = []
    numbers = shown.numbers.tolist()
    for bond in shown.bonds.tolist():
        middle = points[bond].mean(0)
        for atom in bond:
            for axis in range(3):
                start, end = float(points[atom, axis]), float(middle[axis])
                places[axis] += [round(start, 3), round(end, 3), None]
            tone = REFERENCE if name == "reference" else stick_colour(numbers[atom])
            tones += [tone] * 3
    x, y, z = places
    return x, y, z, tones
