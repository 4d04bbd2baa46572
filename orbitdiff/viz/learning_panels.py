"""Validation distance against steps where there are many arms: a panel for each group of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from orbitdiff.viz.curves import DISTANCE, History, distance_lines, empty, log_values, seed_lines
from orbitdiff.viz.style import figure_file, plain_axes

__all__ = ["learning_panels"]

ACROSS = 3


def learning_panels(groups: Mapping[str, Mapping[str, Sequence[History]]], path: Path) -> Path:
    """Draw one panel per group on shared axes: thin lines are seeds, thick lines their mean.

    Parameters
    ----------
    groups : mapping of title to {estimator: histories of its seeds}
        Runs without a validation record are left out.
    path : Path
        PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    across = min(ACROSS, max(1, len(groups)))
    down = max(1, -(-len(groups) // across))
    figure, grid = plt.subplots(
        down, across, figsize=(4.2 * across, 3.4 * down), sharex=True, sharey=True,
        squeeze=False, constrained_layout=True,
    )  # fmt: skip
    figure.supylabel(DISTANCE.replace("\n", " "), fontsize=10)
    drawn = False
    for axes, (title, arms) in zip(grid.flat, groups.items(), strict=False):
        plain_axes(axes)
        drawn |= seed_lines(axes, distance_lines(arms))
        axes.set_title(title, fontsize=10)
        axes.xaxis.set_tick_params(labelbottom=True)
        axes.locator_params(axis="x", nbins=5)
    for axes in list(grid.flat)[len(groups) :]:
        axes.set_visible(False)
    if drawn:
        log_values(grid[0, 0])
    else:
        empty(grid[0, 0], "no run has a validation record")
    return figure_file(figure, path)
