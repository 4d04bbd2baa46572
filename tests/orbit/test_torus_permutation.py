import pytest
import torch

from orbitdiff.errors import BadInput, IncompatibleKernel
from orbitdiff.groups import TorusTranslation
from orbitdiff.groups.permutation import BlockPermutations
from orbitdiff.kernels import GaussianKernel, GeometricSigma, Parametrization, WrappedNormalKernel
from orbitdiff.orbit import (
    OrbitContext,
    PlainTarget,
    TorusOrbit,
    TorusPermutationOrbit,
    torus_posterior,
)
from orbitdiff.orbit.torus_gibbs import gibbs_score, permutation_chain
from orbitdiff.testing import EstimatorContract

SCORE = Parametrization.SCORE
KERNEL = WrappedNormalKernel(GeometricSigma())
TYPES = (8, 8, 8, 22, 56, 56)


def types_of(rows, types=TYPES):
    return torch.tensor(types).repeat(rows, 1)


def listed(rows, types=TYPES):
    table = BlockPermutations(types).elements()
    return table.expand(rows, -1, -1)


def problem(sigma, rows=64, types=TYPES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x_0 = torch.rand(rows, len(types), 3, generator=generator, dtype=torch.float64)
    t = torch.full((rows,), sigma, dtype=torch.float64).div(0.005).log() / torch.log(
        torch.tensor(100.0)
    )
    return KERNEL.sample(x_0, t, generator=generator).x_t, x_0, t


class WithLikeAtoms(EstimatorContract):
    """Four atoms of types A A B B."""

    def kernel(self):
        return KERNEL

    def group(self):
        return TorusTranslation()

    def exact(self):
        return TorusOrbit(KERNEL, parametrization=SCORE)

    def points(self, num, generator):
        return torch.rand(num, 4, 3, generator=generator, dtype=torch.float64)

    def act_on_target(self, g, value):
        return value

    def context(self, x_0):
        # padding gets the type of real atoms, which must not matter
        types = (1, 1, 2, 2) + (2,) * (x_0.shape[1] - 4)
        table = BlockPermutations((1, 1, 2, 2)).elements()
        table = torch.cat([table, torch.arange(4, x_0.shape[1]).expand(4, -1)], 1)
        return OrbitContext(
            permutations=table.expand(len(x_0), -1, -1), atom_types=types_of(len(x_0), types)
        )


class TestEnumeration(WithLikeAtoms):
    def estimator(self):
        return TorusPermutationOrbit(KERNEL)


class TestChain(WithLikeAtoms):
    def estimator(self):
        return TorusPermutationOrbit(KERNEL, max_enumerated=1, sweeps=2)


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.3])
def test_small_groups_are_listed(sigma):
    """The orbit of mixed sizes, padded, equals TorusOrbit with each crystal's own list."""
    kinds = [(1, 2, 3, 4, 5, 6), (1, 1, 1, 2, 2, 3), (1, 1, 1, 1, 2, 2), (1, 1, 2, 2)]
    x_t, x_0, t = problem(sigma, rows=len(kinds))
    mask = torch.tensor([[place < len(kind) for place in range(6)] for kind in kinds])
    types = torch.tensor([list(kind) + [1] * (6 - len(kind)) for kind in kinds])
    found = TorusPermutationOrbit(KERNEL)(
        x_t, x_0, t, mask=mask, context=OrbitContext(atom_types=types)
    )
    for row, kind in enumerate(kinds):
        n = len(kind)
        alone = TorusOrbit(KERNEL, parametrization=SCORE)(
            x_t[row : row + 1, :n],
            x_0[row : row + 1, :n],
            t[row : row + 1],
            context=OrbitContext(permutations=listed(1, kind)),
        )
        assert torch.allclose(found.value[row, :n], alone.value[0], atol=1e-9, rtol=1e-9)
        assert torch.isclose(found.info.log_evidence[row], alone.info.log_evidence[0])
        assert not found.value[row, n:].any()


def test_the_rule_shares_rows_out():
    """24 permutations are listed, 144 in closed form only, 20! never."""
    kinds = [(1, 1, 1, 1, 2, 3, 4), (1, 1, 1, 1, 2, 2, 2), (1, 1, 1, 1, 1, 1, 1)]
    types = torch.tensor(kinds)
    mask = torch.ones_like(types, dtype=torch.bool)
    estimator = TorusPermutationOrbit(KERNEL)

    def rows_at(sigma):
        listed, sampled = estimator.plan(types, mask, torch.full((3,), sigma).double())
        return sorted(int(r) for rows, _ in listed for r in rows), sampled.tolist()

    assert rows_at(0.3) == ([0], [1, 2])
    assert rows_at(0.02) == ([0, 1], [2])


