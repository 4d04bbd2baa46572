"""Theorem 1 on a linear network: gradients of the exact target have the least variance."""

import pytest
import torch

from orbitdiff.groups import TorusTranslation
from orbitdiff.groups.rotation import SO3
from orbitdiff.kernels import GaussianKernel, GeometricSigma, Parametrization, WrappedNormalKernel
from orbitdiff.orbit import (
    AroundXt,
    Haar,
    ImportanceOrbit,
    PlainTarget,
    RotationOrbit,
    RotationSamples,
    TorusOrbit,
)

DATA, SCORE = Parametrization.DATA, Parametrization.SCORE
ROWS = 4000


def gradients(value, x_t):
    """Gradient of |a x_t - T|^2 in a (D, D) at a = 0, for each sample."""
    return -2 * torch.einsum("bni,bnj->bij", value, x_t).flatten(1)


def z_of_difference(first, second, x_t):
    """z of E|g_first|^2 - E|g_second|^2, paired; the mean gradients are equal if unbiased."""
    gap = gradients(first, x_t).square().sum(1) - gradients(second, x_t).square().sum(1)
    return float(gap.mean() / (gap.std() / len(gap) ** 0.5))


def points(sigma):
    kernel = GaussianKernel(GeometricSigma(0.05, 10.0))
    generator = torch.Generator().manual_seed(0)
    one = 1.5 * torch.randn(1, 6, 3, generator=generator, dtype=torch.float64)
    one = one - one.mean(1, keepdim=True)
    x_0 = SO3().act(SO3().sample(ROWS, generator=generator), one)
    t = (torch.tensor(sigma / 0.05).log() / torch.tensor(200.0).log()).double().expand(ROWS)
    arms = {
        "exact": RotationOrbit(kernel),
        "samples": RotationSamples(kernel, num_samples=16),
        "smart": RotationSamples(kernel, num_samples=16, proposal="laplace"),
        "plain": PlainTarget(kernel, parametrization=DATA),
        "without": RotationSamples(kernel, num_samples=16, include_true=False),
    }
    return kernel, x_0, t, arms


def cells(sigma):
    kernel, group = WrappedNormalKernel(GeometricSigma()), TorusTranslation()
    generator = torch.Generator().manual_seed(0)
    one = torch.rand(1, 4, 3, generator=generator, dtype=torch.float64)
    x_0 = (one + torch.rand(ROWS, 1, 3, generator=generator, dtype=torch.float64)) % 1.0
    t = (torch.tensor(sigma / 0.005).log() / torch.tensor(100.0).log()).double().expand(ROWS)

    def sampled(proposal, **more):
        return ImportanceOrbit(
            kernel, group, proposal, parametrization=SCORE, num_samples=16, **more
        )

    arms = {
        "exact": TorusOrbit(kernel, parametrization=SCORE),
        "samples": sampled(Haar(group)),
        "smart": sampled(AroundXt(kernel, 2.0), per_axis=True),
        "plain": PlainTarget(kernel, parametrization=SCORE),
        "without": sampled(Haar(group), include_true=False),
    }
    return kernel, x_0, t, arms


@pytest.mark.parametrize(("system", "sigma"), [(points, 1.5), (points, 4.0), (cells, 0.2)])
def test_the_chain_is_strict_where_the_posterior_is_wide(system, sigma):
    kernel, x_0, t, arms = system(sigma)
    generator = torch.Generator().manual_seed(1)
    x_t = kernel.sample(x_0, t, generator=generator).x_t
    value = {name: arm(x_t, x_0, t, generator=generator).value for name, arm in arms.items()}
    assert z_of_difference(value["exact"], value["samples"], x_t) < -3
    assert z_of_difference(value["samples"], value["plain"], x_t) < -3
    assert z_of_difference(value["exact"], value["smart"], x_t) < -3


@pytest.mark.parametrize(("system", "sigma"), [(points, 0.05), (cells, 0.01)])
def test_without_the_true_element_the_variance_grows_at_small_noise(system, sigma):
    """Not ordered by the theorem: it is no mean of the posterior."""
    kernel, x_0, t, arms = system(sigma)
    generator = torch.Generator().manual_seed(1)
    x_t = kernel.sample(x_0, t, generator=generator).x_t
    plain = arms["plain"](x_t, x_0, t).value
    error = {
        name: float((arms[name](x_t, x_0, t, generator=generator).value - plain).square().mean())
        for name in ("exact", "without")
    }
    assert error["without"] > 5 * error["exact"]


def test_all_are_equal_where_the_posterior_is_a_point():
    kernel, x_0, t, arms = points(0.05)
    x_t = kernel.sample(x_0, t, generator=torch.Generator().manual_seed(1)).x_t
    traces = {
        name: float(gradients(arms[name](x_t, x_0, t).value, x_t).square().sum(1).mean())
        for name in ("exact", "samples", "plain")
    }
    assert max(traces.values()) / min(traces.values()) < 1.002
