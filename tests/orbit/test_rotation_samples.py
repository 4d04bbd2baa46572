import math

import pytest
import torch

from orbitdiff.errors import BadInput, IncompatibleKernel
from orbitdiff.groups.rotation import SO3
from orbitdiff.kernels import (
    AlignedCoupling,
    GaussianKernel,
    GeometricSigma,
    HarmonicKernel,
    Parametrization,
)
from orbitdiff.kernels.harmonic_prior import HarmonicPrior
from orbitdiff.orbit import OrbitContext, PlainTarget, RotationOrbit
from orbitdiff.orbit import rotation_samples as module
from orbitdiff.orbit.gaussian_form import GaussianForm
from orbitdiff.orbit.matrix_fisher import orthogonal_moments
from orbitdiff.orbit.rotation_proposals import super_fibonacci
from orbitdiff.orbit.rotation_proposals_near import WrappedNormalRotations
from orbitdiff.orbit.rotation_samples import PROPOSALS, RotationSamples
from orbitdiff.testing import SampledEstimatorContract

KERNEL = GaussianKernel(GeometricSigma(0.05, 10.0))
DATA = Parametrization.DATA
CHAIN = torch.diag_embed(torch.ones(4), 1) + torch.diag_embed(torch.ones(4), -1) > 0


def cloud(batch, generator):
    x_0 = 1.5 * torch.randn(batch, 5, 3, generator=generator, dtype=torch.float64)
    return x_0 - x_0.mean(1, keepdim=True)


