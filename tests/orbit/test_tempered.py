import pytest
import torch

from orbitdiff.errors import BadInput, IncompatibleKernel
from orbitdiff.groups.kabsch import kabsch
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
    ConstantTemperature,
    KabschOrbit,
    OrbitContext,
    PublishedTemperature,
    RotationOrbit,
    TemperedRotationOrbit,
)
from orbitdiff.orbit.rotation_proposals import super_fibonacci

KERNEL = GaussianKernel(GeometricSigma(0.05, 10.0))
CHAIN = torch.diag_embed(torch.ones(4), 1) + torch.diag_embed(torch.ones(4), -1) > 0


def harmonic():
    return HarmonicKernel(HarmonicPrior.from_bonds(CHAIN), sigma=0.1)


def problem(kernel, t=0.6, batch=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x_0 = 1.5 * torch.randn(batch, 5, 3, generator=generator, dtype=torch.float64)
    x_0 = x_0 - x_0.mean(1, keepdim=True)
    time = torch.full((batch,), t, dtype=torch.float64)
    return kernel.sample(x_0, time, generator=generator).x_t, x_0, time


def by_enumeration(kernel, x_t, x_0, t, temperature):
    """Weights of 100,000 even rotations from the kernel's own density, tempered."""
    grid = super_fibonacci(100_000)
    values = []
    for row in range(len(x_0)):
        images = x_0[row] @ grid.mT
        count = len(grid)
        log_p = kernel.log_prob(x_t[row].expand(count, -1, -1), images, t[row].expand(count))
        weights = torch.softmax(log_p / temperature[row], 0)
        values.append((weights[:, None, None] * images).sum(0))
    return torch.stack(values)


@pytest.mark.parametrize("kernel", [KERNEL, harmonic()], ids=["isotropic", "harmonic"])
@pytest.mark.parametrize("temperature", [ConstantTemperature(2.5), PublishedTemperature(0.4)])
def test_tempered_weights_of_many_rotations(kernel, temperature):
    x_t, x_0, t = problem(kernel, t=0.85, batch=3)
    found = TemperedRotationOrbit(kernel, temperature)(x_t, x_0, t).value
    expected = by_enumeration(kernel, x_t, x_0, t, temperature(t))
    assert float((found - expected).abs().max()) < 0.02 * float(x_0.abs().max())


def test_temperature_one_is_the_exact_mean():
    x_t, x_0, t = problem(KERNEL)
    exact = RotationOrbit(KERNEL)(x_t, x_0, t).value
    found = TemperedRotationOrbit(KERNEL, ConstantTemperature(1.0))(x_t, x_0, t).value
    torch.testing.assert_close(found, exact)
    other = TemperedRotationOrbit(KERNEL, ConstantTemperature(0.5))(x_t, x_0, t).value
    assert float((other - exact).abs().max()) > 1e-3


@pytest.mark.parametrize("kernel", [KERNEL, harmonic()], ids=["isotropic", "harmonic"])
def test_superposition_is_the_limit_of_no_temperature(kernel):
    x_t, x_0, t = problem(kernel, t=0.5)
    cold = TemperedRotationOrbit(kernel, ConstantTemperature(1e-5))(x_t, x_0, t).value
    found = KabschOrbit(kernel)(x_t, x_0, t).value
    torch.testing.assert_close(cold, found, rtol=0, atol=1e-3)
    norms = found.square().sum((1, 2)) / x_0.square().sum((1, 2))
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_superposition_of_an_isotropic_kernel_is_that_of_kabsch():
    x_t, x_0, t = problem(KERNEL)
    torch.testing.assert_close(KabschOrbit(KERNEL)(x_t, x_0, t).value, x_0 @ kabsch(x_0, x_t).mT)


def test_samples_come_near_the_mean_of_all():
    x_t, x_0, t = problem(KERNEL, t=0.8)
    temperature = ConstantTemperature(2.0)
    whole = TemperedRotationOrbit(KERNEL, temperature)(x_t, x_0, t).value
    sampled = TemperedRotationOrbit(KERNEL, temperature, num_samples=50_000)
    found = sampled(x_t, x_0, t, generator=torch.Generator().manual_seed(0))
    assert float((found.value - whole).abs().max()) < 0.15
    assert float(found.info.ess.min()) > 10
    one = TemperedRotationOrbit(KERNEL, temperature, num_samples=1)(x_t, x_0, t)
    torch.testing.assert_close(one.value, x_0)


def test_both_are_equivariant_and_zero_in_padding():
    x_t, x_0, t = problem(KERNEL)
    turn = SO3().sample(len(x_0), generator=torch.Generator().manual_seed(1))
    padded_t, padded_0 = (torch.nn.functional.pad(part, (0, 0, 0, 1)) for part in (x_t, x_0))
    mask = torch.ones(len(x_0), 6, dtype=torch.bool)
    mask[:, -1] = False
    for estimator in (TemperedRotationOrbit(KERNEL, PublishedTemperature()), KabschOrbit(KERNEL)):
        value = estimator(x_t, x_0, t).value
        torch.testing.assert_close(estimator(x_t @ turn.mT, x_0, t).value, value @ turn.mT)
        padded = estimator(padded_t, padded_0, t, mask=mask).value
        torch.testing.assert_close(padded[:, :5], value)
        assert not padded[:, 5].any()
        assert not estimator.unbiased


def test_the_published_schedule():
    t = torch.tensor([0.0, 0.2, 0.4, 0.5, 1.0])
    expected = torch.tensor([1.0, 1.0, 1.0, 0.8, 0.4])
    torch.testing.assert_close(PublishedTemperature(0.4)(t), expected)


def test_refusals():
    aligned = AlignedCoupling(HarmonicPrior.from_bonds(CHAIN))
    with pytest.raises(IncompatibleKernel):
        TemperedRotationOrbit(aligned, ConstantTemperature(1.0))
    with pytest.raises(IncompatibleKernel):
        KabschOrbit(aligned)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(BadInput):
            ConstantTemperature(wrong)
        with pytest.raises(BadInput):
            PublishedTemperature(wrong)
    with pytest.raises(BadInput, match="num_samples"):
        TemperedRotationOrbit(KERNEL, ConstantTemperature(1.0), num_samples=0)
    x_t, x_0, t = problem(KERNEL)
    context = OrbitContext(permutations=torch.arange(5).expand(12, 1, 5))
    with pytest.raises(BadInput, match="rotations alone"):
        KabschOrbit(KERNEL)(x_t, x_0, t, context=context)
    assert KabschOrbit(KERNEL, parametrization=Parametrization.SCORE).parametrization
