"""docs/sweeps.md says what the committed sweeps say."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = " ".join((ROOT / "docs/sweeps.md").read_text().split())


def test_perov_5() -> None:
    found = json.loads((ROOT / "results/sweeps/crystals/cpu/sweep.json").read_text())
    points = found["points"]
    (exact,) = [point for point in points if point["exact"]]
    sampled = [point for point in points if not point["exact"]]
    best = min(sampled, key=lambda point: point["validation_error"]["mean"])
    assert best["values"] == {"num_samples": 256, "temperature": 2.0}
    for point in (best, exact):
        error, milliseconds = point["validation_error"], 1e3 * point["step_seconds"]["mean"]
        assert f"{error['mean']:.4f} ± {error['std']:.4f} at {milliseconds:.0f} ms" in PAGE
    variances = [point["gradient_variance"]["mean"] for point in (exact, best)]
    assert f"gradient variance of {variances[0]:.0f} against {variances[1]:.0f}" in PAGE
    paired = sorted((p["minus_exact"]["mean"], p["minus_exact"]["standard_error"]) for p in sampled)
    assert paired[0][0] > 0
    ends = [f"{mean:.4f} ± {error:.4f}" for mean, error in (paired[0], paired[-1])]
    assert f"by {ends[0]} to {ends[1]}" in PAGE
