import math

import numpy as np
import pytest
import torch

from orbitdiff.groups.rotation import SO3
from orbitdiff.orbit import matrix_fisher
from orbitdiff.orbit.fisher_polynomial import polynomial_moments
from orbitdiff.orbit.matrix_fisher import orthogonal_moments, sphere_moments
from orbitdiff.orbit.rotation_pruning import SLACK, log_constant_bound
from orbitdiff.orbit.singular_values import invariants

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


def test_invariants_are_those_of_the_singular_values(generator):
    """Nearly equal ones are split to the root of the rounding error, their sums are exact."""
    u, v = SO3().sample(300, generator=generator), SO3().sample(300, generator=generator)
    s = proper(300, 2)
    cross = u @ torch.diag_embed(s) @ v.mT
    found, other = invariants(cross), invariants(-cross).of_mirror_image()
    for known in (found, other):
        parts = known.first, known.plus, known.minus
        expected = s[:, 0], s[:, 1] + s[:, 2], s[:, 1] - s[:, 2]
        for part, value in zip(parts, expected, strict=True):
            assert ((part - value).abs() <= 3e-8 * s[:, 0]).all()
        assert torch.allclose(known.square, s.square().sum(1), rtol=1e-12)
    regular = torch.linalg.cond(cross) < 1e4
    assert regular.sum() > 30
    kept = cross[regular]
    alike = torch.linalg.det(kept)[:, None, None] * torch.linalg.inv(kept).mT
    assert torch.allclose(found.cofactor[regular], alike, rtol=1e-6)


def test_bound_of_the_log_constant(generator):
    """It holds, is sharp at no signal, and is too large by `SLACK` at most."""
    u, v = SO3().sample(1000, generator=generator), SO3().sample(1000, generator=generator)
    s = proper(1000, 2)
    cross = u @ torch.diag_embed(s) @ v.mT
    above = log_constant_bound(invariants(cross)) - bessel(s)[0]
    rounding = 1e-6 + 3e-8 * s[:, 0]
    assert (above > -rounding).all()
    assert (above < SLACK + rounding).all()
    assert float(above.max()) > SLACK - 0.01, "the slack is not wider than it needs to be"
    none = log_constant_bound(invariants(torch.zeros(1, 3, 3, dtype=torch.float64)))
    assert float(none) == 0


@pytest.mark.parametrize("reflections", [False, True])
def test_polynomials_equal_eigenvectors(reflections, monkeypatch, generator):
    """Equal, near-equal, vanishing and mirror-image singular values over twelve decades."""
    num = 4 * matrix_fisher.MANY
    u, v = SO3().sample(num, generator=generator), SO3().sample(num, generator=generator)
    s = proper(num, 3)
    s[::9, 1] = s[::9, 0] * (1 - 1e-9)
    s[4::9, 2] = -s[4::9, 1] * (1 - 1e-6)
    cross = u @ torch.diag_embed(s) @ v.mT
    found = orthogonal_moments(cross, reflections=reflections)
    again = orthogonal_moments(cross, reflections=reflections, known=invariants(cross))
    assert all(torch.equal(one, two) for one, two in zip(found, again, strict=True))
    monkeypatch.setattr(matrix_fisher, "MANY", num + 1)
    expected = orthogonal_moments(cross, reflections=reflections)
    moderate = s[:, 0] < 1e6
    assert torch.allclose(found.mean[moderate], expected.mean[moderate], atol=2e-10)
    assert torch.allclose(found.mean, expected.mean, atol=1e-7)
    assert torch.allclose(found.log_constant, expected.log_constant, rtol=1e-12, atol=1e-10)
    assert torch.allclose(found.reflected, expected.reflected, atol=1e-6)


def test_polynomials_cover_ordinary_data(generator):
    """Most matrices of noised molecules need no eigenvectors, and those that do are told."""
    cross = torch.randn(2000, 3, 3, generator=generator, dtype=torch.float64)
    for scale in (1e-3, 1.0, 100.0):
        accurate = polynomial_moments(scale * cross, invariants(scale * cross)).accurate
        assert float(accurate.double().mean()) > 0.9
    mirror = 1e4 * torch.diag_embed(torch.tensor([[1.0, 1.0, -1.0]]).double())
    assert not bool(polynomial_moments(mirror, invariants(mirror)).accurate)


def test_work_space_is_bounded(monkeypatch, generator):
    """Matrices go through in passes of `AT_ONCE`, with the same result."""
    cross = torch.randn(2, 400, 3, 3, generator=generator, dtype=torch.float64)
    expected = orthogonal_moments(cross, reflections=True)
    sizes = []

    def counted(part, known):
        sizes.append(len(part))
        return polynomial_moments(part, known)

    monkeypatch.setattr(matrix_fisher, "AT_ONCE", {False: 300, True: 300})
    monkeypatch.setattr(matrix_fisher, "polynomial_moments", counted)
    found = orthogonal_moments(cross, reflections=True, known=invariants(cross))
    assert sizes == [300, 300, 300, 300, 200, 200]
    for one, two in zip(found, expected, strict=True):
        assert torch.allclose(one, two, atol=1e-14)


def test_empty_batch():
    found = orthogonal_moments(torch.zeros(0, 3, 3, dtype=torch.float64), reflections=True)
    assert found.mean.shape == (0, 3, 3)
    assert found.log_constant.shape == (0,)
