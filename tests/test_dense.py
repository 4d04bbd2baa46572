import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orbitdiff.batch import to_dense
from orbitdiff.errors import BadInput


@given(st.lists(st.integers(0, 5), max_size=8), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_there_and_back(sizes, empty_at_the_end):
    batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes, dtype=torch.long))
    points = torch.randn(len(batch), 3)
    graphs = len(sizes) + empty_at_the_end
    dense, mask = to_dense(points, batch, num_graphs=graphs)
    assert mask.sum(1).tolist() == sizes + [0] * empty_at_the_end
    assert torch.equal(dense[mask], points)
    assert not dense[~mask].any()
    assert dense.shape == (graphs, max([*sizes, 0]) if graphs else 0, 3)
    for graph, size in enumerate(sizes):
        assert torch.equal(dense[graph, :size], points[batch == graph])


def test_gradients_flow():
    points = torch.randn(5, 3, requires_grad=True)
    dense, mask = to_dense(points, torch.tensor([0, 0, 1, 1, 1]))
    (dense.square().sum() + mask.sum()).backward()
    assert torch.equal(points.grad, 2 * points.detach())


def test_bad_indices():
    points = torch.randn(3, 3)
    for batch, options, message in (
        ([1, 0, 1], {}, "argsort"),
        ([-1, 0, 1], {}, "ascending"),
        ([0, 1, 2], {"num_graphs": 2}, "num_graphs = 2"),
    ):
        with pytest.raises(BadInput, match=message):
            to_dense(points, torch.tensor(batch), **options)
