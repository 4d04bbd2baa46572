import math

import pytest
import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.rotation import O3, SO3
from orbitdiff.kernels import Parametrization
from orbitdiff.kernels.harmonic import HarmonicKernel
from orbitdiff.kernels.harmonic_prior import HarmonicPrior
from orbitdiff.kernels.interpolant import Interpolant
from orbitdiff.orbit.rotation_orbit import RotationOrbit
from orbitdiff.testing import KernelContract

DATA, SCORE = Parametrization.DATA, Parametrization.SCORE
VELOCITY, NOISE = Parametrization.VELOCITY, Parametrization.NOISE
F64 = torch.float64


def bonded(count, *pairs):
    bonds = torch.zeros(count, count, dtype=torch.bool)
    for a, b in pairs:
        bonds[a, b] = bonds[b, a] = True
    return bonds


STAR = bonded(4, (0, 1), (0, 2), (0, 3))
RING = bonded(4, (0, 1), (1, 2), (2, 3), (3, 0))
PAIR = bonded(2, (0, 1))
SPRING = 0.7


def stiffness(bonds):
    return SPRING * (torch.diag(bonds.sum(1)) - bonds.double())


def harmonic(bonds, **more):
    return HarmonicPrior.from_bonds(bonds, spring=SPRING, **more)


def covariance(bonds, t, sigma):
    """Sigma of the definition, by pseudo-inverses."""
    count = len(bonds)
    centre = torch.eye(count, dtype=F64) - 1 / count
    return t**2 * torch.linalg.pinv(stiffness(bonds)) + sigma**2 * t * (1 - t) * centre


class TestHarmonicKernel(KernelContract):
    conversions = (DATA, SCORE, VELOCITY)
    sigma = 0.3

    def kernel(self):
        return HarmonicKernel(harmonic(STAR), sigma=self.sigma)

    def groups(self):
        return (SO3(), O3())

    def points(self, generator):
        return torch.randn(6, 4, 3, generator=generator, dtype=F64)

    def support(self, t):
        """Of the separation of two atoms in units of its length one direction."""
        spread = math.sqrt(float(covariance(PAIR, t, self.sigma).trace()))
        centre = 0.3 * (1 - t)
        return centre - 7 * spread, centre + 7 * spread

    def pair(self, separation, t):
        """Two atoms on a line whose centred coordinates are `separation` (1, -1) / sqrt 2."""
        x = separation[:, None, None] * torch.tensor([[1.0], [-1.0]], dtype=F64) / math.sqrt(2)
        times = torch.full((len(x),), t, dtype=F64)
        return HarmonicKernel(harmonic(PAIR), sigma=self.sigma), x, times

    def density(self, t, cells):
        low, high = self.support(t)
        width = (high - low) / cells
        at = low + width * (torch.arange(cells, dtype=F64) + 0.5)
        kernel, x_t, times = self.pair(at, t)
        x_0 = self.pair(torch.full((cells,), 0.3, dtype=F64), t)[1]
        return at, kernel.log_prob(x_t + 5.0, x_0, times).exp() * width

    def test_samples_follow_the_density(self):
        for t in self.times:
            at, mass = self.density(t, 8192)
            kernel, x_0, times = self.pair(torch.full((20_000,), 0.3, dtype=F64), t)
            x_t = kernel.sample(x_0, times, generator=torch.Generator().manual_seed(1)).x_t
            assert x_t.mean(1).abs().max() < 1e-12
            drawn = (x_t[:, 0] - x_t[:, 1]).flatten() / math.sqrt(2)
            below = torch.searchsorted(drawn.sort().values, at) / len(drawn)
            assert (below - (mass.cumsum(0) - mass / 2)).abs().max() < 2 / len(drawn) ** 0.5

    def test_padding_is_silent(self):
        """The padding is that of the prior."""
        wide = torch.zeros(5, 5, dtype=torch.bool)
        wide[:4, :4] = STAR
        mask = torch.arange(5) < 4
        padded = HarmonicKernel(harmonic(wide, mask=mask), sigma=self.sigma)
        x_t, x_0, t = self.noised(0.6)
        alone = self.kernel()
        x_t_wide, x_0_wide = (torch.nn.functional.pad(x, (0, 0, 0, 1)) for x in (x_t, x_0))
        drawn = padded.sample(x_0_wide, t, mask=mask.expand(6, -1))
        assert bool((drawn.x_t[:, -1] == 0).all())
        assert bool((drawn.noise[:, -1] == 0).all())
        x_t_wide[:, -1] = 9.0
        for kind in (SCORE, VELOCITY):
            target = padded.target(x_t_wide, x_0_wide, t, kind)
            assert torch.allclose(target[:, :-1], alone.target(x_t, x_0, t, kind))
            assert bool((target[:, -1] == 0).all())
        found = padded.log_prob(x_t_wide, x_0_wide, t)
        assert torch.allclose(found, alone.log_prob(x_t, x_0, t))


