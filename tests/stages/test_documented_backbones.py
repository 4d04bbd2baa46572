"""docs/backbones.md says what the result files say."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = " ".join((ROOT / "docs/backbones.md").read_text().split())
GRADIENTS = json.loads((ROOT / "benchmarks/results/backbone_gradients_cpu.json").read_text())
LEVELS: list[dict[str, Any]] = GRADIENTS["levels"]
TABLE = json.loads((ROOT / "reports/backbones/cpu/table.json").read_text())
ROWS = {row["estimator"]: row for row in TABLE["rows"]}
FIGURES = ("natural", "divergence", "nll", "nearest_tm", "distance", "equivariance")
PAIRED = ("natural", "divergence", "nll", "distance", "equivariance")
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


@pytest.mark.parametrize("arm", ["tuned", "tuned_published", "tuned_published_true", "tuned_exact"])
def test_fine_tunes(arm: str) -> None:
    row = ROWS[arm]
    assert row["seeds"] == [0, 1, 2]
    cells = [f"{row[name]['mean']:.3f} ± {row[name]['std']:.3f}" for name in FIGURES]
    assert f"| `{arm}` | {' | '.join(cells)} |" in PAGE
    if arm != "tuned":
        paired = [row["paired"][name] for name in PAIRED]
        cells = [f"{one['mean']:+.4f} ± {one['standard_error']:.4f}" for one in paired]
        assert f"| `{arm}` | {' | '.join(cells)} |" in PAGE


def equivariance(arm: str, seed: int) -> float:
    path = ROOT / f"results/backbones/cpu/cpu-pdb_64-{arm}-{seed}/history.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return float([one["equivariance_mean"] for one in records if "equivariance_mean" in one][-1])


def test_exact_lowers_the_equivariance_error_in_every_seed_by_little() -> None:
    for seed in range(3):
        plain, exact = (equivariance(arm, seed) for arm in ("tuned", "tuned_exact"))
        assert 0.98 * plain < exact < plain
    assert (
        ROWS["tuned_exact"]["paired"]["equivariance"]["mean"]
        > -0.01 * ROWS["tuned"]["equivariance"]["mean"]
    )


def test_what_fine_tuning_does_to_the_base_by_time() -> None:
    base, exact = (ROWS[arm]["equivariance_by_time"] for arm in ("plain", "tuned_exact"))
    for time in base:
        assert (exact[time]["mean"] < base[time]["mean"]) == (float(time) >= 0.7), time


def test_controls() -> None:
    natural, noised = (row["natural"]["mean"] for row in TABLE["controls"])
    assert f"pass all proxies in {natural:.3f}, with 1 Å of noise in {noised:.3f}" in PAGE
