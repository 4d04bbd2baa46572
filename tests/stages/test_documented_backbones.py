"""docs/backbones.md says what the result files say."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = " ".join((ROOT / "docs/backbones.md").read_text().split())
GRADIENTS = json.loads((ROOT / "benchmarks/results/backbone_gradients_cpu.json").read_text())
LEVELS: list[dict[str, Any]] = GRADIENTS["levels"]
TARGETS = {
    "exact": "exact",
    "published, with the true rotation": "published_true",
    "published, without it": "published",
}


@pytest.mark.parametrize("label", TARGETS)
def test_gradient_variance(label: str) -> None:
    values = [f"{level['relative_to_plain'][TARGETS[label]]:.3f}" for level in LEVELS]
    assert f"| {label} | {' | '.join(values)} |" in PAGE
    assert "t = " + " | ".join(f"{level['t']:g}" for level in LEVELS) in PAGE


def below_zero(difference: str) -> list[float]:
    return [level["t"] for level in LEVELS if level["differences"][difference]["high"] < 0]


def test_where_the_variance_is_lower() -> None:
    times = [level["t"] for level in LEVELS]
    assert set(below_zero("exact - published_true")) >= {t for t in times if t <= 0.7}
    assert below_zero("published_true - plain") == [t for t in times if t >= 0.2]
    for level in LEVELS:
        # nowhere above, within its interval
        assert level["differences"]["published_true - plain"]["low"] <= 0
        assert level["differences"]["exact - plain"]["high"] < 0


def test_cost() -> None:
    costs = GRADIENTS["target_ms_per_sample_of_256_residues"]
    assert f"costs {costs['exact']:.2f} ms a sample" in PAGE
    assert f"10,000 rotations {costs['published_true']:.2f} ms" in PAGE
    assert costs["exact"] < 0.1
