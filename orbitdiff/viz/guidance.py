"""Obedience to the text and match rate against the guidance weight."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orbitdiff.viz.curves import empty
from orbitdiff.viz.style import figure_file, plain_axes

__all__ = ["guidance_curve"]

LINES = {
    "match rate": ("#1f5fbf", lambda point: point.get("match_rate_all")),
    "cell": ("#66a61e", lambda point: point["text"]["cell_system"]),
    "crystal system": ("#1a9e77", lambda point: point["text"]["crystal_system"]),
    "space group": ("#d9a400", lambda point: point["text"]["spacegroup"]),
    "elements": ("#e6550d", lambda point: point["text"]["elements"]),
    "formula": ("#8c6bb1", lambda point: point["text"]["formula"]),
}


def guidance_curve(arms: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], path: Path) -> Path:
    """Draw one panel per arm: thin lines are seeds, thick lines their mean.

    Parameters
    ----------
    arms : mapping of arm to the points of each seed
        Points of the stage `guidance`. Shares that are 1 at every weight are left out: where the
        composition is given, it is always obeyed.
    path : Path
        PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(
        1, max(1, len(arms)), figsize=(5.2 * max(1, len(arms)), 4.0), squeeze=False,
        constrained_layout=True,
    )  # fmt: skip
    if not arms:
        empty(panels[0, 0], "no run has a guidance curve")
    for axes, (arm, seeds) in zip(panels[0], arms.items(), strict=False):
        plain_axes(axes)
        for label, (colour, read) in LINES.items():
            lines = [
                {point["guidance"]: read(point) for point in seed if read(point) is not None}
                for seed in seeds
            ]
            values = [value for line in lines for value in line.values()]
            if not values or min(values) == 1:
                continue
            weights = sorted(set.intersection(*(set(line) for line in lines)))
            if len(lines) > 1:
                for line in lines:
                    axes.plot(weights, [line[w] for w in weights], color=colour, lw=0.8, alpha=0.5)
            mean = [sum(line[w] for line in lines) / len(lines) for w in weights]
            axes.plot(weights, mean, "o-", color=colour, lw=2, ms=4, label=label)
        axes.set_title(arm, fontsize=10)
        axes.set_xlabel("guidance weight")
        axes.set_ylabel("share of test crystals")
        axes.legend(frameon=False, fontsize=9)
    return figure_file(figure, path)
