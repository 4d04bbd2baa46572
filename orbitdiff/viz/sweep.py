"""Maps of a sweep: error, gradient noise, effective samples and cost over two axes."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from orbitdiff.errors import BadInput
from orbitdiff.viz.style import INK, MATCH, figure_file

__all__ = ["sweep_maps"]

PREFERRED = ("num_samples", "temperature")
LABELS = {"num_samples": "K, sampled group elements", "temperature": "temperature of the weights"}
COLUMN, ROW, MARGIN = 0.62, 0.5, 1.15
"""Inches of a cell and of what stands around a map."""


class Panel(NamedTuple):
    """A figure of the sweep: key, title, colours, and the factor of what is written."""

    key: str
    title: str
    colours: str
    unit: float = 1.0


PANELS = (
    Panel("validation_error", "validation error", "viridis_r"),
    Panel("gradient_variance", "gradient variance, frozen network", "magma_r"),
    Panel("ess", "effective sample size", "cividis"),
    Panel("step_seconds", "ms per step", "YlOrBr", 1e3),
)

Row = Mapping[str, Any]


def sweep_maps(points: Sequence[Row], path: Path, *, title: str) -> Path:
    """Draw a heat map of each figure; the exact estimator is a column of its own.

    Parameters
    ----------
    points : sequence of mappings
        `values` (axis to value, None without effect), `exact`, `complete`, and each figure as
        {"mean": ...} or None.
    path : Path
        PNG.
    title : str

    Raises
    ------
    BadInput
        No point.

    Notes
    -----
    Axes other than those of the map have a row of maps for each of their values. Colours are
    logarithmic where values span more than a factor of three, and shared by all rows of maps. The
    lowest error has a frame; points that did not finish with every seed are hatched.
    """
    if not points:
        raise BadInput("expected at least one point of a sweep, got none")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    points = with_estimator_axis(points)
    across, up, rest = axes_of(points)
    facets = facets_of(points, rest)
    columns, rows = levels(points, across), levels(points, up)
    width = COLUMN * (len(columns) + 1.6) + MARGIN
    height = ROW * len(rows) + MARGIN
    figure, panels = plt.subplots(
        len(facets), len(PANELS), squeeze=False, layout="constrained",
        figsize=(width * len(PANELS), height * len(facets) + 0.4),
    )  # fmt: skip
    figure.suptitle(title, color=INK, fontsize=12, x=0.01, ha="left")
    for column, panel in enumerate(PANELS):
        norm = scale([value for point in points if (value := mean(point, panel)) is not None])
        for line, (name, mine) in enumerate(facets):
            axes = panels[line][column]
            draw_map(axes, mine, panel, norm, across, up, columns, rows)
            axes.set_title(panel.title, fontsize=10, loc="left", color=INK)
            axes.set_xlabel(LABELS.get(across, across))
            if column == 0:
                axes.set_ylabel("\n".join(filter(None, (name, LABELS.get(up, up)))))
    return figure_file(figure, path)


def is_own(points: Sequence[Row], axis: str) -> bool:
    """True for an axis of the sampled estimators alone, which the exact points do not have."""
    return all(point["values"].get(axis) is None for point in points if point["exact"])


def with_estimator_axis(points: Sequence[Row]) -> list[Row]:
    """Add an axis of a single value where all axes concern the exact estimator too."""
    if any(is_own(points, axis) for axis in points[0]["values"]):
        return list(points)
    return [
        {**point, "values": {"estimator": None if point["exact"] else "sampled", **point["values"]}}
        for point in points
    ]


def axes_of(points: Sequence[Row]) -> tuple[str, str, list[str]]:
    """Axis across (none that exact has), axis up (empty for a sweep over one), and the others."""
    known = list(points[0]["values"])
    ordered = [name for name in PREFERRED if name in known]
    ordered += [name for name in known if name not in ordered]
    ordered.sort(key=lambda name: not is_own(points, name))
    return ordered[0], ordered[1] if len(ordered) > 1 else "", ordered[2:]


def facets_of(points: Sequence[Row], rest: Sequence[str]) -> list[tuple[str, list[Row]]]:
    """Points of each combination of the other axes, with the exact points that go with it."""
    found = []
    for chosen in itertools.product(*(levels(points, axis) for axis in rest)):
        mine = [point for point in points if fits(point, dict(zip(rest, chosen, strict=True)))]
        if any(not point["exact"] for point in mine):
            name = ", ".join(f"{axis} {value}" for axis, value in zip(rest, chosen, strict=True))
            found.append((name, mine))
    return found or [("", list(points))]


def fits(point: Row, chosen: Mapping[str, Any]) -> bool:
    """A value that has no effect goes with every one."""
    return all(point["values"][axis] in (None, value) for axis, value in chosen.items())


def levels(points: Sequence[Row], axis: str) -> list[Any]:
    """Values of an axis, sorted; words in their order, None alone where nothing has a value."""
    found = dict.fromkeys(point["values"].get(axis) for point in points if not point["exact"])
    known = [value for value in found if value is not None]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        known.sort()
    return known or [None]


def mean(point: Row, panel: Panel) -> float | None:
    """Mean over seeds in the panel's unit."""
    found = point[panel.key]
    return None if found is None else float(found["mean"]) * panel.unit