class TestStraightLine(TestHarmonicKernel):
    sigma = 0.0


class TestIsotropic(TestHarmonicKernel):
    """Conditional optimal transport from unit normal noise without its mean."""

    def kernel(self):
        return HarmonicKernel(HarmonicPrior.isotropic(torch.ones(4, dtype=torch.bool)))

    def test_variance_is_t_squared(self):
        x_t, x_0, t = self.noised(0.4)
        gap = x_t - 0.6 * x_0
        gap = gap - gap.mean(1, keepdim=True)
        expected = -gap.square().sum((1, 2)) / (2 * 0.4**2) - 4.5 * math.log(2 * math.pi * 0.4**2)
        assert torch.allclose(self.kernel().log_prob(x_t, x_0, t), expected)
        expected = (gap + 0.6 * gap.new_zeros(1)) / 0.4 - x_0
        assert torch.allclose(self.kernel().target(x_t, x_0, t, VELOCITY), expected)

    test_padding_is_silent = None


def test_prior_has_the_pseudo_inverse_covariance():
    prior = harmonic(RING)
    x = prior.sample(torch.empty(40_000, 4, 3, dtype=F64), generator=torch.manual_seed(0))
    found = torch.einsum("bnd,bmd->nm", x, x) / (40_000 * 3)
    assert torch.allclose(found, torch.linalg.pinv(stiffness(RING)), atol=0.02)
    assert x.mean(1).abs().max() < 1e-12


