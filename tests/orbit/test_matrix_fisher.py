import math

import numpy as np
import pytest
import torch

from orbitdiff.groups.rotation import SO3
from orbitdiff.orbit.matrix_fisher import orthogonal_moments, sphere_moments
from orbitdiff.orbit.rotation_pruning import largest_exponent

NODES, WEIGHTS = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(64))


def bessel(singular):
    """Log constant and (d_1, d_2, d_3) by Lee's one-dimensional Bessel integral.

    c exp(-s_1-s_2-s_3) = int_0^2 I0e(m v/2) I0e(p (2-v)/2) exp(-(s_1+s_3) v) dv / 2 with
    m = s_2 - s_3, p = s_2 + s_3; nodes are crowded at v = 0, where a mirror image has a layer.
    """
    s_1, s_2, s_3 = (part[..., None] for part in singular.unbind(-1))
    p, m, rate = s_2 + s_3, s_2 - s_3, s_1 + s_3
    top = torch.minimum(torch.full_like(rate, 2.0), 45 / rate.clamp(min=1e-300))
    bend = torch.log1p(top * (m / 2 + rate) / 2).clamp(min=1e-6)
    x = 0.5 * (NODES + 1)
    v = top * torch.expm1(bend * x) / torch.expm1(bend)
    slope = top * bend * torch.exp(bend * x) / torch.expm1(bend)
    a, b = m * v / 2, p * (2 - v) / 2
    mass = 0.25 * WEIGHTS * slope * torch.special.i0e(a) * torch.special.i0e(b)
    mass = mass * torch.exp(-rate * v)
    constant = mass.sum(-1)

    def mean(value):
        return (mass * value).sum(-1) / constant

    plus = mean((2 - v) / 2 * torch.special.i1e(b) / torch.special.i0e(b))
    minus = mean(v / 2 * torch.special.i1e(a) / torch.special.i0e(a))
    d = torch.stack([1 - mean(v), plus + minus, plus - minus], -1)
    return singular.sum(-1) + torch.log(constant), d


def diagonal(singular):
    found = orthogonal_moments(torch.diag_embed(singular))
    return found.log_constant, torch.diagonal(found.mean, dim1=-2, dim2=-1)


def proper(num, seed):
    """Random proper singular values over 12 decades, with equal, zero and mirror ones."""
    generator = torch.Generator().manual_seed(seed)
    logs = 12 * torch.rand(num, 3, generator=generator, dtype=torch.float64) - 4
    s = (10**logs).sort(-1, descending=True).values
    s[::5, 1] = s[::5, 0]
    s[1::5, 2] = s[1::5, 1]
    s[2::7, 2] = 0
    s[3::7, 1:] = 0
    s[::2, 2] *= -1
    return s


def test_contour_equals_the_bessel_integral():
    """From the gaps: the eigenvalues of a matrix would round them to 1e-16 of the largest."""
    s = proper(500, 0)
    s_1, s_2, s_3 = s.unbind(-1)
    log_c, m = sphere_moments(2 * torch.stack([0 * s_1, s_2 + s_3, s_1 + s_3, s_1 + s_2], -1))
    signs = torch.tensor([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], dtype=torch.float64)
    expected_log, expected = bessel(s)
    assert (m @ signs.T - expected).abs().max() < 3e-11
    assert (log_c - (expected_log - s.sum(-1))).abs().max() < 1e-6
    small = s[:, 0] < 1e3
    assert (log_c - (expected_log - s.sum(-1)))[small].abs().max() < 3e-11


def test_mean_rotates_with_the_data(generator):
    """E[R] of U S V^T is U diag(d) V^T, at repeated and vanishing singular values too."""
    u, v = SO3().sample(100, generator=generator), SO3().sample(100, generator=generator)
    s = proper(100, 1).clamp(min=-1e4, max=1e4)
    _, d = bessel(s)
    mean = orthogonal_moments(u @ torch.diag_embed(s) @ v.mT).mean
    assert torch.allclose(mean, u @ torch.diag_embed(d) @ v.mT, atol=1e-9)


