import math

import pytest
import torch

from orbitdiff.errors import BadInput, IncompatibleKernel
from orbitdiff.groups import LabelledGraph, graph_automorphisms
from orbitdiff.groups.rotation import SO3
from orbitdiff.kernels import (
    AlignedCoupling,
    GaussianKernel,
    GeometricSigma,
    HarmonicKernel,
    Parametrization,
)
from orbitdiff.kernels.harmonic_prior import HarmonicPrior
from orbitdiff.orbit import (
    AutomorphismOrbit,
    OrbitContext,
    RotationOrbit,
    automorphism_orbit,
    coset_chain,
)
from orbitdiff.orbit.rotation_proposals import super_fibonacci
from orbitdiff.testing import EstimatorContract

KERNEL = GaussianKernel(GeometricSigma(0.05, 10.0))
DATA, VELOCITY = Parametrization.DATA, Parametrization.VELOCITY
# two equal arms with three equal leaves each: 72 symmetries
TREE = LabelledGraph(
    (0, 1, 1, 2, 2, 2, 2, 2, 2),
    ((0, 1, 1), (0, 2, 1), (1, 3, 1), (1, 4, 1), (1, 5, 1), (2, 6, 1), (2, 7, 1), (2, 8, 1)),
)
CHAIN = LabelledGraph((0, 1, 2, 1, 0), ((0, 1, 1), (1, 2, 1), (2, 3, 1), (3, 4, 1)))
GROUP = graph_automorphisms(TREE)


def bonds(graph):
    count = len(graph.colours)
    found = torch.zeros(count, count, dtype=torch.bool)
    for a, b, _ in graph.edges:
        found[a, b] = found[b, a] = True
    return found


def cloud(batch, generator, count=9):
    x_0 = 1.2 * torch.randn(batch, count, 3, generator=generator, dtype=torch.float64)
    return x_0 - x_0.mean(1, keepdim=True)


class WithTree(EstimatorContract):
    times = (0.3, 0.5, 0.7)
    draws = 1500

    def kernel(self):
        return KERNEL

    def group(self):
        return SO3()

    def exact(self):
        return RotationOrbit(KERNEL)

    def points(self, num, generator):
        return cloud(num, generator)

    def act_on_target(self, g, value):
        return SO3().act(g, value)

    def context(self, x_0):
        lists = GROUP.elements()
        rest = torch.arange(9, x_0.shape[1]).expand(len(lists), -1)
        lists = torch.cat([lists, rest], 1).expand(len(x_0), -1, -1)
        return OrbitContext(permutations=lists, automorphisms=(GROUP,) * len(x_0))


class TestListed(WithTree):
    def estimator(self):
        return AutomorphismOrbit(KERNEL)


class TestChain(WithTree):
    def estimator(self):
        return AutomorphismOrbit(KERNEL, max_enumerated=1, moves=3)


def problem(kernel, t, rows, seed=0, count=9):
    generator = torch.Generator().manual_seed(seed)
    x_0 = cloud(rows, generator, count)
    time = torch.full((rows,), t, dtype=torch.float64)
    return kernel.sample(x_0, time, generator=generator).x_t, x_0, time


