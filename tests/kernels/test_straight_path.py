"""The flow from a normal prior without its mean, against the harmonic kernel and by hand."""

import math

import pytest
import torch

from orbitdiff.errors import BadInput, IncompatibleKernel
from orbitdiff.groups import O3, SO3, Sign
from orbitdiff.kernels import (
    GaussianKernel,
    GeometricSigma,
    HarmonicKernel,
    HarmonicPrior,
    Parametrization,
    ScaledPath,
)
from orbitdiff.orbit import FiniteOrbit, PlainTarget, RotationOrbit, RotationSamples
from orbitdiff.testing import EstimatorContract, KernelContract

DATA, SCORE = Parametrization.DATA, Parametrization.SCORE
NOISE, VELOCITY = Parametrization.NOISE, Parametrization.VELOCITY
F64 = torch.float64
SCALE = 2.5


def centred(x):
    return x - x.mean(-2, keepdim=True)


def straight():
    return GaussianKernel(ScaledPath(SCALE), centred=True)


def harmonic(count):
    """The same law by eigenvectors: H = centring / scale^2."""
    centring = torch.eye(count, dtype=F64) - 1 / count
    return HarmonicKernel(HarmonicPrior(centring / SCALE**2))


class TestStraightPath(KernelContract):
    conversions = (DATA, NOISE, SCORE, VELOCITY)

    def kernel(self):
        return straight()

    def groups(self):
        return SO3(), O3()

    def points(self, generator):
        return centred(torch.randn(6, 4, 3, generator=generator, dtype=F64))

    def support(self, t):
        return 0.3 * (1 - t) - 7 * SCALE * t, 0.3 * (1 - t) + 7 * SCALE * t

    def pair(self, separation):
        """Two atoms on a line; the separation over the root of two has unit spread sigma."""
        line = torch.tensor([[1.0], [-1.0]], dtype=F64) / math.sqrt(2)
        return separation[:, None, None] * line

    def density(self, t, cells):
        low, high = self.support(t)
        width = (high - low) / cells
        at = low + width * (torch.arange(cells, dtype=F64) + 0.5)
        times = torch.full((cells,), t, dtype=F64)
        x_0 = self.pair(torch.full((cells,), 0.3, dtype=F64))
        return at, self.kernel().log_prob(self.pair(at) + 5.0, x_0, times).exp() * width

    def test_samples_follow_the_density(self):
        for t in self.times:
            at, mass = self.density(t, 8192)
            x_0 = self.pair(torch.full((20_000,), 0.3, dtype=F64))
            times = torch.full((20_000,), t, dtype=F64)
            generator = torch.Generator().manual_seed(1)
            x_t = self.kernel().sample(x_0, times, generator=generator).x_t
            assert x_t.mean(1).abs().max() < 1e-12
            drawn = (x_t[:, 0] - x_t[:, 1]).flatten() / math.sqrt(2)
            below = torch.searchsorted(drawn.sort().values, at) / len(drawn)
            assert (below - (mass.cumsum(0) - mass / 2)).abs().max() < 2 / len(drawn) ** 0.5

    def test_padding_is_silent(self):
        """Padding stays zero and does not shift the mean."""
        x_t, x_0, t = self.noised(0.6)
        mask = torch.arange(5) < 4
        wide_t, wide_0 = (torch.nn.functional.pad(x, (0, 0, 0, 1)) for x in (x_t, x_0))
        drawn = self.kernel().sample(wide_0, t, mask=mask.expand(6, -1))
        assert bool((drawn.x_t[:, -1] == 0).all())
        assert drawn.x_t.sum(1).abs().max() < 1e-12
        assert drawn.noise.sum(1).abs().max() < 1e-12
        found = self.kernel().log_prob(wide_t, wide_0, t, mask=mask.expand(6, -1))
        assert torch.allclose(found, self.kernel().log_prob(x_t, x_0, t))

    def test_blocks_sum_to_the_joint_density(self):
        x_t, x_0, t = self.noised(0.6)
        blocks = self.kernel().log_prob_per_axis(x_t, x_0, t).sum(-1)
        assert torch.allclose(blocks, self.kernel().log_prob(x_t, x_0, t))

    @pytest.mark.parametrize("t", [0.02, 0.5, 1.0])
    def test_it_is_the_harmonic_kernel_of_even_springs(self, t):
        x_t, x_0, times = self.noised(t)
        mine, theirs = self.kernel(), harmonic(4)
        assert torch.allclose(mine.log_prob(x_t, x_0, times), theirs.log_prob(x_t, x_0, times))
        for kind in (SCORE, VELOCITY):
            found, wanted = (kernel.target(x_t, x_0, times, kind) for kernel in (mine, theirs))
            assert torch.allclose(found, wanted, atol=1e-8)
        value = mine.target(x_t, x_0, times, VELOCITY)
        found, wanted = (
            kernel.convert(value, VELOCITY, DATA, x_t, times) for kernel in (mine, theirs)
        )
        assert torch.allclose(found, x_0, atol=1e-8)
        assert torch.allclose(found, wanted, atol=1e-8)

    def test_velocity_is_the_slope_of_the_path(self):
        """Finite difference of x_t at one noise; with and without that noise as an argument."""
        x_0 = self.points(torch.Generator().manual_seed(0))
        x, times = [], []
        for t in (0.3, 0.3 + 1e-6):
            times.append(torch.full((6,), t, dtype=F64))
            generator = torch.Generator().manual_seed(1)
            x.append(self.kernel().sample(x_0, times[-1], generator=generator))
        slope = (x[1].x_t - x[0].x_t) / 1e-6
        for noise in (None, x[0].noise):
            found = self.kernel().target(x[0].x_t, x_0, times[0], VELOCITY, noise=noise)
            assert torch.allclose(found, slope, atol=1e-6)
        assert torch.allclose(slope, SCALE * x[0].noise - x_0, atol=1e-6)

    def test_prior_has_the_scale_and_no_mean(self):
        drawn = self.kernel().prior((4000, 5, 3), generator=torch.Generator().manual_seed(0))
        assert drawn.mean(1).abs().max() < 1e-5
        assert abs(float(drawn.square().mean()) / (SCALE**2 * 4 / 5) - 1) < 0.03


