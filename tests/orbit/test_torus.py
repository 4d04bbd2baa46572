import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orbitdiff.errors import BadInput, IncompatibleKernel
from orbitdiff.kernels import CosineVP, GaussianKernel, Parametrization
from orbitdiff.orbit import TorusOrbit, circle, torus, torus_posterior
from orbitdiff.orbit.circle import cuts, trapezoid


def draw(batch, count, sigma, seed=0):
    generator = torch.Generator().manual_seed(seed)
    f_0 = torch.rand(batch, count, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(batch, count, 3, generator=generator, dtype=torch.float64)
    return (f_0 + sigma * noise) % 1.0, f_0


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 20), seed=st.integers(0, 10_000))
def test_cuts_equal_trapezoid_at_the_switch_for_any_x_t(n, seed):
    z = torch.rand(4, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    sigma = torch.full((4,), 0.13 / math.sqrt(n), dtype=torch.float64)
    real = torch.ones(4, n, dtype=torch.bool)
    cut = cuts(z, sigma, real)
    smooth = trapezoid(z, sigma, real, 40 * n, 6)
    assert torch.allclose(cut[0], smooth[0], atol=1e-9)
    assert torch.allclose(cut[1] * sigma[:, None], smooth[1] * sigma[:, None], atol=1e-9)


def quadrature(z, sigma):
    """Mean score over the shift by midpoints, 17 images, weights from plain densities: (n,)."""
    nodes = int(4 * math.sqrt(len(z)) / sigma) + 64
    tau = (torch.arange(nodes, dtype=torch.float64) + 0.5) / nodes
    images = torch.arange(-8, 9, dtype=torch.float64)
    shifted = z[:, None, None] - tau[:, None] - torch.round(z[:, None, None] - tau[:, None])
    logits = -0.5 * ((shifted + images) / sigma) ** 2
    log_density = torch.logsumexp(logits, 2)
    score = -(torch.softmax(logits, 2) * (shifted + images)).sum(2) / sigma**2
    weights = torch.softmax(log_density.sum(0), 0)
    norm = len(z) * math.log(sigma * math.sqrt(2 * math.pi))
    return (score * weights).sum(1), torch.logsumexp(log_density.sum(0), 0) - math.log(nodes) - norm


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 20), sigma=st.floats(0.005, 0.5), seed=st.integers(0, 10_000))
def test_against_dense_quadrature_for_any_x_t(n, sigma, seed):
    f_t, _ = draw(2, n, sigma, seed)
    f_0 = draw(2, n, 0.1, seed + 1)[1]
    found = torus_posterior(f_t, f_0, sigma)
    for row in range(2):
        axes = [quadrature((f_t - f_0)[row, :, axis], sigma) for axis in range(3)]
        score = torch.stack([axis[0] for axis in axes], -1)
        assert (found.mean_score[row] - score).abs().max() * sigma < 1e-9
        evidence = float(sum(axis[1] for axis in axes))
        assert float(found.log_evidence[row]) == pytest.approx(evidence, rel=1e-9, abs=1e-9)


def test_rows_of_unlike_noise_and_size_are_independent():
    """A mixed batch, which is split by formula and node count, equals its rows alone."""
    sizes = torch.tensor([1, 3, 7, 20, 5, 12, 2, 20])
    sigma = torch.tensor([0.3, 0.005, 0.049, 0.02, 0.06, 0.11, 0.5, 0.4], dtype=torch.float64)
    f_t, f_0 = draw(8, 20, 0.2)
    mask = torch.arange(20) < sizes[:, None]
    together = torus_posterior(f_t, f_0, sigma, mask=mask)
    for row, size in enumerate(sizes.tolist()):
        alone = torus_posterior(f_t[row : row + 1, :size], f_0[row : row + 1, :size], sigma[row])
        error = (together.mean_score[row, :size] - alone.mean_score[0]).abs().max()
        assert error * sigma[row] < 1e-9
        assert torch.allclose(together.log_evidence[row], alone.log_evidence[0], rtol=1e-9)


def test_permutations_average_over_posterior_weights():
    """Masked entries count for nothing; weights are those of the evidences."""
    f_t, f_0 = draw(2, 3, 0.2)
    lists = torch.tensor([[0, 1, 2], [1, 0, 2], [2, 1, 0]]).expand(2, -1, -1)
    known = torch.tensor([[True, True, False], [True, True, True]])
    found = torus_posterior(f_t, f_0, 0.2, permutations=lists, permutation_mask=known)
    single = [torus_posterior(f_t, f_0[:, p], 0.2) for p in lists[0]]
    logs = torch.stack([one.log_evidence for one in single], 1)
    for row, count in enumerate((2, 3)):
        weights = torch.softmax(logs[row, :count], 0)
        mean = sum(weights[k] * single[k].mean_score[row] for k in range(count))
        assert torch.allclose(found.mean_score[row], mean, atol=1e-9)
        assert torch.allclose(found.weights[row, :count], weights)
        evidence = torch.logsumexp(logs[row, :count], 0) - math.log(count)
        assert torch.allclose(found.log_evidence[row], evidence)
    assert found.weights[0, 2] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"f_0": torch.zeros(2, 4, 3)}, "one shape"),
        ({"f_t": torch.zeros(3, 3), "f_0": torch.zeros(3, 3)}, "one shape"),
        ({"f_t": torch.zeros(2, 3, 3, dtype=torch.int64)}, "float32 or float64"),
        ({"sigma": torch.ones(3)}, "sigma"),
        ({"mask": torch.ones(2, 4, dtype=torch.bool)}, "bool mask"),
        ({"mask": torch.ones(2, 3)}, "bool mask"),
        ({"permutations": torch.zeros(2, 1, 4, dtype=torch.int64)}, "permutations"),
        ({"permutations": torch.zeros(2, 1, 3)}, "int64"),
        ({"permutation_mask": torch.ones(2, 1, dtype=torch.bool)}, "without permutations"),
        ({"f_t": torch.full((2, 3, 3), math.nan)}, "sample 0"),
    ],
)
def test_wrong_inputs_are_value_errors(change, message):
    call = {"f_t": torch.zeros(2, 3, 3), "f_0": torch.zeros(2, 3, 3), "sigma": 0.1} | change
    # the tests' own type checker would answer first
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(torus_posterior)(**call)


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


@pytest.mark.parametrize("cuda", [False, True])
def test_rows_go_through_in_passes_with_the_same_result(cuda, monkeypatch, generator):
    f_0 = torch.rand(9, 4, 3, generator=generator, dtype=torch.float64)
    sigma = torch.linspace(0.05, 0.5, 9, dtype=torch.float64)
    noise = torch.randn(f_0.shape, generator=generator, dtype=torch.float64)
    f_t = f_0 + sigma[:, None, None] * noise
    lists = torch.tensor([[0, 1, 2, 3], [1, 0, 2, 3]]).expand(9, -1, -1)
    if cuda:
        monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    expected = torus_posterior(f_t, f_0, sigma, permutations=lists)
    sizes = []

    def counted(z, *rest):
        sizes.append(len(z))
        return trapezoid(z, *rest)

    monkeypatch.setattr(circle, "trapezoid", counted)
    monkeypatch.setattr(circle, "AT_ONCE", {False: 200, True: 400})
    # four samples of two images of twelve coordinates
    monkeypatch.setattr(torus, "AT_ONCE", {False: 100, True: 100})
    found = torus_posterior(f_t, f_0, sigma, permutations=lists)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two)
    assert max(sizes) <= 400 // (4 * 5)
    assert len(sizes) > 5
