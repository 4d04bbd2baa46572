import inspect
import itertools
import math
from fractions import Fraction

import pytest
import torch

from orbitdiff.errors import BadInput
from orbitdiff.orbit import permanent
from orbitdiff.orbit.permanent import assignment_marginals, draw_assignment, log_permanent


def matrices(count, n, spread, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(count, n, n, generator=generator, dtype=torch.float64).to(dtype)


def enumerated(log_a):
    """Log weight of every permutation, (R, n!), and the permutations (n!, n)."""
    n = log_a.shape[-1]
    lists = torch.tensor(list(itertools.permutations(range(n)))).reshape(-1, n)
    return log_a.double()[:, torch.arange(n), lists].sum(-1), lists


def ryser(rows):
    """Permanent of integers by inclusion and exclusion over columns, in exact arithmetic."""
    n, total = len(rows), 0
    for chosen in range(1, 1 << n):
        columns = [j for j in range(n) if chosen >> j & 1]
        term = math.prod(sum(row[j] for j in columns) for row in rows)
        total += term if (n - len(columns)) % 2 == 0 else -term
    return total


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("spread", [0.3, 3.0, 40.0])
@pytest.mark.parametrize("n", range(1, 9))
def test_equals_enumeration(n, spread, dtype):
    log_a = matrices(4, n, spread, seed=n, dtype=dtype)
    logs, lists = enumerated(log_a)
    expected = torch.logsumexp(logs, 1)
    assert torch.allclose(log_permanent(log_a), expected, rtol=1e-13, atol=1e-12)
    share = torch.nn.functional.one_hot(lists, n).double()
    marginals = torch.einsum("rp,pij->rij", torch.softmax(logs, 1), share)
    assert (assignment_marginals(log_a) - marginals).abs().max() < 1e-11


@pytest.mark.parametrize("n", [1, 4, 7])
def test_marginals_are_the_gradient(n):
    log_a = matrices(3, n, 2.0).requires_grad_()
    (slope,) = torch.autograd.grad(log_permanent(log_a).sum(), log_a)
    assert (slope - assignment_marginals(log_a.detach())).abs().max() < 1e-13


def test_twelve_rows_against_exact_integer_arithmetic():
    generator = torch.Generator().manual_seed(1)
    entries = torch.randint(1, 1000, (12, 12), generator=generator)
    value = ryser(entries.tolist())
    log_a = entries.double().log()[None]
    assert float(log_permanent(log_a)) == pytest.approx(math.log(value), rel=1e-14)
    minor = [row[1:] for row in entries.tolist()[1:]]
    expected = float(Fraction(entries[0, 0].item() * ryser(minor), value))
    marginals = assignment_marginals(log_a)
    assert float(marginals[0, 0, 0]) == pytest.approx(expected, rel=1e-12)
    assert torch.allclose(marginals.sum(1), torch.ones(1, 12, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(marginals.sum(2), torch.ones(1, 12, dtype=torch.float64), atol=1e-12)


def test_magnitudes_beyond_the_range_of_doubles():
    """Greedy rows lead away from the only permutation that counts: plain sums would underflow."""
    log_a = torch.zeros(1, 6, 6, dtype=torch.float64)
    log_a[0, :5, :] = -5000.0
    log_a[0, torch.arange(5), torch.arange(1, 6)] = -2000.0
    log_a[0, torch.arange(6), torch.arange(6)] += -9000.0
    log_a[0, 5, 1:] = -40000.0
    logs, _ = enumerated(log_a)
    assert float(log_permanent(log_a)) == pytest.approx(float(logs.logsumexp(1)), rel=1e-14)
    marginals = assignment_marginals(log_a)[0]
    assert torch.allclose(marginals.sum(0), torch.ones(6, dtype=torch.float64), atol=1e-9)


def test_zeros():
    blocked = torch.full((1, 3, 3), -math.inf, dtype=torch.float64)
    blocked[0, torch.arange(3), torch.tensor([1, 2, 0])] = torch.tensor([0.5, 1.0, 2.0]).double()
    assert float(log_permanent(blocked)) == pytest.approx(3.5)
    assert assignment_marginals(blocked)[0, 0].tolist() == [0.0, 1.0, 0.0]
    assert draw_assignment(blocked).tolist() == [[1, 2, 0]]
    blocked[0, 0, 1] = -math.inf
    assert float(log_permanent(blocked)) == -math.inf


def test_padding_counts_for_nothing():
    small = matrices(2, 3, 1.0)
    padded = matrices(2, 5, 9.0, seed=3)
    places = torch.tensor([0, 2, 3])
    padded[:, places[:, None], places] = small
    mask = torch.zeros(2, 5, dtype=torch.bool)
    mask[:, places] = True
    assert torch.allclose(log_permanent(padded, mask=mask), log_permanent(small))
    marginals = assignment_marginals(padded, mask=mask)
    assert torch.allclose(marginals[:, places[:, None], places], assignment_marginals(small))
    assert float(marginals.sum()) == pytest.approx(6.0)


def test_long_batches_are_cut_without_a_trace(monkeypatch):
    log_a = matrices(7, 4, 1.0)
    whole = log_permanent(log_a), assignment_marginals(log_a)
    drawn = draw_assignment(log_a, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(permanent, "CHUNK", 60)
    assert torch.equal(log_permanent(log_a), whole[0])
    assert torch.equal(assignment_marginals(log_a), whole[1])
    again = draw_assignment(log_a, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again, drawn)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_draws_follow_the_weights(n):
    draws = 20_000
    log_a = matrices(1, n, 1.0, seed=4)
    logs, lists = enumerated(log_a)
    weights = torch.softmax(logs[0], 0)
    generator = torch.Generator().manual_seed(0)
    drawn = draw_assignment(log_a.expand(draws, -1, -1), generator=generator)
    counts = (drawn[:, None] == lists).all(-1).double().mean(0)
    error = torch.sqrt(weights * (1 - weights) / draws) + 1e-12
    assert ((counts - weights) / error).abs().max() < 4.0


def test_empty():
    assert log_permanent(torch.zeros(0, 3, 3)).shape == (0,)
    assert assignment_marginals(torch.zeros(0, 3, 3)).shape == (0, 3, 3)
    assert draw_assignment(torch.zeros(0, 3, 3)).shape == (0, 3)
    assert log_permanent(torch.zeros(2, 0, 0)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 3), (1, 17, 17)])
def test_bad_shapes(shape):
    with pytest.raises(BadInput, match="expected"):
        inspect.unwrap(log_permanent)(torch.zeros(shape))
