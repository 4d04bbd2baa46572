"""Learning curves of the toy experiment."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orbitdiff.errors import BadInput
from orbitdiff.viz.style import arm_colour, arm_label, figure_file, plain_axes

__all__ = ["toy_curves"]

PANELS = {
    "loss": "training loss (mean of each block of steps)",
    "error": "mean |x − sign(x)| of samples",
}


def toy_curves(
    members: Sequence[tuple[str, int]], history: Sequence[Mapping[str, Any]], path: Path
) -> Path:
    """Draw training loss and sampling error against steps: thin per seed, thick their median.

    Parameters
    ----------
    members : sequence of (arm, seed)
    history : sequence of {"step", "loss", "error"}
        Loss and error hold one number per member.
    path : Path
        PNG.

    Raises
    ------
    BadInput
        Empty history.
    """
    if not history:
        raise BadInput("expected at least one record of the toy's training, got none")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    steps = [row["step"] for row in history]
    arms = list(dict.fromkeys(arm for arm, _ in members))
    figure, panels = plt.subplots(1, 2, figsize=(10.5, 4.2), constrained_layout=True)
    for axes, (key, label) in zip(panels, PANELS.items(), strict=True):
        values = np.array([row[key] for row in history])
        for order, arm in enumerate(arms):
            columns = [index for index, (name, _) in enumerate(members) if name == arm]
            axes.plot(steps, values[:, columns], color=arm_colour(arm), lw=0.6, alpha=0.35)
            axes.plot(steps, np.median(values[:, columns], 1), color=arm_colour(arm), lw=1.8,
                      ls="--" if arm == "augmentation" else "-", zorder=3 + order,
                      label=f"{arm_label(arm)} ({len(columns)} seeds)")  # fmt: skip
        axes.set_yscale("log")
        axes.set_xlabel("training steps")
        axes.set_ylabel(label)
        plain_axes(axes)
    panels[0].legend(frameon=False)
    return figure_file(figure, path)
