import time

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from orbitdiff.data.crystals import Crystal
from orbitdiff.metrics import crystals as metrics
from orbitdiff.metrics.base import TimeLimit, time_limit
from orbitdiff.metrics.crystals import (
    Judged,
    Pair,
    Tolerances,
    aggregate,
    compare_crystals,
    judge,
    valid_crystal,
)

SITES = [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


def crystal(name="a", types=(56, 22, 8, 8, 8), edge=4.0, shift=0.0, sites=SITES):
    frac = (np.array(sites, dtype=float) + shift) % 1.0
    return Crystal(name, np.array(types), frac, np.eye(3) * edge)


def one_by_one(function, items, *, description):
    return [function(item) for item in items]


def pair(generated, reference, k=0, **more):
    return Pair(reference.id, k, generated, reference, Tolerances(), **more)


def row(name, k=0, rmse=None, generated=True, reference=True, failure=""):
    return Judged(name, k, rmse, generated, reference, failure)


def test_translation_and_atom_order_do_not_matter():
    order = [4, 2, 0, 3, 1]
    moved = crystal(shift=[0.13, 0.41, 0.77])
    moved = Crystal("g", moved.atom_types[order], moved.frac[order], moved.lattice)
    found = judge(pair(moved, crystal()))
    assert found.rmse == pytest.approx(0, abs=1e-6)
    assert found.valid_generated
    assert found.valid_reference
    assert found.failure == ""


def test_rmse_is_the_displacement_over_the_cube_root_of_volume_per_atom():
    delta, edge = 0.04, 4.0
    sites = [list(site) for site in SITES]
    sites[1][0] += delta
    found = judge(pair(crystal(sites=sites), crystal()))
    # one of five atoms moved by delta * edge; the best translation takes its mean off
    moves = np.zeros(5)
    moves[1] = delta * edge
    rms = np.sqrt(np.mean((moves - moves.mean()) ** 2))
    assert found.rmse == pytest.approx(rms / (edge**3 / 5) ** (1 / 3), rel=1e-3)


def test_other_composition_or_other_lattice_is_no_match():
    assert judge(pair(crystal(types=(56, 22, 7, 7, 7)), crystal())).rmse is None
    long = Crystal("g", crystal().atom_types, crystal().frac, np.diag([4.0, 4.0, 9.0]))
    assert judge(pair(long, crystal())).rmse is None


@pytest.mark.parametrize(
    ("types", "edge", "expected"),
    [
        ((56, 22, 8, 8, 8), 4.0, True),
        ((55, 56, 9, 9, 9), 4.0, True),
        ((56, 22, 9, 9, 9), 0.7, False),  # atoms 0.35 to 0.5 angstrom apart
        ((11, 11, 17, 17, 17), 4.0, False),  # Na2Cl3 has no neutral choice of charges
        ((2, 10, 18, 18, 18), 4.0, False),  # noble gases have no oxidation states
    ],
)
def test_validity_of_known_cases(types, edge, expected):
    assert valid_crystal(crystal(types=types, edge=edge)) is expected


def test_validity_sees_neighbours_across_the_boundary():
    near = crystal(types=(11, 17), sites=[[0.0, 0, 0], [0.98, 0, 0]])
    assert not valid_crystal(near)
    flat = Crystal("f", np.array([11]), np.zeros((1, 3)), np.diag([0.3, 4.0, 4.0]))
    assert not valid_crystal(flat)


def test_rates_count_misses_and_both_rules():
    rows = [
        row("a", rmse=0.1),
        row("b", rmse=0.3, generated=False),
        row("c", rmse=0.2, reference=False),
        row("d"),
    ]
    found = aggregate(rows, stol=0.5)
    assert found["match_rate_all"] == 3 / 4
    assert found["rmse_all"] == pytest.approx(0.2)
    assert found["crmse_all"] == pytest.approx((0.1 + 0.3 + 0.2 + 0.5) / 4)
    assert found["match_rate_valid"] == 1 / 4
    assert found["rmse_valid"] == pytest.approx(0.1)
    assert found["crmse_valid"] == pytest.approx((0.1 + 3 * 0.5) / 4)
    assert found["valid_generated"] == 3 / 4
    assert "match_rate_all_at_1" not in found


def test_k_samples_take_the_best_and_ask_validity_of_the_prediction_only():
    rows = [
        row("a", 0, rmse=0.3, reference=False),
        row("a", 1, rmse=0.1, reference=False),
        row("b", 0),
        row("b", 1, rmse=0.2, generated=False),
    ]
    found = aggregate(rows, stol=0.5)
    assert found["samples_per_crystal"] == 2
    assert found["match_rate_all"] == 1
    assert found["rmse_all"] == pytest.approx(0.15)
    assert found["match_rate_valid"] == 1 / 2
    assert found["rmse_valid"] == pytest.approx(0.1)
    assert found["match_rate_all_at_1"] == 1 / 2
    assert found["rmse_all_at_1"] == pytest.approx(0.3)
    assert found["match_rate_valid_at_1"] == 0  # at one sample the truth must be valid too
    assert found["rmse_valid_at_1"] is None


def test_metre_matches_across_references_of_one_composition():
    cubic, long = crystal("cubic"), crystal("long")
    long = Crystal("long", long.atom_types, long.frac, np.diag([4.0, 4.0, 9.0]))
    other = crystal("other", types=(38, 40, 8, 8, 8))
    swapped = [pair(long, cubic), pair(cubic, long), pair(other, other)]
    found = compare_crystals(swapped, parallel=one_by_one).summary
    assert found["match_rate_all"] == pytest.approx(1 / 3)
    assert found["metre"] == 1
    alone = compare_crystals(swapped[:1], parallel=one_by_one).summary
    assert alone["metre"] == 0


def test_a_failing_or_endless_pair_is_counted_and_stops_nothing(monkeypatch):
    reference = crystal()
    broken = Crystal("g", reference.atom_types, reference.frac, np.zeros((3, 3)))
    found = compare_crystals(
        [pair(broken, reference), pair(crystal("b"), crystal("b"))], parallel=one_by_one
    )
    assert found.summary["failures"] == 1
    assert found.summary["match_rate_all"] == 1 / 2
    assert found.per_sample[0].failure != ""
    monkeypatch.setattr(metrics, "_rms", lambda pair: time.sleep(20))
    start = time.monotonic()
    slow = judge(pair(reference, reference, seconds=0.2))
    assert time.monotonic() - start < 10
    assert "longer than 0.2 s" in slow.failure
    assert slow.rmse is None


def test_a_validity_that_fails_keeps_the_match(monkeypatch):
    def fail(crystal):
        raise RuntimeError("no")

    monkeypatch.setattr(metrics, "valid_crystal", fail)
    found = judge(pair(crystal(), crystal()))
    assert found.rmse == pytest.approx(0, abs=1e-6)
    assert not found.valid_generated
    assert "RuntimeError" in found.failure


def test_time_limit_restores_the_handler():
    with pytest.raises(TimeLimit), time_limit(0.05):
        time.sleep(5)
    with time_limit(0.05):
        pass
    time.sleep(0.08)


def test_same_answer_as_pymatgen_alone():
    from pymatgen.analysis.structure_matcher import StructureMatcher

    rng = np.random.default_rng(0)
    reference = crystal()
    noisy = Crystal("g", reference.atom_types, reference.frac + 0.03 * rng.normal(size=(5, 3)),
                    reference.lattice * 1.05)  # fmt: skip
    matcher = StructureMatcher(stol=0.5, angle_tol=10, ltol=0.3)
    structures = [
        Structure(Lattice(c.lattice), c.atom_types.tolist(), c.frac) for c in (noisy, reference)
    ]
    assert judge(pair(noisy, reference)).rmse == pytest.approx(matcher.get_rms_dist(*structures)[0])
