"""Curves of the backbones task: errors relative to the first arm, a file for each figure."""

from pathlib import Path
from typing import Any

import pytest

from orbitdiff.errors import BadInput
from orbitdiff.viz.backbone_curves import errors_by_time, relative, training_curves


def history(scale: float, *, times: tuple[str, ...] = ("0.1", "0.5")) -> list[dict[str, Any]]:
    def record(step: int, factor: float) -> dict[str, Any]:
        errors = {time: factor * float(time) for time in times}
        return {
            "kind": "validation", "step": step, "distance_mean": factor, "distance": errors,
            "equivariance_mean": factor, "equivariance": errors,
        }  # fmt: skip

    return [record(100, 3 * scale), record(200, scale)]


def test_errors_are_divided_by_the_mean_of_the_first_arm() -> None:
    arms = {"plain": [history(1.0), history(3.0)], "exact": [history(1.0, times=("0.1", "0.9"))]}
    found = relative(arms)
    ends = {arm: [seed[-1]["distance"] for seed in seeds] for arm, seeds in found.items()}
    assert ends["plain"] == [
        {"0.1": pytest.approx(0.5), "0.5": pytest.approx(0.5)},
        {"0.1": pytest.approx(1.5), "0.5": pytest.approx(1.5)},
    ]
    assert ends["exact"] == [{"0.1": pytest.approx(0.5)}]


def test_figures_are_written(tmp_path: Path) -> None:
    panels = {
        "base": {"plain": [history(1.0)]},
        "fine-tuned": {"plain": [history(1.0)], "tuned_exact": [history(0.9), history(1.1)]},
        "empty": {"exact": []},
    }
    for draw in (training_curves, errors_by_time):
        path = draw(panels, tmp_path / f"{draw.__name__}.png")
        assert path.read_bytes()[:4] == b"\x89PNG"
        with pytest.raises(BadInput, match="at least one group"):
            draw({}, tmp_path / "none.png")
