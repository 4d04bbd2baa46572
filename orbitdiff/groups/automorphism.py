"""Symmetries of a labelled graph: the permutations of a molecule's atoms that change nothing."""

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple, final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.graph import LabelledGraph, stabiliser_chain
from orbitdiff.groups.permutation import LARGEST_TABLE, PermutationGroup
from orbitdiff.typing import Int, Tensor

__all__ = ["Blocks", "GraphAutomorphisms", "graph_automorphisms"]


class Blocks(NamedTuple):
    """A subgroup as the direct product of blocks of elements that move disjoint sets of points.

    Entry e is one element of one block, numbered through the blocks; row l says that
    entry[l] takes image[l] to the place point[l].

    Attributes
    ----------
    sizes : tuple of int
        Elements of each block, the identity first; the subgroup has prod(sizes).
    entry, point, image : (L,) int64
    rest : (M, N) int64
        Generators of the whole group that lie outside of the subgroup, and their inverses.
    """

    sizes: tuple[int, ...]
    entry: Tensor
    point: Tensor
    image: Tensor
    rest: Tensor

    @property
    def order(self) -> int:
        """Number of elements of the subgroup."""
        return prod(self.sizes)

    @property
    def partial(self) -> bool:
        """Whether the subgroup is not the whole group."""
        return self.rest.shape[0] > 0


@lru_cache(maxsize=2**18)
def graph_automorphisms(graph: LabelledGraph) -> "GraphAutomorphisms":
    """Find the symmetries of a graph, once for each graph.

    Parameters
    ----------
    graph : LabelledGraph
    """
    return GraphAutomorphisms(len(graph.colours), stabiliser_chain(graph))


@final
class GraphAutomorphisms(PermutationGroup):
    """A permutation group by the transversals of its chain of stabilisers.

    Every element is one product u_1 u_2 ... u_k with u_i from level i, so that order, uniform
    draws, lists and subgroups need no list of the whole group.

    Parameters
    ----------
    num_points : int
        N.
    levels : sequence of sequences of index lists
        As `stabiliser_chain` gives them, the identity first in each.

    Attributes
    ----------
    levels : tuple of (m_i, N) int64
    factors : tuple of tuple of int
        Levels that belong together: the group is the direct product of these factors, which
        move disjoint sets of points.
    moves : (M, N) int64
        Generators and their inverses, without the identity.
    """

    def __init__(self, num_points: int, levels: Sequence[Sequence[Sequence[int]]]) -> None:
        self.num_points = num_points
        self.levels = tuple(torch.tensor(level, dtype=torch.int64) for level in levels)
        here = list(range(num_points))
        if any(sorted(g) != here for level in levels for g in level):
            raise BadInput(f"expected permutations of {num_points} points")
        if any(list(level[0]) != here for level in levels):
            raise BadInput("expected the identity first in each level")
        self.order = prod(len(level) for level in levels)
        self.factors = _factors(self.levels)
        self.moves = self._generators(range(len(self.levels)))
        self._blocks: dict[int, Blocks] = {}

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
                f"{self.order}; take `subgroup`, `subset` or AutomorphismOrbit"
            )
        return self._products(range(len(self.levels))).to(device)

    def subgroup(self, most: int) -> Int[Tensor, "P N"]:
        """List a subgroup of at most `most` elements, the identity first.

        Whole factors, small ones first, then the stabilisers within those that do not fit.

        Parameters
        ----------
        most : int
            At least 1.
        """
        return self._products(self._chosen(most))

    def blocks(self, most: int) -> Blocks:
        """Return `subgroup(most)` by its blocks, which need no list of products.

        Parameters
        ----------
        most : int
            At least 1.
        """
        key = min(most, self.order)
        if key not in self._blocks:
            self._blocks[key] = self._blocks_of(self._chosen(most))
        return self._blocks[key]

    def _chosen(self, most: int) -> list[int]:
        room, chosen = max(1, most), []
        for factor in sorted(self.factors, key=self._size):
            kept: list[int] = []
            for level in reversed(factor):
                if len(self.levels[level]) > room:
                    break
                room //= len(self.levels[level])
                kept.append(level)
            chosen += kept
        return sorted(chosen)

    def _blocks_of(self, chosen: Sequence[int]) -> Blocks:
        here = torch.arange(self.num_points)
        sizes: list[int] = []
        rows = [torch.empty(3, 0, dtype=torch.int64)]
        for block in _factors([self.levels[level] for level in chosen]):
            lists = self._products([chosen[place] for place in block])
            points = (lists != here).any(0).nonzero()[:, 0]
            entry = torch.arange(sum(sizes), sum(sizes) + len(lists))
            columns = entry[:, None].expand(-1, len(points)), points.expand(len(lists), -1)
            rows.append(torch.stack([*columns, lists[:, points]]).flatten(1))
            sizes.append(len(lists))
        outside = [level for level in range(len(self.levels)) if level not in chosen]
        entry, point, image = torch.cat(rows, 1)
        return Blocks(tuple(sizes), entry, point, image, self._generators(outside))

    def _generators(self, levels: Sequence[int]) -> Tensor:
        """Elements of some levels and their inverses, without the identity."""
        given = [self.levels[level][1:] for level in levels]
        if not given:
            return torch.empty(0, self.num_points, dtype=torch.int64)
        return torch.unique(torch.cat([*given, *(self.inverse(g) for g in given)]), dim=0)

    def subset(self, num: int, *, generator: torch.Generator | None = None) -> Int[Tensor, "P N"]:
        """The identity and uniform draws: a random set that holds the true element.

        A mean over it is unbiased, as one over a subgroup is; over any other list it is not.

        Parameters
        ----------
        num : int
            P, at least 1.
        generator : torch.Generator, optional
        """
        return torch.cat([self.identity()[None], self.sample(num - 1, generator=generator)])

    def sample(
        self,
        num: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.int64,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Draw `num` elements uniformly, (num, N) int64 whatever `dtype`; nothing is listed."""
        drawn = torch.arange(self.num_points).repeat(num, 1)
        where = generator.device if generator is not None else torch.device("cpu")
        for level in self.levels:
            index = torch.randint(len(level), (num,), generator=generator, device=where)
            drawn = drawn.gather(1, level[index.to(level.device)])
        return drawn.to(device)

    def _size(self, factor: Sequence[int]) -> int:
        return prod(len(self.levels[level]) for level in factor)

    def _products(self, chosen: Sequence[int]) -> Tensor:
        """Products u_1 u_2 ... of the chosen levels, as maps: (u v)[i] = u[v[i]]."""
        lists = torch.arange(self.num_points)[None]
        for level in reversed(chosen):
            first = self.levels[level][:, None].expand(-1, len(lists), -1)
            lists = first.gather(2, lists.expand(len(first), -1, -1)).flatten(0, 1)
        return lists


def _factors(levels: Sequence[Tensor]) -> tuple[tuple[int, ...], ...]:
    """Levels whose elements move common points, directly or through others."""
    parts: list[tuple[set[int], list[int]]] = []
    for index, level in enumerate(levels):
        moved = set((level != level[:1]).any(0).nonzero()[:, 0].tolist())
        joined, rest = [index], []
        for points, members in parts:
            if points & moved:
                moved, joined = moved | points, members + joined
            else:
                rest.append((points, members))
        parts = [*rest, (moved, joined)]
    return tuple(tuple(sorted(members)) for _, members in parts)
