"""The same crystals under several models: truth on the left, one column per model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orbitdiff.data.crystals import Crystal
from orbitdiff.errors import BadInput
from orbitdiff.viz.crystals import draw_scene, extent, formula
from orbitdiff.viz.scene import align, make_scene
from orbitdiff.viz.style import INK, MATCH, MISS, figure_file

__all__ = ["Drawn", "draw_grid"]


@dataclass(frozen=True)
class Drawn:
    """A crystal that a model drew, and the RMSE of its match, None where there is none."""

    crystal: Crystal
    rmse: float | None


def draw_grid(
    truth: Sequence[Crystal], models: Mapping[str, Mapping[str, Drawn]], path: Path
) -> Path:
    """Draw one row per test crystal and one column per model, at the scale of the true cell.

    A cell larger than the true one is drawn smaller, so that it has room.

    Parameters
    ----------
    truth : sequence of Crystal
        At least one.
    models : mapping of column title to {id: Drawn}
        A crystal that a model did not draw leaves its place empty.
    path : Path
        PNG.

    Raises
    ------
    BadInput
        Nothing to draw.
    """
    if not truth or not models:
        raise BadInput(f"expected crystals and models, got {len(truth)} and {len(models)}")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = 1 + len(models)
    figure, axes = plt.subplots(
        len(truth), columns, figsize=(1.55 * columns, 1.75 * len(truth)), squeeze=False
    )
    figure.subplots_adjust(left=0.01, right=0.99, top=1 - 0.3 / len(truth),
                           bottom=0.16 / len(truth), wspace=0.06, hspace=0.2)  # fmt: skip
    for row, reference in enumerate(truth):
        scene = make_scene(reference)
        drawn = [found.get(reference.id) for found in models.values()]
        scenes = [None if one is None else make_scene(align(one.crystal, reference))
                  for one in drawn]  # fmt: skip
        size = extent(scene)
        draw_scene(axes[row, 0], scene, size)
        axes[row, 0].text(0.5, -0.02, formula(reference), transform=axes[row, 0].transAxes,
                          ha="center", va="top", fontsize=8, color=INK)  # fmt: skip
        for place, (one, shown) in enumerate(zip(drawn, scenes, strict=True), start=1):
            cell = axes[row, place]
            cell.axis("off")
            if one is None or shown is None:
                continue
            draw_scene(cell, shown, max(size, extent(shown)))
            verdict = "no match" if one.rmse is None else f"{one.rmse:.3f}"
            cell.text(0.5, -0.02, verdict, transform=cell.transAxes, ha="center", va="top",
                      fontsize=8, color=MISS if one.rmse is None else MATCH)  # fmt: skip
    for place, title in enumerate(["ground truth", *models]):
        axes[0, place].set_title(title, fontsize=8.5, fontweight="bold", color=INK, pad=5)
    return figure_file(figure, path, dpi=110)
