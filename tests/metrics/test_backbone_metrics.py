"""Proxies of natural chains and TM-scores, against biotite, scipy, rigid moves and real chains."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.spatial.transform import Rotation

pytest.importorskip("biotite")
pytest.importorskip("tmtools")

from orbitdiff.data.protein_chain import Backbone, BackboneLimits
from orbitdiff.data.proteins import check_backbone, read_traces
from orbitdiff.errors import BadInput
from orbitdiff.metrics.backbones import (
    BINS,
    PROXIES,
    ca_angles,
    ca_dihedrals,
    dihedral_divergence,
    judge_backbone,
    judge_backbones,
    secondary_structure,
)
from orbitdiff.metrics.tm_scores import clusters, diversity, novelty, pairwise_tm, tm_score

SHARED = Path(os.environ.get("ORBITDIFF_DATA", "../shared/data")) / "proteins/ca_traces.npz"


def serial(function, items, *, description):
    return [function(item) for item in items]


def chain(ca, name="x"):
    return Backbone(name, np.asarray(ca, dtype=np.float32), "G" * len(ca), name, name)


def helix(length, *, hand=1):
    turn = np.radians(100.0) * np.arange(length)
    return np.stack([2.3 * np.cos(turn), hand * 2.3 * np.sin(turn), 1.5 * np.arange(length)], 1)


def walk(length, seed):
    """Random chain of steps of 3.8 angstrom that turn like a coil."""
    rng = np.random.default_rng(seed)
    points, heading = [np.zeros(3)], np.array([1.0, 0, 0])
    for _ in range(length - 1):
        heading = heading + 0.8 * rng.normal(size=3)
        heading /= np.linalg.norm(heading)
        points.append(points[-1] + 3.8 * heading)
    return np.array(points)


@pytest.fixture(scope="module")
def natural():
    if not SHARED.is_file():
        pytest.skip(f"no {SHARED}")
    rows = [check_backbone(row, BackboneLimits(max_length=128)) for row in read_traces(SHARED)]
    return [row for row in rows if isinstance(row, Backbone)][::5]


def test_angles_and_dihedrals_are_biotites():
    from biotite.structure import angle, dihedral

    ca = walk(30, 1)
    expected = np.degrees(dihedral(ca[:-3], ca[1:-2], ca[2:-1], ca[3:]))
    np.testing.assert_allclose(ca_dihedrals(ca), expected, atol=1e-3)
    expected = np.degrees(angle(ca[:-2], ca[1:-1], ca[2:]))
    np.testing.assert_allclose(ca_angles(ca), expected, atol=1e-3)
    assert len(ca_dihedrals(ca[:3])) == len(ca_angles(ca[:2])) == 0


def test_ideal_helices():
    right, left = judge_backbone(chain(helix(40))), judge_backbone(chain(helix(40, hand=-1)))
    assert secondary_structure(helix(40)).count("H") >= 36
    assert right.helix_dihedral == pytest.approx(50, abs=3)
    assert right.trans == 1.0
    assert right.clashes == 0
    assert right.verdicts()["chirality"]
    # P-SEA sees distances and dihedrals: the mirror image is no helix, or one of the wrong hand
    assert left.helix_dihedral is None or not left.verdicts()["chirality"]


def test_steps_clashes_and_size_by_hand():
    ca = np.array([[0, 0, 0], [3.8, 0, 0], [3.8, 2.9, 0], [0.9, 2.9, 0], [0.9, 2.9, 3.8]])
    found = judge_backbone(chain(ca))
    assert (found.trans, found.cis) == (0.5, 0.5)
    assert found.clashes == 0  # the nearest pair that is no step: 3.04 apart
    ca[3] = [1.5, 2.9, 0]
    found = judge_backbone(chain(ca))
    assert found.clashes == 0
    ca[3] = [3.8, 2.9, 0.5]
    ca[4] = [1.0, 1.0, 0.0]
    expected = sum(np.linalg.norm(ca[i] - ca[j]) < 3.0 for i in range(5) for j in range(i + 2, 5))
    assert judge_backbone(chain(ca)).clashes == expected > 0
    spread = np.sqrt(((ca - ca.mean(0)) ** 2).sum(1).mean())
    assert judge_backbone(chain(ca)).rg_ratio == pytest.approx(spread / (2.2 * 5**0.38))


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_tiny_chains_are_judged(length):
    found = judge_backbone(chain(helix(length)))
    assert found.length == length
    assert found.helix_dihedral is None
    assert found.helix == 0
    assert not found.natural


def test_two_thousand_residues_and_bad_coordinates():
    assert judge_backbone(chain(walk(2000, 0))).trans == 1.0
    broken = walk(20, 0)
    broken[3] = np.nan
    with pytest.raises(BadInput, match="finite"):
        judge_backbone(chain(broken))
    with pytest.raises(BadInput, match="at least one chain"):
        judge_backbones([], parallel=serial)


def test_natural_chains_are_natural_by_every_proxy_and_controls_are_not(natural):
    rng = np.random.default_rng(0)

    def control(change):
        rows = [replace(row, ca=change(row.ca).astype(np.float32)) for row in natural]
        return judge_backbones(rows, parallel=serial).summary

    real = judge_backbones(natural, parallel=serial).summary
    assert all(real["within"][proxy] > 0.9 for proxy in PROXIES)
    assert real["natural"] > 0.9
    assert real["helix_dihedral"] == pytest.approx(50, abs=2)
    noised = control(lambda ca: ca + rng.normal(size=ca.shape))
    assert noised["natural"] == 0
    assert noised["within"]["bonds"] == 0
    assert noised["within"]["clashes"] < 0.2
    assert noised["within"]["secondary"] < 0.05
    mirrored = control(lambda ca: ca * [1, 1, -1])
    assert mirrored["within"]["chirality"] == 0
    assert mirrored["within"]["bonds"] > 0.9
    for factor in (0.6, 1.6):
        assert control(lambda ca: factor * ca)["within"]["compactness"] < 0.2  # noqa: B023


def test_dihedral_divergence(natural):
    half = [row.ca for row in natural[::2]], [row.ca for row in natural[1::2]]
    near = dihedral_divergence(*half)
    rng = np.random.default_rng(1)
    noised = [ca + rng.normal(size=ca.shape) for ca in half[0]]
    far = dihedral_divergence(noised, half[1])
    assert near < 0.1 < 0.2 < far

    def law(chains):
        rows = [np.stack([ca_angles(ca)[:-1], ca_dihedrals(ca)], 1) for ca in chains]
        limits = [(0, 180), (-180, 180)]
        counts, _ = np.histogramdd(np.concatenate(rows), bins=BINS, range=limits)
        return counts.ravel() / counts.sum()

    expected = jensenshannon(law(noised), law(half[1]), base=2) ** 2
    assert far == pytest.approx(expected, abs=1e-9)
    assert dihedral_divergence(half[0], half[0]) == 0
    with pytest.raises(BadInput, match="four residues"):
        dihedral_divergence([walk(3, 0)], half[0])


def test_tm_score_of_moved_chains_and_of_a_fragment():
    ca = walk(60, 3)
    moved = ca @ Rotation.random(rng=0).as_matrix().T + 50
    assert tm_score(ca, moved) == pytest.approx((1, 1), abs=1e-4)
    over_fragment, over_whole = tm_score(ca[10:50], ca)
    assert over_fragment == pytest.approx(1, abs=1e-4)
    assert over_whole == pytest.approx(40 / 60, abs=1e-2)
    assert max(tm_score(ca, walk(60, 4))) < 0.5
    with pytest.raises(BadInput, match="3 residues"):
        tm_score(ca[:2], ca)


def test_two_families_are_two_clusters():
    rng = np.random.default_rng(0)
    parents = [walk(50, 5), walk(50, 6)]
    chains = [chain(parents[k % 2] + 0.3 * rng.normal(size=(50, 3)), str(k)) for k in range(6)]
    found = diversity(chains, parallel=serial)
    assert found["clusters"] == 2
    assert found["cluster_ratio"] == pytest.approx(1 / 3)
    scores = pairwise_tm([row.ca for row in chains], parallel=serial)
    assert sorted(map(sorted, clusters(scores))) == [[0, 2, 4], [1, 3, 5]]
    pairs = [(scores[i, j] + scores[j, i]) / 2 for i in range(6) for j in range(i)]
    assert found["mean_tm"] == pytest.approx(np.mean(pairs))
    assert diversity(chains[:1], parallel=serial)["mean_tm"] is None


def test_greedy_cover_takes_the_best_connected_chain_first():
    scores = np.eye(5)
    for other in (0, 1, 3):
        scores[2, other] = scores[other, 2] = 0.6
    scores[3, 4] = 0.9  # one direction only: no neighbours
    assert clusters(scores) == [[2, 0, 1, 3], [4]]


def test_novelty_finds_the_nearest_reference():
    rng = np.random.default_rng(0)
    references = [chain(walk(40 + 3 * k, 10 + k), f"r{k}") for k in range(8)]
    references.append(chain(walk(6, 99), "tiny"))
    judged = [
        chain(references[5].ca + 0.2 * rng.normal(size=references[5].ca.shape), "near"),
        chain(walk(45, 77), "new"),
    ]
    result = novelty(judged, references, parallel=serial)
    assert result.per_sample[0].reference == "r5"
    assert result.per_sample[0].tm > 0.9
    for row, judged_chain in zip(result.per_sample, judged, strict=True):
        everything = [tm_score(judged_chain.ca, other.ca)[0] for other in references]
        assert row.tm == pytest.approx(max(everything))
    assert result.summary["known_fold"] == 0.5
    with pytest.raises(BadInput, match="references"):
        novelty(judged, [], parallel=serial)
