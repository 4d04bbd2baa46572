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
from orbitdiff.orbit.rotation_samples import RotationSamples, super_fibonacci
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


@pytest.mark.parametrize("spread", ["haar", "super_fibonacci"])
def test_many_elements_come_near_the_exact_mean(spread):
    assert error(2.0, num_samples=20_000, spread=spread) < 0.02
    assert error(2.0, num_samples=20_000, spread=spread) < 0.3 * error(2.0, num_samples=64)


def test_an_even_spread_beats_a_random_one_at_high_noise():
    even = error(5.0, num_samples=1024, include_true=False, spread="super_fibonacci")
    assert even < 0.2 * error(5.0, num_samples=1024, include_true=False)


def test_without_the_true_element_it_is_worse_than_none_at_small_noise():
    assert error(0.1, num_samples=64, include_true=False) > 5 * error(0.1, num_samples=64)


def test_the_evidence_is_that_of_the_exact_one():
    x_t, x_0, t = problem(5.0)
    exact = RotationOrbit(KERNEL)(x_t, x_0, t).info.log_evidence
    found = RotationSamples(KERNEL, num_samples=20_000, spread="super_fibonacci")(x_t, x_0, t)
    torch.testing.assert_close(found.info.log_evidence, exact, rtol=0, atol=0.02)


def test_a_covariance_over_atoms_enters_the_statistic():
    kernel = HarmonicKernel(HarmonicPrior.from_bonds(CHAIN), sigma=0.1)
    generator = torch.Generator().manual_seed(0)
    x_0 = cloud(32, generator)
    t = torch.full((32,), 0.8, dtype=torch.float64)
    drawn = kernel.sample(x_0, t, generator=generator)
    exact = RotationOrbit(kernel)(drawn.x_t, x_0, t)
    found = RotationSamples(kernel, num_samples=50_000, spread="super_fibonacci")(
        drawn.x_t, x_0, t, generator=generator
    )
    assert float((found.value - exact.value).abs().max()) < 0.1
    torch.testing.assert_close(found.info.log_evidence, exact.info.log_evidence, rtol=0, atol=0.05)


def test_chunks_change_nothing(monkeypatch):
    x_t, x_0, t = problem(1.0)

    def run():
        generator = torch.Generator().manual_seed(4)
        return RotationSamples(KERNEL, num_samples=50)(x_t, x_0, t, generator=generator)

    whole = run()
    monkeypatch.setattr(module, "WEIGHTS_AT_ONCE", 350)
    torch.testing.assert_close(run().value, whole.value)


def test_the_spiral_is_even():
    spiral = super_fibonacci(2000)
    assert torch.allclose(spiral @ spiral.mT, torch.eye(3, dtype=torch.float64).expand(2000, 3, 3))
    assert float(spiral.mean(0).abs().max()) < 2e-3


def test_refusals():
    with pytest.raises(IncompatibleKernel):
        RotationSamples(AlignedCoupling(HarmonicPrior.from_bonds(CHAIN)), num_samples=4)
    for wrong in ({"num_samples": 0}, {"num_samples": 4, "spread": "cube"},
                  {"num_samples": 4, "temperature": 0.0}):  # fmt: skip
        with pytest.raises(BadInput):
            RotationSamples(KERNEL, **wrong)
    x_t, x_0, t = problem(1.0)
    context = OrbitContext(permutations=torch.arange(5).expand(64, 1, 5))
    with pytest.raises(BadInput, match="RotationOrbit"):
        RotationSamples(KERNEL, num_samples=4)(x_t, x_0, t, context=context)
