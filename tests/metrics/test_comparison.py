import math

import pytest

from orbitdiff.metrics.comparison import arm_rows, paired, spread, steps_to_reach


def history(distances):
    return [
        {"kind": "validation", "step": 100 * (i + 1), "distance": {"0.1": d}, "distance_mean": d}
        for i, d in enumerate(distances)
    ]


def run(estimator, seed, distances, rate=0.5):
    metrics = {"run": {"estimator": estimator, "seed": seed}, "match_rate_all": rate}
    return {"metrics": metrics, "history": history(distances)}


def test_paired_differences_and_their_standard_error():
    runs = {
        "p0": run("plain", 0, [0.5, 0.4], 0.50),
        "p1": run("plain", 1, [0.6, 0.5], 0.40),
        "e1": run("exact", 1, [0.5, 0.2], 0.60),
        "e0": run("exact", 0, [0.3, 0.2], 0.60),
        "e7": run("exact", 7, [0.1, 0.1], 0.99),
    }
    plain, exact = arm_rows(runs)
    assert (plain["estimator"], exact["estimator"]) == ("plain", "exact")
    assert exact["seeds"] == [0, 1, 7]
    difference = exact["paired_distance"]
    assert difference["mean"] == pytest.approx((-0.2 - 0.3) / 2)
    assert difference["standard_error"] == pytest.approx(0.05)
    assert difference["seeds"] == 2
    assert exact["paired_match_rate"]["mean"] == pytest.approx(0.15)
    assert exact["steps_to_plain"] == [100, 100]
    assert plain["distance"]["mean"] == pytest.approx(0.45)
    assert plain["distance"]["std"] == pytest.approx(0.1 / math.sqrt(2))
    assert "paired_distance" not in plain


def test_an_arm_that_never_gets_there():
    assert steps_to_reach(history([0.5, 0.4]), 0.3) is None
    assert steps_to_reach(history([0.5, 0.3, 0.2]), 0.3) == 200


def test_missing_kinds_leave_gaps_not_errors():
    runs = {"a": run("exact", 0, []), "b": run("isir", 3, [0.2]), "p": run("plain", 0, [0.3])}
    runs["a"]["metrics"]["match_rate_all"] = None
    rows = {row["estimator"]: row for row in arm_rows(runs)}
    assert "distance" not in rows["exact"]
    assert "match_rate_all" not in rows["exact"]
    assert "paired_distance" not in rows["isir"]
    assert rows["plain"]["distance"] == {"mean": 0.3, "std": None, "seeds": 1}


def test_one_seed_has_no_spread():
    assert spread([2.0])["std"] is None
    assert paired([2.0]) == {"mean": 2.0, "standard_error": None, "seeds": 1}
