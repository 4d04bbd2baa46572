"""Labelled graphs and their symmetries, found by colour refinement and backtracking.

Colours of vertices are refined by the colours of their neighbours until nothing changes. Where
vertices share a colour one of them is singled out, in two copies of the graph at once: the
copies are the same if and only if some choice in the second matches that of the first.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from orbitdiff.errors import BadInput

__all__ = ["LabelledGraph", "stabiliser_chain"]

Permutation = tuple[int, ...]


@final
@dataclass(frozen=True)
class LabelledGraph:
    """A graph with coloured vertices, labelled edges and oriented centres.

    Parameters
    ----------
    colours : tuple of int
    edges : tuple of (int, int, int)
        Two vertices and a label; undirected.
    orientations : tuple of tuple of int
        A centre, then its neighbours in an order that even permutations leave the same and odd
        ones mirror (a stereocentre).
    """

    colours: tuple[int, ...]
    edges: tuple[tuple[int, int, int], ...] = ()
    orientations: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        count = len(self.colours)
        named = {v for a, b, _ in self.edges for v in (a, b)}
        named.update(v for centre in self.orientations for v in centre)
        if any(not 0 <= v < count for v in named):
            raise BadInput(f"expected vertices 0 to {count - 1}, got {sorted(named)}")


def stabiliser_chain(graph: LabelledGraph) -> list[list[Permutation]]:
    """Transversals of a chain of stabilisers: every symmetry is one product u_1 u_2 ... u_k.

    Level i holds one symmetry for each image that its base point has under the symmetries that
    fix all earlier base points, the identity first; the group has prod_i |level i| elements.

    Parameters
    ----------
    graph : LabelledGraph

    Returns
    -------
    list of list of tuple
        Lists of images, i -> g[i]. Symmetries keep colours, labels and orientations.

    References
    ----------
    Seress, Permutation Group Algorithms; McKay and Piperno 2014 (refinement and search).
    """
    search = _Search(graph)
    found = search.refine(list(graph.colours), list(graph.colours))
    assert found is not None  # a graph is the same as itself
    colours = found[0]
    chain = []
    while (cell := _cell(colours)) is not None:
        base = cell[0]
        level = [tuple(range(len(colours)))]
        for image in cell[1:]:
            matched = search.matched(colours, colours, base, image)
            if matched is not None:
                level.append(matched)
        if len(level) > 1:
            chain.append(level)
        single = search.single_out(colours, colours, base, base)
        assert single is not None  # the same choice in both copies
        colours = single[0]
    return chain


def _cell(colours: Sequence[int]) -> list[int] | None:
    """Smallest set of vertices that share a colour, None if there is no such set."""
    cells: dict[int, list[int]] = {}
    for vertex, colour in enumerate(colours):
        cells.setdefault(colour, []).append(vertex)
    return min((c for c in cells.values() if len(c) > 1), key=len, default=None)


class _Search:
    """Refinement of two colourings of one graph, and matching of one with the other."""

    def __init__(self, graph: LabelledGraph) -> None:
        self.neighbours: list[list[tuple[int, int]]] = [[] for _ in graph.colours]
        for first, second, label in graph.edges:
            self.neighbours[first].append((label, second))
            self.neighbours[second].append((label, first))
        self.orientations: Mapping[int, tuple[int, ...]] = {
            centre: tuple(around) for centre, *around in graph.orientations
        }

    def _signature(self, vertex: int, colours: Sequence[int]) -> tuple[object, ...]:
        around = sorted((label, colours[other]) for label, other in self.neighbours[vertex])
        order = [colours[other] for other in self.orientations.get(vertex, ())]
        turn = _parity(order) if len(set(order)) == len(order) else 0
        return colours[vertex], tuple(around), turn

    def refine(self, first: list[int], second: list[int]) -> tuple[list[int], list[int]] | None:
        """Stable colourings, None where the copies differ."""
        while True:
            signatures = [
                [self._signature(vertex, colours) for vertex in range(len(colours))]
                for colours in (first, second)
            ]
            if sorted(signatures[0]) != sorted(signatures[1]):
                return None
            names = {signature: name for name, signature in enumerate(sorted(set(signatures[0])))}
            stable = len(names) == len(set(first))
            first, second = ([names[s] for s in part] for part in signatures)
            if stable:
                return first, second

    def single_out(
        self, first: Sequence[int], second: Sequence[int], vertex: int, image: int
    ) -> tuple[list[int], list[int]] | None:
        """Give a vertex and its image a colour of their own, and refine."""
        own = 1 + max(first)
        marked = [own if v == vertex else c for v, c in enumerate(first)]
        matched = [own if v == image else c for v, c in enumerate(second)]
        return self.refine(marked, matched)

    def matched(
        self, first: Sequence[int], second: Sequence[int], vertex: int, image: int
    ) -> Permutation | None:
        """Find a symmetry that matches the colourings and takes the vertex to the image."""
        found = self.single_out(first, second, vertex, image)
        if found is None:
            return None
        first, second = found
        cell = _cell(first)
        if cell is None:
            place = {colour: v for v, colour in enumerate(second)}
            return tuple(place[colour] for colour in first)
        results = (self.matched(first, second, cell[0], v) for v in self._images(cell[0], *found))
        return next((result for result in results if result is not None), None)

    @staticmethod
    def _images(vertex: int, first: Sequence[int], second: Sequence[int]) -> Iterator[int]:
        """Vertices that may be the image, the vertex itself first: few points then move."""
        colour = first[vertex]
        if second[vertex] == colour:
            yield vertex
        yield from (v for v, c in enumerate(second) if c == colour and v != vertex)


def _parity(order: Sequence[int]) -> int:
    """1 for an even number of inversions, -1 for an odd one; 0 for none to order."""
    if not order:
        return 0
    pairs = ((a, b) for i, a in enumerate(order) for b in order[i + 1 :])
    return 1 - 2 * (sum(a > b for a, b in pairs) % 2)
