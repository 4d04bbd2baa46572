"""The numbers of a diagnosis against limits, quadrature and laws of total variance."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from orbitdiff.diagnosis import measure_level
from orbitdiff.diagnosis.arms import SignArms
from orbitdiff.diagnosis.measure import COUNTS, counts_of
from orbitdiff.diagnosis.noise import levels_between, variance_preserving
from orbitdiff.diagnosis.problem import Problem
from orbitdiff.diagnosis.structure import Collection, Structure
from orbitdiff.groups.permutation import padded_lists
from orbitdiff.kernels.schedule import ScaledPath
from orbitdiff.orbit import OrbitContext, RotationOrbit

from .conftest import cells, clouds, posed

pytestmark = pytest.mark.usefixtures("few_elements")


def by_name(level, count=None):
    return {row.estimator: row for row in level.rows if row.num_samples in (None, count)}


def test_translations_at_small_noise_remove_one_nth():
    problem = posed(cells(points=4), 0.002, 0.01)
    assert measure_level(problem, 0).share == pytest.approx(1 / 4, rel=0.06)


def test_one_atom_in_a_cell_is_all_symmetry_noise():
    level = measure_level(posed(cells(points=1), 0.01, 0.5, samples=16), 0)
    assert level.share == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("sigma", [0.4, 0.7, 0.95])
def test_signs_by_quadrature(sigma):
    noise = variance_preserving(sigma, 0.999)
    problem = Problem(
        torch.ones(2000, 1, 1), torch.ones(2000, 1, dtype=torch.bool), SignArms(),
        "variance_preserving", noise, levels_between(noise, sigma, 0.999, 2), 1,
    )  # fmt: skip
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    alpha = math.sqrt(1 - sigma**2)
    mean = np.tanh(alpha * (alpha + sigma * nodes) / sigma**2)
    expected = 1 - (weights @ mean**2) / weights.sum()
    assert measure_level(problem, 0).share == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("group", ["rotation", "rotation_reflection"])
@pytest.mark.parametrize("kernel", ["gaussian", "flow"])
def test_rotations_at_small_noise_remove_three_degrees_of_freedom(group, kernel):
    collection = clouds()
    power = np.mean([np.square(s.points - s.points.mean(0)).sum() for s in collection.structures])
    problem = posed(collection, 0.02, 0.1, group=group, kernel=kernel)
    assert measure_level(problem, 0).share == pytest.approx(3 * 0.02**2 / power, rel=0.1)


@pytest.mark.parametrize("group", ["rotation", "rotation_reflection"])
def test_rotations_at_huge_noise_remove_everything(group):
    problem = posed(clouds(), 0.001, 2000.0, group=group)
    assert measure_level(problem, 1).share > 0.999
    assert measure_level(problem, 0).share < 1e-5


def test_translations_at_huge_noise_remove_everything():
    assert measure_level(posed(cells(), 0.01, 0.53), 1).share > 0.995


def test_errors_and_ess_of_rotations():
    problem = posed(clouds(), 0.05, 50.0)
    small, large = (measure_level(problem, index) for index in (0, 1))
    at_16, at_64 = by_name(small, 16), by_name(small, 64)
    # the true element takes all the weight; without it the target is far off
    assert at_64["haar"].error == pytest.approx(at_64["plain"].error, rel=0.05)
    assert at_64["haar"].ess_median == pytest.approx(1, abs=0.01)
    assert at_64["haar_without_true"].error > 5 * at_64["plain"].error
    assert at_64["haar_without_true"].worse_than_plain > 0.99
    assert at_64["isir"].error < 0.3 * at_64["plain"].error
    assert at_64["isir"].error < at_16["isir"].error
    # all elements count alike at huge noise, where the error of a mean of K draws is 1 / sqrt(K);
    # a batch shares its rotations, so only the three repeats are independent
    rows = by_name(large, 64)
    assert rows["haar"].ess_median > 60
    for name in ("haar", "haar_without_true"):
        assert rows[name].error == pytest.approx(1 / math.sqrt(64), rel=0.45)
    assert rows["exact"].error == 0
    assert rows["plain"].worse_than_plain == 0
    assert all(row.microseconds > 0 for row in large.rows)
    assert all(1 <= row.ess_tenth <= row.ess_median for row in large.rows if row.num_samples)


def test_proposal_around_x_t_beats_uniform_shifts_at_small_noise():
    rows = by_name(measure_level(posed(cells(), 0.005, 0.5), 0), 64)
    assert rows["isir"].ess_median > 20 * rows["haar"].ess_median
    assert rows["isir"].error < 0.3 * rows["haar"].error
    assert rows["haar_without_true"].error > rows["plain"].error


def test_levels_do_not_depend_on_each_other():
    problem = posed(clouds(), 0.5, 2.0)
    again = replace(problem, levels=problem.levels)
    measure_level(again, 0)
    first, second = measure_level(problem, 1, seed=3), measure_level(again, 1, seed=3)
    assert [row.error for row in first.rows] == [row.error for row in second.rows]
    assert first.share != measure_level(problem, 1, seed=4).share


def test_large_structures_get_few_samples_and_few_elements(monkeypatch):
    from orbitdiff.diagnosis import measure

    monkeypatch.setattr(measure, "COUNTS", COUNTS)
    wide = posed(cells(num=1, points=400), 0.01, 0.5)
    assert len(wide.x_0) < 10
    assert "samples instead of 256" in wide.notes[0]
    assert max(counts_of(wide)) <= 10_000
    assert counts_of(posed(clouds(num=1, points=400), 0.01, 0.5)) == COUNTS
    monkeypatch.setattr(measure, "WORK", 10)
    assert counts_of(wide) == COUNTS[:1]


def test_levels_and_weights():
    problem = posed(clouds(), 0.1, 10.0, kernel="flow", scale=2.0)
    alpha, sigma = ScaledPath(2.0)(torch.tensor([level.t for level in problem.levels]))
    torch.testing.assert_close(sigma / alpha, torch.tensor([0.1, 10.0]))
    noise = variance_preserving(0.01, 0.99)
    levels = levels_between(noise, 0.01, 0.99, 40)
    assert sum(level.weight for level in levels) == pytest.approx(1)
    # t is uniform, and sigma linear in t: the mean of sigma is the middle
    mean = sum(level.weight * level.noise for level in levels)
    assert mean == pytest.approx(0.5, rel=1e-6)


def molecules(*smiles):
    chem = pytest.importorskip("rdkit.Chem")
    embed = pytest.importorskip("rdkit.Chem.AllChem").EmbedMolecule
    structures = []
    for index, text in enumerate(smiles):
        molecule = chem.AddHs(chem.MolFromSmiles(text))
        embed(molecule, randomSeed=7)
        positions = np.asarray(molecule.GetConformer().GetPositions())
        structures.append(Structure(f"m{index}", positions, molecule))
    return Collection(tuple(structures))


def test_automorphisms_obey_the_law_of_total_variance():
    # no rotation of methanol exchanges hydrogens of its methyl
    methanol = molecules("CO")
    both = posed(methanol, 0.7, 3.0, group="rotation_automorphisms")
    alone = posed(methanol, 0.7, 3.0, group="rotation")
    assert both.context.automorphisms[0].order == 6
    level = measure_level(both, 0)
    part = by_name(level)["rotations_alone"].error ** 2
    # |plain - both|^2 = |plain - alone|^2 + |alone - both|^2 in expectation
    assert part > 0.01
    assert level.share == pytest.approx(measure_level(alone, 0).share + part, rel=0.1)


def test_large_groups_are_cut_to_a_subgroup():
    """Neopentane has 31,104 automorphisms; the mean over a subgroup of at most 720 is T*."""
    problem = posed(
        molecules("CC(C)(C)C", "O"), 0.5, 2.0, group="rotation_automorphisms", samples=4
    )
    groups = problem.context.automorphisms
    assert sorted(g.order for g in groups) == [2, 2, 31_104, 31_104]
    assert "2 of 4 samples have more than 720 automorphisms" in problem.notes[0]
    kernel, t = problem.noise.kernel_of(4), torch.full((4,), 0.7)
    x_t = kernel.sample(problem.x_0, t, generator=torch.Generator().manual_seed(0)).x_t
    found = problem.arms.exact(kernel)(
        x_t, problem.x_0, t, context=problem.context, mask=problem.mask
    )
    lists, real = padded_lists([g.subgroup(720) for g in groups], problem.x_0.shape[1])
    listed = RotationOrbit(kernel)(
        x_t,
        problem.x_0,
        t,
        context=OrbitContext(permutations=lists, permutation_mask=real),
        mask=problem.mask,
    )
    assert torch.allclose(found.value, listed.value, atol=1e-6)
    assert 0 < measure_level(problem, 1).share < 1


def test_harmonic_kernel_at_small_noise_against_the_information_matrix():
    collection = molecules("CCO")
    problem = posed(collection, 0.01, 1.0, kernel="harmonic")
    level = problem.levels[0]
    kernel = problem.noise.kernel_of(1)
    x = problem.x_0[:1].double()[0]
    t = torch.tensor([level.t], dtype=torch.float64)
    weight = kernel.precision(t)[0] * kernel.schedule(t).alpha ** 2
    turns = torch.stack(
        [torch.linalg.cross(axis.expand_as(x), x) for axis in torch.eye(3).double()]
    )
    information = torch.einsum("knd,nm,lmd->kl", turns, weight, turns)
    spread = torch.einsum("knd,lnd->kl", turns, turns)
    expected = float((spread @ information.inverse()).trace() / x.square().sum())
    assert measure_level(problem, 0).share == pytest.approx(expected, rel=0.1)


def test_noise_of_the_harmonic_kernel_is_what_the_level_says():
    problem = posed(molecules("CCCCCCCCO", "CCCC"), 0.5, 5.0, kernel="harmonic", samples=200)
    t = torch.full((200,), problem.levels[1].t)
    kernel = problem.noise.kernel_of(200)
    x_t = kernel.sample(problem.x_0, t, generator=torch.Generator().manual_seed(0)).x_t
    alpha = float(kernel.schedule(t).alpha[0])
    rest = (x_t / alpha - problem.x_0)[problem.mask]
    assert float(rest.square().mean().sqrt()) == pytest.approx(5.0, rel=0.05)