def scale(values: Sequence[float]) -> Any:
    """Colour scale: logarithmic where the values span more than a factor of three."""
    from matplotlib.colors import LogNorm, Normalize

    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low > 0 and high > 3 * low:
        return LogNorm(low, high)
    return Normalize(low, high if high > low else low + max(abs(low), 1.0))


def draw_map(
    axes: Any,
    points: Sequence[Row],
    panel: Panel,
    norm: Any,
    across: str,
    up: str,
    columns: Sequence[Any],
    rows: Sequence[Any],
) -> None:
    """Cells with their values; exact at the right, apart."""
    from matplotlib import colormaps

    colours = colormaps[panel.colours]
    sampled = [point for point in points if not point["exact"]]
    known = [point for point in sampled if mean(point, panel) is not None]
    lowest = min(known, key=lambda point: mean(point, panel) or 0.0, default=None)
    for point in sampled:
        for x in places(point["values"].get(across), columns):
            for y in places(point["values"].get(up), rows):
                framed = point is lowest and panel.key == "validation_error"
                draw_cell(axes, x, y, 1, point, panel, colours, norm, framed=framed)
    end = float(len(columns))
    for point in points:
        if point["exact"]:
            middle = [y for y in places(point["values"].get(up), rows)]
            draw_cell(axes, end + 0.3, min(middle), len(middle), point, panel, colours, norm)
    ticks = [str(value) if value is not None else "–" for value in columns]
    axes.set_xticks([*range(len(columns)), end + 0.3], [*ticks, "exact"])
    shown = [str(value) if value is not None else "" for value in rows]
    axes.set_yticks(range(len(rows)), shown)
    axes.set_xlim(-0.5, end + 0.8)
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def places(value: Any, known: Sequence[Any]) -> list[int]:
    """Index of a value; every index for one without effect."""
    return list(range(len(known))) if value is None else [known.index(value)]


def draw_cell(
    axes: Any,
    x: float,
    y: int,
    height: int,
    point: Row,
    panel: Panel,
    colours: Any,
    norm: Any,
    *,
    framed: bool = False,
) -> None:
    """One rectangle with its number; grey where there is none, hatched where seeds are missing."""
    from matplotlib.patches import Rectangle

    value = mean(point, panel)
    face = "#eeeeee" if value is None else colours(norm(value))
    axes.add_patch(
        Rectangle((x - 0.5, y - 0.5), 1, height, facecolor=face, edgecolor="white", lw=1.5)
    )
    if not point["complete"]:
        axes.add_patch(
            Rectangle((x - 0.5, y - 0.5), 1, height, fill=False, hatch="///", edgecolor="white",
                      lw=0)
        )  # fmt: skip
    if framed:
        axes.add_patch(
            Rectangle((x - 0.44, y - 0.44), 0.88, height - 0.12, fill=False, edgecolor=MATCH, lw=2)
        )
    light = value is not None and sum(w * c for w, c in zip((0.3, 0.59, 0.11), face, strict=False))
    axes.text(x, y + (height - 1) / 2, written(value), ha="center", va="center", fontsize=8,
              color=INK if value is None or light > 0.5 else "white")  # fmt: skip


def written(value: float | None) -> str:
    """Three digits, powers of ten where numbers are long."""
    if value is None:
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
        return f"{value:.{min(digits, 4)}f}"
    return f"{value:.1e}"