def test_limits():
    def d(*singular):
        return diagonal(torch.tensor(singular, dtype=torch.float64))[1].tolist()

    assert d(0.0, 0.0, 0.0) == pytest.approx([0, 0, 0], abs=1e-15)
    for s in (0.5, 3.0, 40.0):
        assert d(s, 0.0, 0.0) == pytest.approx([1 / math.tanh(s) - 1 / s, 0, 0], abs=1e-10)
    small = d(3e-5, 2e-5, -1e-5)
    assert small == pytest.approx([1e-5, 2e-5 / 3, -1e-5 / 3], rel=1e-4)
    s = (4e6, 2e6, 1e6)
    large = [1 - 0.5 * sum(1 / (s[i] + s[j]) for j in range(3) if j != i) for i in range(3)]
    assert d(*s) == pytest.approx(large, abs=1e-11)
    for s in (1e4, 1e8):
        assert d(s, s, -s) == pytest.approx([1 / 3, 1 / 3, -1 / 3], abs=1 / s)


def test_mean_is_the_gradient_of_the_log_constant(generator):
    for scale in (0.1, 3.0, 100.0):
        cross = scale * torch.randn(10, 3, 3, generator=generator, dtype=torch.float64)
        cross.requires_grad_()
        for reflections in (False, True):
            found = orthogonal_moments(cross, reflections=reflections)
            (slope,) = torch.autograd.grad(found.log_constant.sum(), cross)
            assert torch.allclose(slope, found.mean.detach(), atol=1e-9)


def test_against_averages_over_drawn_rotations(generator):
    cross = torch.randn(5, 3, 3, generator=generator, dtype=torch.float64)
    g = SO3().sample(200_000, generator=generator)
    weights = torch.exp(torch.einsum("bij,kij->bk", cross, g))
    found = orthogonal_moments(cross)
    constant = found.log_constant.exp()
    assert torch.allclose(weights.mean(1), constant, rtol=0.03)
    mean = torch.einsum("bk,kij->bij", weights, g) / 200_000 / constant[:, None, None]
    assert torch.allclose(mean, found.mean, atol=0.03)


def test_reflections_average_both_halves(generator):
    """Planar data do not tell a reflection; chiral ones do at low noise."""
    cross = torch.randn(6, 3, 3, generator=generator, dtype=torch.float64)
    one, other = orthogonal_moments(cross), orthogonal_moments(-cross)
    both = orthogonal_moments(cross, reflections=True)
    weight = 1 / (1 + torch.exp(one.log_constant - other.log_constant))
    assert torch.allclose(both.reflected, weight)
    mean = (1 - weight)[:, None, None] * one.mean - weight[:, None, None] * other.mean
    assert torch.allclose(both.mean, mean)
    flat = cross * torch.tensor([1.0, 1.0, 0.0])
    half = orthogonal_moments(50 * flat, reflections=True).reflected
    assert torch.allclose(half, torch.full_like(half, 0.5))
    sharp = orthogonal_moments(1e4 * torch.eye(3, dtype=torch.float64), reflections=True)
    assert float(sharp.reflected) < 1e-300


def test_moments_of_the_sphere_sum_to_one():
    gaps = torch.tensor([[0.0, 1e-3, 5.0, 1e9], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    log_constant, moments = sphere_moments(gaps)
    assert torch.allclose(moments.sum(1), torch.ones(2, dtype=torch.float64))
    assert torch.allclose(moments[1], torch.full((4,), 0.25, dtype=torch.float64))
    assert abs(float(log_constant[1])) < 1e-10


def test_largest_exponents_are_those_of_the_singular_values(generator):
    u, v = SO3().sample(300, generator=generator), SO3().sample(300, generator=generator)
    s = proper(300, 2)
    cross = u @ torch.diag_embed(s) @ v.mT
    for reflections in (False, True):
        expected = s[:, 0] + s[:, 1] + (s[:, 2].abs() if reflections else s[:, 2])
        found = largest_exponent(cross, reflections=reflections)
        assert ((found - expected).abs() < 1e-6 + 3e-8 * s[:, 0]).all()
        constant = orthogonal_moments(cross, reflections=reflections).log_constant
        assert (constant <= found + 1e-6 + 3e-8 * s[:, 0]).all(), "an upper bound"


def test_empty_batch():
    found = orthogonal_moments(torch.zeros(0, 3, 3, dtype=torch.float64), reflections=True)
    assert found.mean.shape == (0, 3, 3)
    assert found.log_constant.shape == (0,)