@pytest.mark.parametrize("parametrization", [DATA, VELOCITY])
def test_groups_of_unequal_size_in_one_batch(parametrization):
    """Each molecule as if alone, with conformers, under the harmonic prior, padded."""
    graphs = (TREE, CHAIN, TREE)
    wide = torch.zeros(3, 9, 9, dtype=torch.bool)
    mask = torch.zeros(3, 9, dtype=torch.bool)
    for row, graph in enumerate(graphs):
        n = len(graph.colours)
        wide[row, :n, :n], mask[row, :n] = bonds(graph), True
    kernel = HarmonicKernel(HarmonicPrior.from_bonds(wide, mask=mask), sigma=0.1)
    generator = torch.Generator().manual_seed(0)
    sets = torch.stack([cloud(2, generator) for _ in range(3)]) * mask[:, None, :, None]
    sets = (sets - sets.sum(2, keepdim=True) / mask.sum(1)[:, None, None, None]) * mask[
        :, None, :, None
    ]
    t = torch.tensor([0.5, 0.7, 0.9], dtype=torch.float64)
    x_0 = sets[:, 0].contiguous()
    x_t = kernel.sample(x_0, t, mask=mask, generator=generator).x_t
    log_prior = torch.tensor([[-0.2, -1.7], [-1.0, -0.5], [-0.7, -0.7]], dtype=torch.float64)
    found = AutomorphismOrbit(kernel, parametrization=parametrization)(
        x_t,
        x_0,
        t,
        mask=mask,
        context=OrbitContext(
            automorphisms=tuple(graph_automorphisms(graph) for graph in graphs),
            conformers=sets,
            log_prior=log_prior,
        ),
    )
    for row, graph in enumerate(graphs):
        n = len(graph.colours)
        own = HarmonicKernel(HarmonicPrior.from_bonds(bonds(graph)[None]), sigma=0.1)
        alone = RotationOrbit(own, parametrization=parametrization)(
            x_t[row : row + 1, :n],
            x_0[row : row + 1, :n],
            t[row : row + 1],
            context=OrbitContext(
                permutations=graph_automorphisms(graph).elements()[None],
                conformers=sets[row : row + 1, :, :n],
                log_prior=log_prior[row : row + 1],
            ),
        )
        torch.testing.assert_close(found.value[row, :n], alone.value[0])
        torch.testing.assert_close(found.info.log_evidence[row], alone.info.log_evidence[0])
        torch.testing.assert_close(found.info.ess[row], alone.info.ess[0])
        assert not found.value[row, n:].any()


@pytest.mark.parametrize("bridge", [0.0, 0.3])
def test_mean_velocity_of_conformers_by_brute_force(bridge):
    """The mean of the conditional velocity over every rotation of a fine grid x all images."""
    star = LabelledGraph((0, 1, 1, 1), ((0, 1, 1), (0, 2, 1), (0, 3, 1)))
    group = graph_automorphisms(star)
    kernel = HarmonicKernel(HarmonicPrior.from_bonds(bonds(star)), sigma=bridge)
    generator = torch.Generator().manual_seed(1)
    x_0 = cloud(3, generator, count=4)
    sets = torch.stack([x_0, 1.1 * x_0.flip(1)], 1)
    prior = torch.tensor([0.7, 0.3], dtype=torch.float64).log().expand(3, -1)
    t = torch.tensor([0.5, 0.7, 0.9], dtype=torch.float64)
    x_t = kernel.sample(x_0, t, generator=generator).x_t
    grid, lists = super_fibonacci(10_000), group.elements()
    images = torch.einsum("kij,bcpnj->bcpkni", grid, sets[:, :, lists]).flatten(1, 3)
    log_w = kernel.log_prob(x_t[:, None], images, t[:, None])
    log_w = log_w + prior[:, :, None, None].expand(-1, -1, 6, len(grid)).flatten(1)
    velocity = kernel.target(x_t[:, None], images, t[:, None], VELOCITY)
    expected = torch.einsum("bk,bkni->bni", torch.softmax(log_w, 1), velocity)
    evidence = torch.logsumexp(log_w, 1) - math.log(6 * len(grid))
    around = OrbitContext(automorphisms=(group,) * 3, conformers=sets, log_prior=prior)
    found = AutomorphismOrbit(kernel, parametrization=VELOCITY)(x_t, x_0, t, context=around)
    assert float((found.value - expected).abs().max()) < 1e-3
    assert float((found.info.log_evidence - evidence).abs().max()) < 1e-3