def test_prior_density_is_that_of_independent_coordinates():
    """Against a full-rank normal in an orthonormal basis of the centred points."""
    basis = torch.linalg.svd(torch.ones(1, 4, dtype=F64)).Vh[1:]
    law = torch.distributions.MultivariateNormal(
        torch.zeros(3, dtype=F64), precision_matrix=basis @ stiffness(STAR) @ basis.T
    )
    x = torch.randn(5, 4, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    expected = law.log_prob((basis @ x).mT).sum(1)
    assert torch.allclose(harmonic(STAR).log_prob(x), expected)


@pytest.mark.parametrize("sigma", [0.0, 0.3])
@pytest.mark.parametrize("t", [0.05, 0.5, 1.0])
def test_precision_is_the_pseudo_inverse(t, sigma):
    kernel = HarmonicKernel(harmonic(STAR), sigma=sigma)
    found = kernel.precision(torch.tensor([t], dtype=F64))[0]
    assert torch.allclose(found, torch.linalg.pinv(covariance(STAR, t, sigma)))


def test_one_graph_per_sample():
    """Graphs of unlike size share a batch, with K clean points each."""
    bonds = torch.zeros(2, 4, 4, dtype=torch.bool)
    bonds[0], bonds[1, :2, :2] = STAR, PAIR
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    kernel = HarmonicKernel(harmonic(bonds, mask=mask), sigma=0.2)
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.randn(2, 3, 4, 3, generator=generator, dtype=F64) * mask[:, None, :, None]
    t = torch.tensor([0.3, 0.7], dtype=F64)
    x_t = kernel.sample(x_0[:, 0], t, generator=generator).x_t
    together = kernel.log_prob(x_t[:, None], x_0, t[:, None])
    score = kernel.target(x_t[:, None], x_0, t[:, None], SCORE)
    precision = kernel.precision(t)
    for row, (graph, size) in enumerate(((STAR, 4), (PAIR, 2))):
        alone = HarmonicKernel(harmonic(graph), sigma=0.2)
        time = t[row].expand(3)
        x_t_row, x_0_row = x_t[row, :size].expand(3, -1, -1), x_0[row, :, :size]
        assert torch.allclose(together[row], alone.log_prob(x_t_row, x_0_row, time))
        expected = alone.target(x_t_row, x_0_row, time, SCORE)
        assert torch.allclose(score[row, :, :size], expected)
        assert bool((score[row, :, size:] == 0).all())
        assert torch.allclose(precision[row, :size, :size], alone.precision(time)[0])


@pytest.mark.parametrize("sigma", [0.0, 0.4])
def test_velocity_and_prior_sample_are_conditional_means(sigma):
    """E[noise | x_t, x_0] and E[y | x_t, x_0] by the joint covariance of a Gaussian."""
    t = 0.35
    generator = torch.Generator().manual_seed(0)
    kernel = HarmonicKernel(harmonic(STAR), sigma=sigma)
    x_0 = torch.randn(1, 4, 3, generator=generator, dtype=F64)
    times = torch.full((1,), t, dtype=F64)
    x_t = kernel.sample(x_0, times, generator=generator).x_t
    spring = torch.linalg.pinv(stiffness(STAR))
    centre = torch.eye(4, dtype=F64) - 0.25
    # x_t and the noise share y and eps: Cov(x_t, noise) = t H^+ + s s' P
    joint = t * spring + 0.5 * sigma**2 * (1 - 2 * t) * centre
    whitened = torch.linalg.pinv(covariance(STAR, t, sigma)) @ (x_t - (1 - t) * x_0)
    velocity = kernel.target(x_t, x_0, times, VELOCITY)
    assert torch.allclose(velocity, joint @ whitened - x_0)
    assert torch.allclose(kernel.mean_prior_sample(x_t, x_0, times), t * spring @ whitened)


def test_noise_gives_the_derivative_in_time():
    """With the same y and eps, d x_t / dt is the plain velocity."""
    path = Interpolant(0.4)
    generator = torch.Generator().manual_seed(0)
    x_0, y, eps = torch.randn(3, 5, 4, 3, generator=generator, dtype=F64)
    t = torch.linspace(0.1, 0.9, 5, dtype=F64)
    kernel = HarmonicKernel(harmonic(STAR), sigma=0.4)
    found = kernel.target(x_0, x_0, t, VELOCITY, noise=path.mix(x_0, y, eps, t).noise)
    step = 1e-6
    slope = path.mix(x_0, y, eps, t + step).x_t - path.mix(x_0, y, eps, t - step).x_t
    assert torch.allclose(found, slope / (2 * step), atol=1e-8)


@pytest.mark.parametrize("t", [0.2, 0.6, 0.9])
def test_mean_velocity_over_rotations_is_unbiased(t):
    """E<phi(x_t), plain velocity - mean velocity> = 0 with x_0 turned at random."""
    draws = 4000
    generator = torch.Generator().manual_seed(1)
    kernel = HarmonicKernel(harmonic(STAR), sigma=0.3)
    shape = torch.randn(4, 3, generator=generator, dtype=F64)
    shape = shape - shape.mean(0)
    x_0 = SO3().act(SO3().sample(draws, generator=generator), shape)
    times = torch.full((draws,), t, dtype=F64)
    x_t, noise = kernel.sample(x_0, times, generator=generator)
    mean = RotationOrbit(kernel, parametrization=VELOCITY)(x_t, x_0, times).value
    error = (noise - x_0) - mean
    for direction in (x_t, mean, torch.tanh(x_t)):
        along = (direction * error).mean((1, 2))
        assert abs(float(along.mean() / along.std())) * draws**0.5 < 4
    assert mean.square().mean() < (noise - x_0).square().mean()


def test_float32_points_stay_float32():
    kernel = HarmonicKernel(harmonic(STAR), sigma=0.3)
    x_0, t = torch.randn(3, 4, 3, generator=torch.manual_seed(0)), torch.full((3,), 0.4)
    x_t, noise = kernel.sample(x_0, t)
    assert {x_t.dtype, noise.dtype, kernel.prior((3, 4, 3)).dtype} == {torch.float32}
    for kind in (DATA, SCORE, VELOCITY):
        found = kernel.target(x_t, x_0, t, kind)
        exact = kernel.target(x_t.double(), x_0.double(), t.double(), kind)
        assert found.dtype == torch.float32
        assert torch.allclose(found.double(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: harmonic(bonded(4, (0, 1), (2, 3))), "sample 0: .*connected"),
        (lambda: harmonic(torch.stack([STAR, bonded(4, (0, 1))])), "sample 1: .*3 free modes"),
        (lambda: HarmonicPrior(torch.zeros(3, 4)), "stiffness"),
        (lambda: HarmonicPrior(stiffness(STAR), mask=torch.ones(3, dtype=torch.bool)), "mask"),
        (lambda: HarmonicKernel(harmonic(STAR), sigma=-1.0), "sigma"),
    ],
)
def test_wrong_graphs_are_refused(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_no_noise_parametrization():
    kernel = HarmonicKernel(harmonic(STAR))
    x, t = torch.zeros(1, 4, 3), torch.ones(1)
    with pytest.raises(BadInput, match="noise"):
        kernel.target(x, x, t, NOISE)


def test_single_atom_does_not_move():
    kernel = HarmonicKernel(harmonic(torch.zeros(1, 1, dtype=torch.bool)), sigma=0.1)
    x_0, t = torch.ones(2, 1, 3), torch.full((2,), 0.5)
    assert torch.equal(kernel.sample(x_0, t).x_t, 0.5 * x_0)
    assert torch.equal(kernel.log_prob(x_0, x_0, t), torch.zeros(2))
