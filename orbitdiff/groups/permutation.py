"""Groups of permutations, and those of like atoms: a product of symmetric groups."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import permutations
from math import factorial, prod
from typing import final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.base import LinearIsometry
from orbitdiff.groups.finite import FiniteGroup
from orbitdiff.typing import Int, Tensor

__all__ = ["BlockPermutations", "PermutationGroup", "padded_lists"]

LARGEST_TABLE = 5040
"""Largest group that is enumerated."""


@lru_cache(maxsize=16)
def _symmetric_group(size: int) -> Tensor:
    """All index lists of `size` places, (size!, size), the identity first."""
    return torch.tensor(list(permutations(range(size))), dtype=torch.long).reshape(-1, size)


@lru_cache(maxsize=256)
def _table(types: tuple[int, ...]) -> Tensor:
    """All permutations within equal entries of `types`, (P, N), the identity first."""
    lists = torch.arange(len(types))[None]
    for block in _blocks(types):
        images = torch.tensor(block)[_symmetric_group(len(block))]
        lists = lists[:, None].repeat(1, len(images), 1)
        lists[:, :, list(block)] = images
        lists = lists.flatten(0, 1)
    return lists


def _blocks(types: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Places of each type that occurs more than once."""
    places: dict[int, list[int]] = {}
    for place, number in enumerate(types):
        places.setdefault(number, []).append(place)
    return tuple(tuple(block) for block in places.values() if len(block) > 1)


class PermutationGroup(FiniteGroup, LinearIsometry):
    """Permutations of points: an element is an index list p (N,) int64, (p x)_i = x_{p[i]}.

    Attributes
    ----------
    num_points : int
        N.
    order : int
        Number of elements, which may be far too large to enumerate.
    """

    num_points: int

    @property
    def element_shape(self) -> tuple[int, ...]:
        """Shape of one element: an index list (N,)."""
        return (self.num_points,)

    def identity(
        self, *, dtype: torch.dtype = torch.int64, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Return (0, 1, ..., N - 1)."""
        return torch.arange(self.num_points, device=device)

    def act(self, g: Tensor, x: Tensor) -> Tensor:
        """Return x_{g[i]} in place i."""
        leading = torch.broadcast_shapes(g.shape[:-1], x.shape[:-2])
        index = g[..., None].expand(*leading, *x.shape[-2:])
        return x.expand(*leading, *x.shape[-2:]).gather(-2, index)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        """Return the index list h[g], for (g h) x = g (h x)."""
        g, h = torch.broadcast_tensors(g, h)
        return h.gather(-1, g)

    def inverse(self, g: Tensor) -> Tensor:
        """Return the inverse index list."""
        return g.argsort(-1)

    def difference(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x - y."""
        return x - y


def padded_lists(lists: Sequence[Tensor], width: int) -> tuple[Tensor, Tensor]:
    """Stack lists of permutations of unequal numbers and sizes, leaving padding in place.

    Parameters
    ----------
    lists : sequence of (P_b, n_b) int64
        Permutations of each sample.
    width : int
        N, at least every n_b.

    Returns
    -------
    permutations : (B, P, N) int64
    mask : (B, P) bool
        Real entries.
    """
    most = max((len(table) for table in lists), default=1)
    found = torch.arange(width).repeat(len(lists), most, 1)
    mask = torch.zeros(len(lists), most, dtype=torch.bool)
    for row, table in enumerate(lists):
        found[row, : len(table), : table.shape[1]] = table
        mask[row, : len(table)] = True
    return found, mask


@final
class BlockPermutations(PermutationGroup):
    """Permutations that exchange atoms of one type, prod over types of n_type! elements.

    Parameters
    ----------
    types : iterable of int, or (N,) int tensor
        Type of each atom, without padding.

    Attributes
    ----------
    types : tuple of int
    blocks : tuple of tuple of int
        Places of each type that occurs more than once.
    """

    def __init__(self, types: Iterable[int] | Int[Tensor, " N"]) -> None:
        self.types = tuple(int(number) for number in types)
        self.num_points = len(self.types)
        self.blocks = _blocks(self.types)
        self.order = prod(factorial(len(block)) for block in self.blocks)

    def elements(
        self, *, dtype: torch.dtype = torch.int64, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Return all elements, (order, N) int64 whatever `dtype`, the identity first.

        Raises
        ------
        BadInput
            The group has more than 5040 elements.
        """
        if self.order > LARGEST_TABLE:
            raise BadInput(
                f"expected a group of at most {LARGEST_TABLE} permutations to list, got "
                f"{self.order}; draw from it, or take TorusPermutationOrbit, which need not list"
            )
        ranks = {number: rank for rank, number in enumerate(dict.fromkeys(self.types))}
        return _table(tuple(ranks[number] for number in self.types)).to(device, copy=True)

    def sample(
        self,
        num: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.int64,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Draw `num` elements uniformly, (num, N) int64 whatever `dtype`; nothing is listed."""
        where = generator.device if generator is not None else torch.device(device)
        drawn = torch.arange(len(self.types), device=where).repeat(num, 1)
        for block in self.blocks:
            keys = torch.rand(
                num, len(block), generator=generator, dtype=torch.float64, device=where
            )
            places = torch.tensor(block, device=where)
            drawn[:, places] = places[keys.argsort(1)]
        return drawn.to(device)