def problem(sigma, batch=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x_0 = cloud(batch, generator)
    t = (torch.tensor(sigma / 0.05).log() / torch.tensor(200.0).log()).double().expand(batch)
    return KERNEL.sample(x_0, t, generator=generator).x_t, x_0, t


class TestRotationSamples(SampledEstimatorContract):
    parametrization = DATA

    def kernel(self):
        return KERNEL

    def group(self):
        return SO3()

    def points(self, num, generator):
        return cloud(num, generator)

    def act_on_target(self, g, value):
        return SO3().act(g, value)

    def build(self, num_samples):
        return RotationSamples(KERNEL, parametrization=DATA, num_samples=num_samples)

    def exact(self):
        return RotationOrbit(KERNEL, parametrization=DATA)

    def test_commutes_with_the_group(self):
        """Rotations do not commute: sampled targets are equivariant in distribution only."""


class TestLaplaceSamples(TestRotationSamples):
    times = (0.1, 0.4, 0.85)

    def build(self, num_samples):
        return RotationSamples(
            KERNEL, parametrization=DATA, num_samples=num_samples, proposal="laplace"
        )

    def test_more_samples_converge_to_exact(self):
        """Below a fifth of the error at any noise, with an ESS in proportion to K."""
        for t in self.times:
            x_t, x_0, times = self.problem(t, num=24)
            exact = self.run(self.exact(), x_t, x_0, times).value
            found = [self.run(self.build(num), x_t, x_0, times) for num in (8, 1024)]
            errors = [float((part.value - exact).square().mean().sqrt()) for part in found]
            assert errors[1] < errors[0] / 5
            assert float(found[1].info.ess.min()) > 0.2 * 1024


def error(sigma, **more):
    x_t, x_0, t = problem(sigma)
    exact = RotationOrbit(KERNEL)(x_t, x_0, t).value
    generator = torch.Generator().manual_seed(1)
    found = RotationSamples(KERNEL, **more)(x_t, x_0, t, generator=generator).value
    return float(((found - exact).square().mean() / x_0.square().mean()).sqrt())


def test_one_element_is_the_plain_target():
    x_t, x_0, t = problem(1.0)
    found = RotationSamples(KERNEL, num_samples=1)(x_t, x_0, t)
    torch.testing.assert_close(
        found.value, PlainTarget(KERNEL, parametrization=DATA)(x_t, x_0, t).value
    )
    torch.testing.assert_close(found.info.ess, torch.ones(64, dtype=torch.float64))


@pytest.mark.parametrize("proposal", ["haar", "super_fibonacci", "laplace", "wrapped_normal"])
def test_many_elements_come_near_the_exact_mean(proposal):
    assert error(2.0, num_samples=20_000, proposal=proposal) < 0.02
    assert error(2.0, num_samples=20_000, proposal=proposal) < 0.3 * error(2.0, num_samples=64)


def test_an_even_spread_beats_a_random_one_at_high_noise():
    even = error(5.0, num_samples=1024, include_true=False, proposal="super_fibonacci")
    assert even < 0.2 * error(5.0, num_samples=1024, include_true=False)


def test_without_the_true_element_it_is_worse_than_none_at_small_noise():
    assert error(0.1, num_samples=64, include_true=False) > 5 * error(0.1, num_samples=64)


def test_the_evidence_is_that_of_the_exact_one():
    x_t, x_0, t = problem(5.0)
    exact = RotationOrbit(KERNEL)(x_t, x_0, t).info.log_evidence
    found = RotationSamples(KERNEL, num_samples=20_000, proposal="super_fibonacci")(x_t, x_0, t)
    torch.testing.assert_close(found.info.log_evidence, exact, rtol=0, atol=0.02)


def test_a_covariance_over_atoms_enters_the_statistic():
    kernel = HarmonicKernel(HarmonicPrior.from_bonds(CHAIN), sigma=0.1)
    generator = torch.Generator().manual_seed(0)
    x_0 = cloud(32, generator)
    t = torch.full((32,), 0.8, dtype=torch.float64)
    drawn = kernel.sample(x_0, t, generator=generator)
    exact = RotationOrbit(kernel)(drawn.x_t, x_0, t)
    found = RotationSamples(kernel, num_samples=50_000, proposal="super_fibonacci")(
        drawn.x_t, x_0, t, generator=generator
    )
    assert float((found.value - exact.value).abs().max()) < 0.1
    torch.testing.assert_close(found.info.log_evidence, exact.info.log_evidence, rtol=0, atol=0.05)


@pytest.mark.parametrize("proposal", ["haar", "super_fibonacci", "laplace", "wrapped_normal"])
def test_chunks_keep_the_accuracy(monkeypatch, proposal):
    monkeypatch.setattr(module, "NUMBERS_AT_ONCE", 24 * 6400)
    assert error(2.0, num_samples=20_000, proposal=proposal) < 0.02


def test_a_local_proposal_is_accurate_at_any_noise():
    """Where 256 uniform rotations find nothing, 256 around the mode do."""
    for sigma in (0.05, 0.3, 1.0):
        assert error(sigma, num_samples=256, proposal="laplace") < 0.1 * sigma
        assert error(sigma, num_samples=256) > 2 * error(sigma, num_samples=256, proposal="laplace")


@pytest.mark.parametrize("proposal", ["laplace", "wrapped_normal"])
@pytest.mark.parametrize("sigma", [0.3, 2.0, 8.0])
def test_the_density_of_a_proposal_is_that_of_its_draws(proposal, sigma):
    """E_q[p / q] is the constant of the matrix Fisher distribution, with its own mean."""
    x_t, x_0, t = problem(sigma, batch=8)
    form = GaussianForm.of(KERNEL, t)
    cross, gram = form.cross(x_t, x_0), form.cross(x_0, x_0)
    draws = next(
        PROPOSALS[proposal].draws(
            cross, gram, [200_000], generator=torch.Generator().manual_seed(0)
        )
    )
    log_mean = torch.logsumexp(draws.log_w, 1) - torch.log(torch.tensor(200_000.0))
    exact = orthogonal_moments(cross).log_constant
    assert float((log_mean - exact).abs().max()) < 0.02
    mean = draws.mean(torch.softmax(draws.log_w, 1))
    assert float((mean - orthogonal_moments(cross).mean).abs().max()) < 0.02


def test_two_elements_by_hand():
    """wrapped_normal, K = 2: weights p / q of the true element and of the one drawn."""
    x_t, x_0, t = problem(1.0, batch=6)
    form = GaussianForm.of(KERNEL, t)
    cross, gram = form.cross(x_t, x_0), form.cross(x_0, x_0)
    proposal = WrappedNormalRotations(0.5)
    drawn = next(proposal.draws(cross, gram, [1], generator=torch.Generator().manual_seed(3)))
    rotation = drawn.mean(torch.ones(6, 1, dtype=torch.float64))
    values = torch.linalg.eigvalsh(gram)
    scale = 0.5 / torch.sqrt(values[:, 0] + values[:, 1])
    angle = torch.arccos((rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2)
    normal = torch.exp(-0.5 * (angle / scale) ** 2) / (2 * math.pi * scale**2) ** 1.5
    density = normal * 4 * math.pi**2 * angle**2 / (1 - torch.cos(angle))
    expected = (cross * rotation).sum((1, 2)) - torch.log(density)
    torch.testing.assert_close(drawn.log_w[:, 0], expected, rtol=1e-6, atol=1e-6)
    at_one = 8 * math.pi**2 / (2 * math.pi * scale**2) ** 1.5
    torch.testing.assert_close(proposal.log_density_of_identity(cross, gram), torch.log(at_one))


def test_the_spiral_is_even():
    spiral = super_fibonacci(2000)
    assert torch.allclose(spiral @ spiral.mT, torch.eye(3, dtype=torch.float64).expand(2000, 3, 3))
    assert float(spiral.mean(0).abs().max()) < 2e-3


def test_refusals():
    with pytest.raises(IncompatibleKernel):
        RotationSamples(AlignedCoupling(HarmonicPrior.from_bonds(CHAIN)), num_samples=4)
    for wrong in ({"num_samples": 0}, {"num_samples": 4, "proposal": "cube"}):
        with pytest.raises(BadInput):
            RotationSamples(KERNEL, **wrong)
    x_t, x_0, t = problem(1.0)
    context = OrbitContext(permutations=torch.arange(5).expand(64, 1, 5))
    with pytest.raises(BadInput, match="RotationOrbit"):
        RotationSamples(KERNEL, num_samples=4)(x_t, x_0, t, context=context)
