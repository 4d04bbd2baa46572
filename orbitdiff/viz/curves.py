"""Static figures: validation distance against steps and by noise level."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["COLOURS", "distance_by_level", "learning_curves"]

COLOURS = ("#4C72B0", "#DD8452", "#55A868", "#C44E52", "#8172B3", "#937860")

History = Sequence[Mapping[str, Any]]


def learning_curves(arms: Mapping[str, Sequence[History]], path: Path) -> None:
    """Draw the validation distance of each arm against steps, one thin line per seed.

    Parameters
    ----------
    arms : mapping of estimator to the histories of its seeds
    path : Path
        PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.2), constrained_layout=True)
    for colour, (name, histories) in zip(COLOURS, arms.items(), strict=False):
        for index, history in enumerate(histories):
            rows = [row for row in history if row["kind"] == "validation"]
            axis.plot(
                [row["step"] for row in rows],
                [row["distance_mean"] for row in rows],
                color=colour,
                linewidth=1.3,
                alpha=0.8,
                label=name if index == 0 else None,
            )
    axis.set_yscale("log")
    axis.set_xlabel("training steps")
    axis.set_ylabel("squared distance to the exact orbit target")
    axis.grid(alpha=0.3, which="both")
    axis.legend(frameon=False, title="estimator")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def distance_by_level(arms: Mapping[str, Sequence[History]], path: Path) -> None:
    """Draw the last validation distance of each arm against the noise level.

    Parameters
    ----------
    arms : mapping of estimator to the histories of its seeds
    path : Path
        PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.2), constrained_layout=True)
    for colour, (name, histories) in zip(COLOURS, arms.items(), strict=False):
        for index, history in enumerate(histories):
            last = [row for row in history if row["kind"] == "validation"][-1]["distance"]
            levels = sorted(float(level) for level in last)
            values = [last[f"{level:g}"] for level in levels]
            label = name if index == 0 else None
            axis.plot(levels, values, "o-", color=colour, alpha=0.8, markersize=4, label=label)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("noise level sigma (fractional units)")
    axis.set_ylabel("squared distance to the exact orbit target")
    axis.grid(alpha=0.3, which="both")
    axis.legend(frameon=False, title="estimator")
    figure.savefig(path, dpi=130)
    plt.close(figure)
