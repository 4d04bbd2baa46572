import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orbitdiff.errors import BadInput, IncompatibleKernel
from orbitdiff.kernels import CosineVP, GaussianKernel, Parametrization
from orbitdiff.orbit import TorusOrbit, torus_posterior
from orbitdiff.orbit.circle import cuts, trapezoid


def draw(batch, count, sigma, seed=0):
    generator = torch.Generator().manual_seed(seed)
    f_0 = torch.rand(batch, count, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(batch, count, 3, generator=generator, dtype=torch.float64)
    return (f_0 + sigma * noise) % 1.0, f_0


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 20), seed=st.integers(0, 10_000))
def test_cuts_equal_trapezoid_at_the_switch_for_any_x_t(n, seed):
    z = torch.rand(4, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    sigma = torch.full((4,), 0.13 / math.sqrt(n), dtype=torch.float64)
    real = torch.ones(4, n, dtype=torch.bool)
    cut = cuts(z, sigma, real)
    smooth = trapezoid(z, sigma, real, 40 * n, 6)
    assert torch.allclose(cut[0], smooth[0], atol=1e-9)
    assert torch.allclose(cut[1] * sigma[:, None], smooth[1] * sigma[:, None], atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 20), sigma=st.floats(0.005, 0.5), seed=st.integers(0, 10_000))
def test_against_dense_quadrature(n, sigma, seed):
    f_t, _ = draw(2, n, sigma, seed)
    f_0 = draw(2, n, 0.1, seed + 1)[1]
    found = torus_posterior(f_t, f_0, sigma)
    z = (f_t - f_0).transpose(1, 2).reshape(-1, n)
    scale = torch.full((6,), sigma, dtype=torch.float64)
    nodes = int(3 * math.sqrt(n) / sigma) + 50
    _, score = trapezoid(z, scale, torch.ones(6, n, dtype=torch.bool), nodes, 8)
    expected = score.reshape(2, 3, n).transpose(1, 2)
    assert (found.mean_score - expected).abs().max() * sigma < 1e-9


def test_score_is_the_gradient_of_the_log_evidence():
    for sigma in (0.02, 0.1, 0.3):
        f_t, f_0 = draw(1, 4, sigma)
        score = torus_posterior(f_t, f_0, sigma).mean_score
        step = 1e-5
        for axis in range(3):
            moved = f_t.clone()
            moved[0, 1, axis] += step
            up = torus_posterior(moved, f_0, sigma).log_evidence
            moved[0, 1, axis] -= 2 * step
            down = torus_posterior(moved, f_0, sigma).log_evidence
            slope = float(up - down) / (2 * step)
            assert slope == pytest.approx(float(score[0, 1, axis]), abs=1e-4 / sigma)


def test_small_noise_is_the_centred_noise():
    f_t, f_0 = draw(8, 5, 0.01)
    z = f_t - f_0
    z = z - z.round()
    expected = -(z - z.mean(1, keepdim=True)) / 0.01**2
    found = torus_posterior(f_t, f_0, 0.01).mean_score
    assert torch.allclose(found, expected, rtol=1e-8, atol=1e-6)


def test_padding_changes_nothing():
    sigma = torch.tensor([0.03, 0.2])
    f_t, f_0 = draw(2, 3, 0.1)
    alone = torus_posterior(f_t, f_0, sigma)
    pad = torch.rand(2, 4, 3, dtype=torch.float64)
    mask = torch.tensor([True] * 3 + [False] * 4).expand(2, -1)
    padded = torus_posterior(
        torch.cat([f_t, pad], 1), torch.cat([f_0, pad.flip(0)], 1), sigma, mask=mask
    )
    assert torch.allclose(padded.mean_score[:, :3], alone.mean_score, atol=1e-9)
    assert torch.all(padded.mean_score[:, 3:] == 0)
    assert torch.allclose(padded.log_evidence, alone.log_evidence)


def test_empty_batch():
    empty = torch.zeros(0, 5, 3)
    found = torus_posterior(empty, empty, torch.zeros(0))
    assert found.mean_score.shape == (0, 5, 3)
    assert found.log_evidence.shape == (0,)


@pytest.mark.parametrize("bad", [0.0, -0.1, float("nan")])
def test_bad_sigma_names_the_sample(bad):
    f_t, f_0 = draw(2, 3, 0.1)
    with pytest.raises(BadInput, match="sample 1"):
        torus_posterior(f_t, f_0, torch.tensor([0.1, bad]))


def test_nan_coordinates_name_the_sample():
    f_t, f_0 = draw(3, 3, 0.1)
    f_t[2, 0, 0] = float("nan")
    with pytest.raises(BadInput, match="sample 2"):
        torus_posterior(f_t, f_0, 0.1)


def test_gaussian_kernel_is_refused():
    with pytest.raises(IncompatibleKernel, match="TorusOrbit"):
        TorusOrbit(GaussianKernel(CosineVP()), parametrization=Parametrization.SCORE)