@pytest.mark.parametrize("sigma", [0.3, 0.8, 2.0])
@pytest.mark.parametrize("harmonic", [False, True])
def test_chain_is_unbiased_and_a_longer_one_is_better(sigma, harmonic):
    rows = 1500
    if harmonic:
        kernel = HarmonicKernel(HarmonicPrior.from_bonds(bonds(TREE)))
        t = sigma / (1 + sigma)
    else:
        kernel, t = KERNEL, float(torch.tensor(sigma / 0.05).log() / torch.tensor(200.0).log())
    x_t, x_0, time = problem(kernel, t, rows)
    around = OrbitContext(
        permutations=GROUP.elements().expand(rows, -1, -1), automorphisms=(GROUP,) * rows
    )
    exact = RotationOrbit(kernel)(x_t, x_0, time, context=around).value
    direction = exact / exact.square().mean((1, 2), keepdim=True).sqrt()
    errors = []
    for moves in (0, 4, 32):
        estimator = AutomorphismOrbit(kernel, max_enumerated=10, moves=moves)
        generator = torch.Generator().manual_seed(1)
        found = estimator(x_t, x_0, time, context=around, generator=generator)
        error = found.value - exact
        along = (direction * error).mean((1, 2))
        assert abs(float(along.mean() / (along.std() / rows**0.5))) < 4
        errors.append(float(error.square().mean()))
        assert found.info.log_evidence is None
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.75 * errors[0]


def test_passes_share_the_rows_out():
    sizes = [9000, 9000, 40_000, 10, 20, 16_000, 1000]
    found = [list(part) for part in coset_chain.passes(sizes)]
    assert found == [[0], [1], [2], [3, 4, 5], [6]]
    assert list(coset_chain.passes([])) == []


@pytest.mark.parametrize("harmonic", [False, True])
@pytest.mark.parametrize("components", [20, 150, 500])
def test_passes_change_nothing(components, harmonic, monkeypatch):
    kernel = HarmonicKernel(HarmonicPrior.from_bonds(bonds(TREE))) if harmonic else KERNEL
    x_t, x_0, t = problem(kernel, 0.6, 5)
    around = OrbitContext(automorphisms=(GROUP,) * 5)
    expected = AutomorphismOrbit(kernel)(x_t, x_0, t, context=around)
    monkeypatch.setattr(coset_chain, "COMPONENTS", components)
    found = AutomorphismOrbit(kernel)(x_t, x_0, t, context=around)
    torch.testing.assert_close(found.value, expected.value)
    torch.testing.assert_close(found.info, expected.info)


def test_many_conformers_leave_room_for_a_smaller_subgroup(monkeypatch):
    """Elements x conformers of one molecule stay below the bound, too."""
    x_t, x_0, t = problem(KERNEL, 0.6, 2)
    sets = x_0[:, None].expand(-1, 20, -1, -1)
    around = OrbitContext(automorphisms=(GROUP,) * 2, conformers=sets)
    monkeypatch.setattr(automorphism_orbit, "COMPONENTS", 20 * 40)
    sizes = []

    def counted(clouds, blocks):
        sizes.extend(block.order for block in blocks)
        return coset_chain.CosetChain(clouds, blocks)

    monkeypatch.setattr(automorphism_orbit, "CosetChain", counted)
    AutomorphismOrbit(KERNEL)(x_t, x_0, t, context=around)
    assert sizes == [36, 36]


def test_an_empty_batch():
    x_t, x_0, t = problem(KERNEL, 0.6, 2)
    found = AutomorphismOrbit(KERNEL)(
        x_t[:0], x_0[:0], t[:0], context=OrbitContext(automorphisms=())
    )
    assert found.value.shape == (0, 9, 3)
    assert found.info.ess.shape == (0,)


