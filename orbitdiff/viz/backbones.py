"""Pictures of protein chains: traces coloured along the chain, CA dihedrals beside natural ones."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orbitdiff.data.protein_chain import Backbone
from orbitdiff.errors import BadInput, MissingExtra
from orbitdiff.metrics.backbones import ca_angles, ca_dihedrals, dihedral_divergence
from orbitdiff.viz.interactive import write_view
from orbitdiff.viz.style import INK, figure_file, plain_axes

__all__ = ["backbones_fragment", "draw_dihedrals", "draw_traces", "smooth", "write_backbones"]

COLUMNS = 5
PANELS = 4
LETTERS = 28
"""Longest line of a label."""
PIECES = 6
"""Straight pieces per residue of a drawn curve."""

COLOURS = "turbo"  # from the first residue (blue) to the last (red)


def smooth(ca: NDArray[Any], *, pieces: int = PIECES) -> NDArray[np.float64]:
    """Catmull-Rom curve through the CA atoms, ((L - 1) pieces + 1, 3).

    Parameters
    ----------
    ca : (L, 3), angstrom
    pieces : int
        Points per residue; every `pieces`-th one is an atom.
    """
    points = np.asarray(ca, dtype=np.float64)
    if len(points) < 2:
        return points
    ends = 2 * points[[0, -1]] - points[[1, -2]]
    padded = np.concatenate([ends[:1], points, ends[1:]])
    before, start, stop, after = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    u = (np.arange(pieces) / pieces)[None, :, None]
    parts = (before, start, stop, after)
    p, q, r, s = (part[:, None] for part in parts)
    curve = q + 0.5 * u * (r - p + u * (2 * p - 5 * q + 4 * r - s + u * (3 * (q - r) + s - p)))
    return np.concatenate([curve.reshape(-1, 3), points[-1:]])


def facing(ca: NDArray[Any]) -> NDArray[np.float64]:
    """The chain centred and turned so that its widest axes lie in the plane of the picture.

    A proper rotation: helices keep their hand.

    Parameters
    ----------
    ca : (L, 3), angstrom
    """
    points = np.asarray(ca, dtype=np.float64)
    points = points - points.mean(0)
    axes = np.linalg.svd(points, full_matrices=True)[2]
    axes[2] *= np.sign(np.linalg.det(axes))
    return np.asarray(points @ axes.T)


def draw_traces(
    backbones: Sequence[Backbone], path: Path, *, labels: Sequence[str] | None = None
) -> Path:
    """Draw chains side by side at one scale, far parts first and paler.

    Parameters
    ----------
    backbones : sequence of Backbone
        At least one.
    path : Path
        PNG to write.
    labels : sequence of str, optional
        Text below each chain; default its length.

    Raises
    ------
    BadInput
        Nothing to draw, or not one label per chain.
    """
    if not backbones or (labels is not None and len(labels) != len(backbones)):
        raise BadInput(
            f"expected chains and one label each, got {len(backbones)} chains"
            + ("" if labels is None else f" and {len(labels)} labels")
        )
    plt = _pyplot()
    columns = min(COLUMNS, len(backbones))
    rows = -(-len(backbones) // columns)
    turned = [facing(backbone.ca) for backbone in backbones]
    wide, high = (max(float(np.abs(ca[:, k]).max()) for ca in turned) + 2 for k in (0, 1))
    size = (2.6 * columns, (2.6 * high / wide + 0.45) * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axes in grid.flat:
        axes.axis("off")
    for index, (axes, ca) in enumerate(zip(grid.flat, turned, strict=False)):
        _draw_trace(axes, ca)
        axes.set_xlim(-wide, wide)
        axes.set_ylim(-high, high)
        axes.set_aspect("equal")
        text = f"{len(ca)} residues" if labels is None else labels[index]
        axes.set_title(fill(text, LETTERS), fontsize=9, color=INK, y=-0.02, va="top")
    return figure_file(figure, path)


def _draw_trace(axes: Any, ca: NDArray[np.float64]) -> None:
    """One tube: a dark line under a coloured one, piece by piece in depth order."""
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    if len(ca) < 2:
        axes.plot(ca[:, 0], ca[:, 1], "o", color=INK)
        return
    curve = smooth(ca)
    pieces = np.stack([curve[:-1], curve[1:]], 1)
    depth = pieces[..., 2].mean(1)
    near = (depth - depth.min()) / max(float(np.ptp(depth)), 1e-9)
    colours = colormaps[COLOURS](np.linspace(0.04, 0.96, len(pieces)))[:, :3]
    pale = 0.55 * (1 - near)[:, None]
    colours = colours * (1 - pale) + pale
    order = np.argsort(depth)
    lines, widths, tones = [], [], []
    # the outline of a piece covers the ends of its neighbours, so these are drawn once more
    for place in order.tolist():
        edge = float(0.2 + 0.55 * (1 - near[place]))
        lines.append(pieces[place][:, :2])
        widths.append(2.4 + 2.0 * near[place])
        tones.append((edge, edge, edge))
        for part in range(max(0, place - 1), min(len(pieces), place + 2)):
            lines.append(pieces[part][:, :2])
            widths.append(1.3 + 1.6 * near[part])
            tones.append(tuple(colours[part]))
    axes.add_collection(
        LineCollection(lines, linewidths=widths, colors=tones, capstyle="round", zorder=2)
    )


def draw_dihedrals(
    chains: dict[str, Sequence[Backbone]], natural: Sequence[Backbone], path: Path
) -> Path:
    """Draw the law of CA angle and dihedral of natural chains beside that of each set.

    Parameters
    ----------
    chains : dict
        Name of a set to its chains.
    natural : sequence of Backbone
    path : Path
        PNG to write.

    Raises
    ------
    BadInput
        No chain of four residues in a set.
    """
    from matplotlib.colors import LogNorm

    plt = _pyplot()
    reference = [backbone.ca for backbone in natural]
    panels = {"natural": reference} | {
        name: [backbone.ca for backbone in group] for name, group in chains.items()
    }
    distances = {name: dihedral_divergence(group, reference) for name, group in panels.items()}
    columns = min(PANELS, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.0 * columns, 3.3 * rows), squeeze=False, sharex=True, sharey=True,
        layout="constrained",
    )  # fmt: skip
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    for axes, (name, group) in zip(grid.flat, panels.items(), strict=False):
        turns = np.concatenate([ca_dihedrals(ca) for ca in group])
        angles = np.concatenate([ca_angles(ca)[:-1] for ca in group if len(ca) > 3])
        counts, x, y = np.histogram2d(turns, angles, bins=(90, 60), range=[(-180, 180), (60, 180)])
        shares = np.ma.masked_equal(counts.T / len(turns), 0)
        image = axes.pcolormesh(x, y, shares, norm=LogNorm(1e-5, 3e-2), cmap="magma_r")
        plain_axes(axes)
        axes.set_xticks([-180, -90, 0, 90, 180])
        axes.set_xlabel("CA dihedral, degrees")
        note = "" if name == "natural" else f"\ndivergence {distances[name]:.3f} bit"
        axes.set_title(fill(name, LETTERS) + note, fontsize=10, color=INK)
        for text, place in (("helix", (50, 70)), ("strand", (-130, 156))):
            axes.text(*place, text, fontsize=8, color="#444444", ha="center")
    for axes in grid[:, 0]:
        axes.set_ylabel("CA angle, degrees")
    figure.colorbar(image, ax=list(grid.flat), label="share of residues", shrink=0.9)
    return figure_file(figure, path)


def backbones_fragment(
    backbones: Sequence[Backbone], *, labels: Sequence[str] | None = None
) -> str:
    """Return an interactive view with a menu of chains, plotly's script inline.

    Parameters
    ----------
    backbones : sequence of Backbone
        At least one.
    labels : sequence of str, optional
        Entries of the menu; default id and length.

    Raises
    ------
    BadInput
        Nothing to show.
    MissingExtra
        plotly is not installed.
    """
    if not backbones:
        raise BadInput("expected at least one chain to show, got none")
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise MissingExtra.naming("plotly", "viz") from error
    names = labels or [f"{item.id} ({len(item)} residues)" for item in backbones]
    figure = go.Figure()
    for index, backbone in enumerate(backbones):
        figure.add_trace(_line(go, backbone, visible=index == 0))
    shown = range(len(backbones))
    buttons = [
        {"label": name, "method": "update", "args": [{"visible": [k == index for k in shown]}]}
        for index, name in enumerate(names)
    ]
    hidden = {"visible": False}
    figure.update_layout(
        scene={"xaxis": hidden, "yaxis": hidden, "zaxis": hidden, "aspectmode": "data",
               "camera": {"projection": {"type": "orthographic"},
                          "eye": {"x": 0.0, "y": 0.0, "z": 1.8}, "up": {"x": 0, "y": 1, "z": 0}}},
        height=600, margin={"l": 8, "r": 8, "t": 60, "b": 8}, showlegend=False,
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        updatemenus=[{"buttons": buttons, "x": 0.0, "xanchor": "left", "y": 1.1, "yanchor": "top",
                      "bgcolor": "white"}],
    )  # fmt: skip
    fragment: str = figure.to_html(
        include_plotlyjs=True,
        include_mathjax=False,
        full_html=False,
        config={"displaylogo": False, "responsive": True},
    )
    return fragment


def _line(go: Any, backbone: Backbone, *, visible: bool) -> Any:
    """One chain as a thick line with the residue in the hover text."""
    curve = smooth(facing(backbone.ca)).round(3)
    number = np.arange(len(curve)) // PIECES
    text = [f"{backbone.sequence[k]}{k + 1}" for k in np.minimum(number, len(backbone) - 1)]
    return go.Scatter3d(
        x=curve[:, 0].tolist(), y=curve[:, 1].tolist(), z=curve[:, 2].tolist(), mode="lines",
        line={"color": number.tolist(), "colorscale": COLOURS, "width": 9}, visible=visible,
        text=text, hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def write_backbones(
    backbones: Sequence[Backbone],
    path: Path,
    *,
    title: str,
    labels: Sequence[str] | None = None,
) -> Path:
    """Write one HTML file with a menu of chains; needs no network and no other file.

    Parameters
    ----------
    backbones : sequence of Backbone
    path : Path
    title : str
    labels : sequence of str, optional
    """
    return write_view(backbones_fragment(backbones, labels=labels), path, title=title)


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtra.naming("matplotlib", "viz") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt
