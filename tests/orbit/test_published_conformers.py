import pytest
import torch

from orbitdiff.errors import BadInput, IncompatibleKernel
from orbitdiff.kernels import (
    AlignedCoupling,
    GaussianKernel,
    GeometricSigma,
    HarmonicKernel,
    Parametrization,
)
from orbitdiff.kernels.harmonic_prior import HarmonicPrior
from orbitdiff.kernels.interpolant import Interpolant
from orbitdiff.orbit import (
    ConstantTemperature,
    OrbitContext,
    PublishedConformerOrbit,
    published_conformers,
    rotation_posterior,
)

CHAIN = torch.diag_embed(torch.ones(4), 1) + torch.diag_embed(torch.ones(4), -1) > 0
MIRRORED = torch.tensor([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])
DATA, VELOCITY = Parametrization.DATA, Parametrization.VELOCITY


def problem(kernel, t, batch=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x_0 = 1.5 * torch.randn(batch, 5, 3, generator=generator, dtype=torch.float64)
    x_0 = x_0 - x_0.mean(1, keepdim=True)
    time = torch.full((batch,), t, dtype=torch.float64)
    drawn = kernel.sample(x_0, time, generator=generator)
    return drawn.x_t, x_0, time, drawn.noise


@pytest.mark.parametrize("coupling", [HarmonicKernel, AlignedCoupling])
@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_one_element_is_the_conditional_velocity(coupling, sigma):
    kernel = coupling(HarmonicPrior.from_bonds(CHAIN), sigma=sigma)
    x_t, x_0, t, noise = problem(kernel, 0.35)
    found = PublishedConformerOrbit(kernel, num_samples=1)(x_t, x_0, t, noise=noise)
    torch.testing.assert_close(found.value, noise - x_0)


def test_the_prior_sample_is_recovered():
    generator = torch.Generator().manual_seed(0)
    x_0, prior, eps = torch.randn(3, 4, 5, 3, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.1, 0.4, 0.5, 0.9], dtype=torch.float64)
    path = Interpolant(0.3)
    drawn = path.mix(x_0, prior, eps, t)
    torch.testing.assert_close(path.prior_sample(drawn.x_t, x_0, drawn.noise, t), prior)


@pytest.mark.parametrize("t", [0.6, 0.9])
@pytest.mark.parametrize("permuted", [False, True])
def test_many_elements_give_the_isotropic_mean(t, permuted):
    """The exact isotropic posterior of variance (t^2 + s_t^2) T, which the kernel does not have."""
    kernel = HarmonicKernel(HarmonicPrior.from_bonds(CHAIN), sigma=0.1)
    x_t, x_0, times, _ = problem(kernel, t)
    context, lists = None, None
    if permuted:
        lists = MIRRORED.expand(len(x_0), -1, -1)
        context = OrbitContext(permutations=lists)
    estimator = PublishedConformerOrbit(
        kernel, parametrization=DATA, num_samples=100_000, temperature=ConstantTemperature(0.7)
    )
    found = estimator(x_t, x_0, times, context=context, generator=torch.Generator().manual_seed(0))
    variance = 0.7 * (t**2 + 0.01 * t * (1 - t))
    exact = rotation_posterior(x_t, x_0, 1 - t, variance**0.5, permutations=lists).mean_x0
    assert float((found.value - exact).abs().max()) < 0.05
    right = rotation_posterior(
        x_t, x_0, 1 - t, precision=kernel.precision(times), permutations=lists
    ).mean_x0
    assert float((right - exact).abs().max()) > 0.2, "the isotropic weights are a bias"


def test_masked_permutations_and_padding_do_not_count():
    kernel = HarmonicKernel(HarmonicPrior.from_bonds(CHAIN))
    x_t, x_0, t, noise = problem(kernel, 0.6)
    estimator = PublishedConformerOrbit(kernel, num_samples=20)

    def run(context):
        generator = torch.Generator().manual_seed(0)
        return estimator(x_t, x_0, t, context=context, noise=noise, generator=generator).value

    lists = MIRRORED.expand(8, -1, -1)
    only = torch.tensor([True, False]).expand(8, -1)
    masked = run(OrbitContext(permutations=lists, permutation_mask=only))
    torch.testing.assert_close(masked, run(None))
    assert float((run(OrbitContext(permutations=lists)) - masked).abs().max()) > 1e-3


def test_rotations_go_through_in_passes_with_the_same_result(monkeypatch):
    kernel = HarmonicKernel(HarmonicPrior.from_bonds(CHAIN))
    x_t, x_0, t, noise = problem(kernel, 0.6)
    estimator = PublishedConformerOrbit(kernel, num_samples=23)

    def run():
        context = OrbitContext(permutations=MIRRORED.expand(8, -1, -1))
        generator = torch.Generator().manual_seed(0)
        return estimator(x_t, x_0, t, context=context, noise=noise, generator=generator)

    expected = run()
    monkeypatch.setattr(published_conformers, "WEIGHTS_AT_ONCE", 8 * 2 * 5)
    found = run()
    torch.testing.assert_close(found.value, expected.value)
    torch.testing.assert_close(found.info, expected.info)


def test_refusals():
    kernel = HarmonicKernel(HarmonicPrior.from_bonds(CHAIN))
    with pytest.raises(IncompatibleKernel, match="HarmonicKernel"):
        PublishedConformerOrbit(GaussianKernel(GeometricSigma()))
    with pytest.raises(BadInput, match="VELOCITY"):
        PublishedConformerOrbit(kernel, parametrization=Parametrization.SCORE)
    with pytest.raises(BadInput, match="num_samples"):
        PublishedConformerOrbit(kernel, num_samples=0)
    x_t, x_0, t, _ = problem(kernel, 0.6)
    with pytest.raises(BadInput, match="noise"):
        PublishedConformerOrbit(kernel)(x_t, x_0, t)