def test_a_covariance_that_the_automorphisms_change_is_refused():
    """Springs of another graph: the weights of the automorphisms would need its quadratic form."""
    other = bonds(TREE)
    other[3, 8] = other[8, 3] = True
    kernel = HarmonicKernel(HarmonicPrior.from_bonds(torch.stack([bonds(TREE), other])))
    x_t, x_0, t = problem(kernel, 0.6, 2)
    with pytest.raises(BadInput, match="sample 1: expected a covariance"):
        AutomorphismOrbit(kernel)(x_t, x_0, t, context=OrbitContext(automorphisms=(GROUP,) * 2))


@pytest.mark.parametrize("moves", [0, 3])
def test_a_chain_over_conformers_is_unbiased(moves):
    rows = 1500
    x_t, x_0, t = problem(KERNEL, 0.6, rows)
    generator = torch.Generator().manual_seed(5)
    other = x_0 + 0.4 * torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
    sets = torch.stack([x_0, other - other.mean(1, keepdim=True)], 1)
    # either of the two is the data point that made x_t, as the prior has it
    first = torch.rand(rows, generator=generator) < 0.7
    made = torch.where(first[:, None, None], sets[:, 0], sets[:, 1])
    x_t = KERNEL.sample(made, t, generator=generator).x_t
    prior = torch.tensor([0.7, 0.3]).double().log().expand(rows, -1)
    shared = {"conformers": sets, "log_prior": prior}
    lists = GROUP.elements().expand(rows, -1, -1)
    exact = RotationOrbit(KERNEL)(
        x_t, made, t, context=OrbitContext(permutations=lists, **shared)
    ).value
    estimator = AutomorphismOrbit(KERNEL, max_enumerated=10, moves=moves)
    around = OrbitContext(automorphisms=(GROUP,) * rows, **shared)
    found = estimator(x_t, made, t, context=around, generator=generator).value
    direction = exact / exact.square().mean((1, 2), keepdim=True).sqrt()
    along = (direction * (found - exact)).mean((1, 2))
    assert float((found - exact).square().mean()) > 1e-4
    assert abs(float(along.mean() / (along.std() / rows**0.5))) < 4


def test_listed_and_sampled_rows_mix():
    """A molecule's target does not depend on which others share its batch, if it is listed."""
    x_t, x_0, t = problem(KERNEL, 0.6, 4)
    chain = graph_automorphisms(LabelledGraph((0,) * 2 + (1, 2, 3, 4, 5, 6, 7)))
    around = OrbitContext(automorphisms=(GROUP, chain, GROUP, chain))
    estimator = AutomorphismOrbit(KERNEL, max_enumerated=10, moves=2)
    mixed = estimator(x_t, x_0, t, context=around, generator=torch.Generator().manual_seed(0))
    only = torch.tensor([1, 3])
    alone = estimator(
        x_t[only], x_0[only], t[only], context=OrbitContext(automorphisms=(chain, chain))
    )
    torch.testing.assert_close(mixed.value[only], alone.value)
    assert mixed.info.ess is None
    assert alone.info.ess is not None


def test_refusals():
    x_t, x_0, t = problem(KERNEL, 0.6, 2)
    estimator = AutomorphismOrbit(KERNEL)
    with pytest.raises(BadInput, match="needs the groups"):
        estimator(x_t, x_0, t)
    with pytest.raises(BadInput, match="2 molecules, got 1"):
        estimator(x_t, x_0, t, context=OrbitContext(automorphisms=(GROUP,)))
    with pytest.raises(BadInput, match="more points"):
        estimator(x_t[:, :4], x_0[:, :4], t, context=OrbitContext(automorphisms=(GROUP, GROUP)))
    with pytest.raises(BadInput, match="max_enumerated"):
        AutomorphismOrbit(KERNEL, max_enumerated=0)
    with pytest.raises(BadInput, match="moves"):
        AutomorphismOrbit(KERNEL, moves=-1)
    with pytest.raises(IncompatibleKernel):
        AutomorphismOrbit(AlignedCoupling(HarmonicPrior.from_bonds(bonds(TREE))))
