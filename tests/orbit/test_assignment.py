import itertools

import pytest
import torch

from orbitdiff.errors import BadInput
from orbitdiff.orbit.assignment import like_atoms, move_assignment, swap_assignment


@pytest.mark.parametrize("n", [2, 3, 5])
def test_swaps_leave_the_weights_invariant_and_mix(n):
    """Chains start from the law itself; one round keeps it, 30 rounds reach it from anywhere."""
    draws = 20_000
    generator = torch.Generator().manual_seed(0)
    log_a = torch.randn(1, n, n, generator=generator, dtype=torch.float64)
    lists = torch.tensor(list(itertools.permutations(range(n))))
    weights = torch.softmax(log_a[0][torch.arange(n), lists].sum(1), 0)
    error = torch.sqrt(weights * (1 - weights) / draws)
    many = log_a.expand(draws, -1, -1)
    lawful = lists[torch.multinomial(weights, draws, replacement=True, generator=generator)]
    fixed = torch.arange(n).expand(draws, -1)
    for start, rounds in ((lawful, 1), (fixed, 30)):
        moved = swap_assignment(many, start, rounds=rounds, generator=generator)
        share = (moved[:, None] == lists).all(-1).double().mean(0)
        assert ((share - weights) / error).abs().max() < 4.5
    assert not torch.equal(moved, fixed)


def test_the_size_decides_between_draw_and_swaps():
    log_a = torch.zeros(1, 3, 3)
    log_a[0, :, 0] = torch.tensor([50.0, 0.0, 0.0])
    start = torch.tensor([[1, 0, 2]])
    assert move_assignment(log_a, start, exact_up_to=3)[0, 0] == 0
    assert move_assignment(log_a, start, exact_up_to=2, rounds=0).tolist() == start.tolist()
    with pytest.raises(BadInput, match="at most 16"):
        move_assignment(log_a, start, exact_up_to=17)


def test_large_sets_stay_permutations():
    generator = torch.Generator().manual_seed(0)
    log_a = torch.randn(5, 15, 15, generator=generator)
    start = torch.arange(15).expand(5, -1)
    moved = move_assignment(log_a, start, generator=generator)
    assert bool((moved.sort(1).values == torch.arange(15)).all())
    assert bool((moved != start).any(1).all())


def test_like_atoms():
    types = torch.tensor([[8, 26, 8, 26, 8, 0], [6, 6, 7, 7, 7, 7], [1, 2, 3, 0, 0, 0]])
    mask = torch.tensor([[True] * 5 + [False], [True] * 6, [True] * 3 + [False] * 3])
    groups = {
        (int(row), *places.tolist())
        for sample, atoms in like_atoms(types, mask)
        for row, places in zip(sample, atoms, strict=True)
    }
    assert groups == {(0, 0, 2, 4), (0, 1, 3), (1, 0, 1), (1, 2, 3, 4, 5)}
    assert [atoms.shape[1] for _, atoms in like_atoms(types, mask)] == [2, 3, 4]
    assert like_atoms(types[2:], mask[2:]) == []
    assert like_atoms(types[:0], mask[:0]) == []