class TestExactMean(EstimatorContract):
    """The exact mean over rotations of the velocity, on the subspace of centred points."""

    def kernel(self):
        return straight()

    def group(self):
        return SO3()

    def estimator(self):
        return RotationOrbit(self.kernel(), parametrization=VELOCITY)

    def exact(self):
        return self.estimator()

    def points(self, num, generator):
        return centred(3 * torch.randn(num, 5, 3, generator=generator, dtype=F64))

    def act_on_target(self, g, value):
        return SO3().act(g, value)

    def test_it_is_that_of_the_harmonic_kernel(self):
        for t in self.times:
            x_t, x_0, times = self.problem(t)
            wanted = RotationOrbit(harmonic(5), parametrization=VELOCITY)(x_t, x_0, times)
            found = self.estimator()(x_t, x_0, times)
            assert torch.allclose(found.value, wanted.value, atol=1e-8)
            assert torch.allclose(found.info.log_evidence, wanted.info.log_evidence)


class TestSampledMean(TestExactMean):
    def estimator(self):
        return RotationSamples(self.kernel(), parametrization=VELOCITY, num_samples=4)

    def exact(self):
        return RotationOrbit(self.kernel(), parametrization=VELOCITY)

    test_commutes_with_the_group = None  # turned clouds meet other rotations of the draw

    def test_it_is_that_of_the_harmonic_kernel(self):
        """Many rotations find the evidence of the exact mean."""
        x_t, x_0, times = self.problem(0.85)
        many = RotationSamples(
            self.kernel(), parametrization=VELOCITY, num_samples=20_000, include_true=False
        )
        found = many(x_t, x_0, times, generator=torch.Generator().manual_seed(0)).info
        wanted = self.exact()(x_t, x_0, times).info
        assert torch.allclose(found.log_evidence, wanted.log_evidence, atol=0.05)


def test_only_declared_groups_are_accepted():
    with pytest.raises(IncompatibleKernel):
        FiniteOrbit(straight(), Sign(), parametrization=DATA)
    FiniteOrbit(GaussianKernel(ScaledPath()), Sign(), parametrization=DATA)


def test_a_velocity_needs_a_smooth_schedule():
    kernel = GaussianKernel(GeometricSigma())
    x, t = torch.zeros(1, 2, 3), torch.ones(1)
    with pytest.raises(BadInput, match="slopes"):
        PlainTarget(kernel, parametrization=VELOCITY)(x, x, t)
    with pytest.raises(BadInput, match="scale"):
        ScaledPath(0.0)