@pytest.mark.parametrize("sigma", [0.12, 0.2, 0.35])
def test_chain_is_unbiased_and_reduces_the_error(sigma):
    """|z| < 4 for the mean of the chain against enumeration; its error falls with its length."""
    rows = 1500
    x_t, x_0, t = problem(sigma, rows)
    exact = TorusOrbit(KERNEL, parametrization=SCORE)(
        x_t, x_0, t, context=OrbitContext(permutations=listed(rows))
    ).value
    plain = PlainTarget(KERNEL, parametrization=SCORE)(x_t, x_0, t).value
    direction = exact / exact.square().mean((1, 2), keepdim=True).sqrt()
    errors = [float((plain - exact).square().mean())]
    for sweeps in (0, 2, 8):
        found = TorusPermutationOrbit(KERNEL, max_enumerated=1, sweeps=sweeps)(
            x_t,
            x_0,
            t,
            context=OrbitContext(atom_types=types_of(rows)),
            generator=torch.Generator().manual_seed(1),
        )
        error = found.value - exact
        along = (direction * error).mean((1, 2))
        assert abs(float(along.mean() / (along.std() / rows**0.5))) < 4
        errors.append(float(error.square().mean()))
        assert found.info.log_evidence is None
    assert errors == sorted(errors, reverse=True)


def test_chain_visits_permutations_by_their_posterior():
    """Frequencies of a long chain from one x_t against the weights of the enumeration."""
    types = (1, 1, 1, 2)
    x_t, x_0, t = problem(0.2, rows=1, types=types, seed=4)
    sigma = KERNEL.schedule(t).sigma
    table = listed(1, types)
    weights = torus_posterior(x_t, x_0, sigma, permutations=table).weights[0]
    chains = 400
    states = permutation_chain(
        x_t.repeat(chains, 1, 1),
        x_0.repeat(chains, 1, 1),
        sigma.repeat(chains),
        types_of(chains, types),
        torch.ones(chains, 4, dtype=torch.bool),
        sweeps=60,
        generator=torch.Generator().manual_seed(2),
    )[:, 20:]
    share = (states[:, :, None] == table[0]).all(-1).double().mean(1)
    mean, spread = share.mean(0), share.std(0) / chains**0.5
    assert float(((mean - weights) / (spread + 1e-3)).abs().max()) < 4
    assert float(weights.amax()) < 0.95


def test_twenty_like_atoms():
    """A group of 20! is beyond any list; the chain gives a finite target in float32."""
    x_t, x_0, t = (part.float() for part in problem(0.2, rows=3, types=(6,) * 20))
    found = TorusPermutationOrbit(KERNEL)(
        x_t,
        x_0,
        t,
        context=OrbitContext(atom_types=types_of(3, (6,) * 20)),
        generator=torch.Generator().manual_seed(0),
    )
    assert found.value.dtype == torch.float32
    assert bool(torch.isfinite(found.value).all())


def test_no_sweeps_is_the_mean_over_translations():
    x_t, x_0, t = problem(0.2)
    sigma = KERNEL.schedule(t).sigma
    alone = TorusOrbit(KERNEL, parametrization=SCORE)(x_t, x_0, t).value
    found = gibbs_score(x_t, x_0, sigma, types_of(len(x_0)), sweeps=0)
    assert torch.allclose(found, alone, atol=1e-10)


def test_refusals():
    x_t, x_0, t = problem(0.2, rows=2)
    estimator = TorusPermutationOrbit(KERNEL)
    with pytest.raises(BadInput, match="atom types"):
        estimator(x_t, x_0, t)
    with pytest.raises(BadInput, match=r"expected atom_types \(2, 6\)"):
        estimator(x_t, x_0, t, context=OrbitContext(atom_types=types_of(2, (1, 1))))
    with pytest.raises(BadInput, match="negative"):
        estimator(x_t, x_0, t, context=OrbitContext(atom_types=-types_of(2)))
    with pytest.raises(BadInput, match="max_enumerated"):
        TorusPermutationOrbit(KERNEL, max_enumerated=10_000)
    with pytest.raises(BadInput, match="sweeps"):
        TorusPermutationOrbit(KERNEL, sweeps=-1)
    with pytest.raises(BadInput, match="score"):
        TorusPermutationOrbit(KERNEL, parametrization=Parametrization.DATA)
    with pytest.raises(IncompatibleKernel):
        TorusPermutationOrbit(GaussianKernel(GeometricSigma()))
