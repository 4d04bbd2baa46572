import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orbitdiff.errors import BadInput
from orbitdiff.groups import GraphAutomorphisms, LabelledGraph, graph_automorphisms
from orbitdiff.testing import GroupContract


def ring(size):
    return LabelledGraph((0,) * size, tuple((i, (i + 1) % size, 1) for i in range(size)))


def branches(arms, leaves):
    """A centre with arms that carry leaves: the wreath product of two symmetric groups."""
    edges, count = [], 1 + arms
    for arm in range(arms):
        edges.append((0, 1 + arm, 1))
        for _ in range(leaves):
            edges.append((1 + arm, count, 1))
            count += 1
    colours = (0,) + (1,) * arms + (2,) * (arms * leaves)
    return LabelledGraph(colours, tuple(edges))


class TestHexagon(GroupContract):
    def group(self):
        return graph_automorphisms(ring(6))

    def points(self, generator):
        return torch.randn(6, 6, 3, generator=generator, dtype=torch.float64)


class TestWreathProduct(GroupContract):
    def group(self):
        return graph_automorphisms(branches(2, 3))

    def points(self, generator):
        return torch.randn(6, 9, 3, generator=generator, dtype=torch.float64)


def even(order):
    return sum(a > b for a, b in itertools.combinations(order, 2)) % 2 == 0


def by_brute_force(graph):
    """All permutations that keep colours, labelled edges and orientations."""
    labels = {frozenset((a, b)): label for a, b, label in graph.edges}
    centres = {centre: tuple(around) for centre, *around in graph.orientations}

    def keeps(g):
        if any(graph.colours[g[v]] != c for v, c in enumerate(graph.colours)):
            return False
        if {frozenset(g[v] for v in edge): label for edge, label in labels.items()} != labels:
            return False
        for centre, around in centres.items():
            there = centres.get(g[centre])
            if there is None or not even([there.index(g[v]) for v in around]):
                return False
        return True

    return {g for g in itertools.permutations(range(len(graph.colours))) if keeps(g)}


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 6))
    colours = tuple(draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)))
    pairs = list(itertools.combinations(range(count), 2))
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    edges = tuple((a, b, draw(st.integers(1, 2))) for a, b in chosen)
    orientations = []
    for vertex in range(count):
        around = [a + b - vertex for a, b in chosen if vertex in (a, b)]
        if len(around) >= 3 and draw(st.booleans()):
            orientations.append((vertex, *draw(st.permutations(around))))
    return LabelledGraph(colours, edges, tuple(orientations))


@given(graphs())
@settings(max_examples=150, deadline=None)
def test_symmetries_are_those_of_brute_force(graph):
    expected = by_brute_force(graph)
    group = graph_automorphisms(graph)
    assert group.order == len(expected)
    assert {tuple(g) for g in group.elements().tolist()} == expected


def test_large_groups_are_drawn_and_not_listed():
    group = graph_automorphisms(branches(4, 3))
    assert group.order == 24 * 6**4
    assert len(group.factors) == 1
    with pytest.raises(BadInput, match="31104"):
        group.elements()
    drawn = group.sample(500, generator=torch.Generator().manual_seed(0))
    assert bool((drawn.sort(1).values == torch.arange(17)).all())
    arm = drawn[:, 1]
    assert {int(a) for a in arm} == {1, 2, 3, 4}
    assert bool((drawn[:, 0] == 0).all())


def test_disjoint_parts_are_factors():
    """Two arms of unequal colour, three leaves each: S_3 x S_3."""
    whole = branches(2, 3)
    graph = LabelledGraph((0, 1, 3, *whole.colours[3:]), whole.edges)
    group = graph_automorphisms(graph)
    assert group.order == 36
    assert sorted(len(factor) for factor in group.factors) == [2, 2]
    assert len(group.subgroup(35)) == 12
    assert len(group.subgroup(36)) == 36


@pytest.mark.parametrize("most", [1, 2, 6, 11, 100, 5000])
def test_subgroups_are_groups(most):
    found = graph_automorphisms(branches(4, 3)).subgroup(most)
    assert 1 <= len(found) <= most
    assert found[0].tolist() == list(range(17))
    known = {tuple(g) for g in found.tolist()}
    assert len(known) == len(found)
    some = found[:: max(1, len(found) // 20)]
    for g in some:
        for h in some:
            assert tuple(g[h].tolist()) in known


@pytest.mark.parametrize("most", [1, 2, 6, 11, 100, 10_000, 40_000])
def test_blocks_make_up_the_subgroup(most):
    """Products of one element per block, each of which moves points of its own."""
    group = graph_automorphisms(branches(4, 3))
    blocks, listed = group.blocks(most), group.subgroup(most)
    assert blocks.order == len(listed)
    assert blocks.partial is (most < group.order)
    found = torch.arange(17)[None]
    start, moved = 0, torch.zeros(17, dtype=torch.bool)
    for size in blocks.sizes:
        tables = found.new_tensor(range(17)).repeat(size, 1)
        mine = (blocks.entry >= start) & (blocks.entry < start + size)
        tables[blocks.entry[mine] - start, blocks.point[mine]] = blocks.image[mine]
        assert tables[0].tolist() == list(range(17))
        points = torch.zeros(17, dtype=torch.bool)
        points[blocks.point[mine]] = True
        assert not bool((points & moved).any())
        moved, start = moved | points, start + size
        found = found[:, None].expand(-1, size, -1).gather(2, tables.expand(len(found), -1, -1))
        found = found.flatten(0, 1)
    assert {tuple(g) for g in found.tolist()} == {tuple(g) for g in listed.tolist()}
    outside = {tuple(g) for g in blocks.rest.tolist()}
    assert not outside.intersection(tuple(g) for g in listed.tolist())
    assert {tuple(g.argsort().tolist()) for g in blocks.rest} == outside
    if most == 100:
        known = {tuple(range(17))}
        new, steps = known, outside | {tuple(g) for g in listed[:7].tolist()}
        while new:
            new = {tuple(g[i] for i in h) for g in new for h in steps} - known
            known |= new
        assert len(known) == group.order


def test_random_subsets_hold_the_identity():
    group = graph_automorphisms(branches(3, 3))
    found = group.subset(10, generator=torch.Generator().manual_seed(0))
    assert found.shape == (10, group.num_points)
    assert found[0].tolist() == list(range(group.num_points))
    assert len(torch.unique(found, dim=0)) > 5


def test_moves_generate_the_group_and_hold_their_inverses():
    group = graph_automorphisms(branches(2, 3))
    moves = {tuple(g) for g in group.moves.tolist()}
    assert tuple(range(9)) not in moves
    assert {tuple(g.argsort().tolist()) for g in group.moves} == moves
    known, new = {tuple(range(9))}, {tuple(range(9))}
    while new:
        new = {tuple(g[i] for i in h) for g in new for h in moves} - known
        known |= new
    assert len(known) == group.order == 72


def test_a_graph_without_symmetry():
    group = graph_automorphisms(LabelledGraph((0, 1, 2), ((0, 1, 1), (1, 2, 1))))
    assert group.order == 1
    assert group.moves.shape == (0, 3)
    assert group.elements().tolist() == [[0, 1, 2]]
    assert group.factors == ()


def test_bad_input():
    with pytest.raises(BadInput, match="vertices"):
        LabelledGraph((0, 0), ((0, 2, 1),))
    with pytest.raises(BadInput, match="identity first"):
        GraphAutomorphisms(2, [[(1, 0), (0, 1)]])
    with pytest.raises(BadInput, match="permutations of 2"):
        GraphAutomorphisms(2, [[(0, 1), (0, 0)]])
