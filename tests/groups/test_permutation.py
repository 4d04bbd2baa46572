import itertools
from math import factorial

import pytest
import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.permutation import BlockPermutations
from orbitdiff.testing import GroupContract


class TestLikeAtoms(GroupContract):
    def group(self):
        return BlockPermutations([8, 26, 8, 26, 8])

    def points(self, generator):
        return torch.randn(6, 5, 3, generator=generator, dtype=torch.float64)


class TestOneType(TestLikeAtoms):
    def group(self):
        return BlockPermutations(torch.ones(4, dtype=torch.long))

    def points(self, generator):
        return torch.randn(6, 4, 3, generator=generator, dtype=torch.float64)


class TestTwoKinds(TestLikeAtoms):
    def group(self):
        return BlockPermutations([1, 1, 2, 3, 3])


@pytest.mark.parametrize("types", [[], [6], [6, 7, 8], [6, 6], [1, 2, 1, 2, 1, 3], [5, 5, 5, 5, 2]])
def test_the_table_is_every_permutation_that_keeps_types(types):
    expected = {
        p
        for p in itertools.permutations(range(len(types)))
        if all(types[image] == own for image, own in zip(p, types, strict=True))
    }
    group = BlockPermutations(types)
    table = group.elements()
    assert group.order == len(expected) == len(table)
    assert {tuple(row) for row in table.tolist()} == expected
    assert table[0].tolist() == list(range(len(types)))


def test_large_groups_are_drawn_but_not_listed():
    group = BlockPermutations([1] * 12 + [2] * 8)
    assert group.order == factorial(12) * factorial(8)
    drawn = group.sample(4000, generator=torch.Generator().manual_seed(0))
    assert bool((drawn[:, :12] < 12).all())
    assert bool((drawn.sort(1).values == torch.arange(20)).all())
    share = torch.nn.functional.one_hot(drawn[:, :12], 12).double().mean(0)
    assert (share - 1 / 12).abs().max() < 4.5 * (11 / 144 / 4000) ** 0.5
    with pytest.raises(BadInput, match="5040"):
        group.elements()


def test_a_changed_table_does_not_reach_the_next_caller():
    BlockPermutations([1, 1]).elements().zero_()
    assert BlockPermutations([1, 1]).elements().tolist() == [[0, 1], [1, 0]]
