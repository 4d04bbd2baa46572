import pytest
import torch
from scipy.optimize import linear_sum_assignment

from orbitdiff.errors import BadInput
from orbitdiff.metrics.distribution import mean_distance_to_orbit, wasserstein2_sorted


def test_w2_is_the_optimal_assignment():
    x, y = torch.tensor([0.3, -2.0, 1.4, 0.1]), torch.tensor([1.0, -1.0, 0.9, -0.2])
    cost = (x[:, None] - y[None, :]).square().double().numpy()
    best = cost[linear_sum_assignment(cost)].mean() ** 0.5
    assert float(wasserstein2_sorted(x, y)) == pytest.approx(best, rel=1e-6)
    assert float(wasserstein2_sorted(x, x.flip(0))) == 0.0


def test_w2_keeps_leading_axes():
    x, y = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(8)
    expected = torch.stack([row.square().mean().sqrt() for row in x])
    assert torch.allclose(wasserstein2_sorted(x, y), expected)


def test_distance_to_the_orbit():
    assert float(mean_distance_to_orbit(torch.tensor([1.0, -1.0]))) == 0.0
    assert float(mean_distance_to_orbit(torch.tensor([0.0, 1.5, -0.7]))) == pytest.approx(1.8 / 3)


def test_sizes_are_checked():
    with pytest.raises(BadInput, match="4 and 3"):
        wasserstein2_sorted(torch.zeros(4), torch.zeros(3))
    with pytest.raises(BadInput):
        mean_distance_to_orbit(torch.zeros(0))
