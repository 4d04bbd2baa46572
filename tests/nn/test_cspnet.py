"""The dense CSPNet is the published network, with the symmetries it promises."""

import sys
from pathlib import Path

import pytest
import torch

from orbitdiff.errors import BadInput
from orbitdiff.nn import cspnet
from orbitdiff.nn.cspnet import CSPNet, CSPNetConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from edge_list_cspnet import EdgeListCSPNet

SIZES = [5, 1, 3, 6]


@pytest.fixture
def net():
    torch.manual_seed(0)
    config = CSPNetConfig(hidden=24, layers=3, frequencies=7, time_dim=10)
    return CSPNet(config).double()


@pytest.fixture
def batch(generator):
    mask = torch.arange(6) < torch.tensor(SIZES)[:, None]
    lattice = 4 * torch.eye(3) + torch.randn(4, 3, 3, generator=generator)
    frac = torch.rand(4, 6, 3, generator=generator) * mask[..., None]
    types = torch.randint(1, 100, (4, 6), generator=generator) * mask
    x_t = {"lattice": lattice.double(), "frac": frac.double()}
    t = torch.rand(4, generator=generator, dtype=torch.float64)
    return x_t, t, {"atom_types": types}, mask


def scalar(out):
    return (out["lattice"] ** 2).sum() + (out["frac"] * out["frac"].cos()).sum()


def test_values_and_gradients_equal_the_edge_list_network(net, batch):
    plain = EdgeListCSPNet.from_dense(net)
    x_t, t, cond, mask = batch
    ours = {name: value.clone().requires_grad_() for name, value in x_t.items()}
    theirs = {name: value.clone().requires_grad_() for name, value in x_t.items()}
    found, expected = net(ours, t, cond, mask), plain(theirs, t, cond, mask)
    for name in x_t:
        assert expected[name].abs().max() > 1e-3
        torch.testing.assert_close(found[name], expected[name], atol=1e-10, rtol=1e-9)
    scalar(found).backward()
    scalar(expected).backward()
    for name in x_t:
        torch.testing.assert_close(ours[name].grad, theirs[name].grad, atol=1e-9, rtol=1e-8)
    for layer, published in zip(net.layers, plain.layers, strict=True):
        parts = [*layer.edge_node.weight.grad.chunk(2), layer.edge_gram.weight.grad]
        parts.append(layer.edge_pair.weight.grad)
        torch.testing.assert_close(
            torch.cat(parts, 1), published.edge[0].weight.grad, atol=1e-9, rtol=1e-8
        )
        grad = published.edge[2].weight.grad
        torch.testing.assert_close(layer.edge_out.weight.grad, grad, atol=1e-9, rtol=1e-8)
        grad = published.edge[0].bias.grad
        torch.testing.assert_close(layer.edge_gram.bias.grad, grad, atol=1e-9, rtol=1e-8)
    torch.testing.assert_close(net.elements.weight.grad, plain.elements.weight.grad)


def test_float32_agrees(net, batch):
    x_t, t, cond, mask = batch
    expected = net(x_t, t, cond, mask)
    low = {name: value.float() for name, value in x_t.items()}
    found = net.float()(low, t.float(), cond, mask)
    for name in x_t:
        torch.testing.assert_close(found[name].double(), expected[name], atol=1e-3, rtol=1e-3)


def test_translations_of_the_torus_change_nothing(net, batch, generator):
    x_t, t, cond, mask = batch
    shift = torch.rand(4, 1, 3, generator=generator)
    moved = torch.remainder(x_t["frac"] + shift, 1.0) + 2.0
    found = net({**x_t, "frac": moved}, t, cond, mask)
    expected = net(x_t, t, cond, mask)
    for name in x_t:
        torch.testing.assert_close(found[name], expected[name], atol=1e-9, rtol=1e-9)


def test_permutations_of_atoms_permute_the_score(net, batch, generator):
    x_t, t, cond, mask = batch
    order = torch.randperm(6, generator=generator)
    turned = {"atom_types": cond["atom_types"][:, order]}
    found = net({**x_t, "frac": x_t["frac"][:, order]}, t, turned, mask[:, order])
    expected = net(x_t, t, cond, mask)
    torch.testing.assert_close(found["frac"], expected["frac"][:, order], atol=1e-10, rtol=1e-9)
    torch.testing.assert_close(found["lattice"], expected["lattice"], atol=1e-10, rtol=1e-9)


def test_rotations_of_the_cell_rotate_the_lattice_noise(net, batch, generator):
    x_t, t, cond, mask = batch
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    found = net({**x_t, "lattice": x_t["lattice"] @ turn}, t, cond, mask)
    expected = net(x_t, t, cond, mask)
    torch.testing.assert_close(found["frac"], expected["frac"], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(found["lattice"], expected["lattice"] @ turn, atol=1e-9, rtol=1e-9)


def test_padding_changes_nothing(net, batch):
    x_t, t, cond, mask = batch
    expected = net(x_t, t, cond, mask)
    for row, size in enumerate(SIZES):
        alone = net(
            {"lattice": x_t["lattice"][row : row + 1], "frac": x_t["frac"][row : row + 1, :size]},
            t[row : row + 1],
            {"atom_types": cond["atom_types"][row : row + 1, :size]},
            mask[row : row + 1, :size],
        )
        torch.testing.assert_close(alone["frac"][0], expected["frac"][row, :size])
        torch.testing.assert_close(alone["lattice"][0], expected["lattice"][row])
        assert (expected["frac"][row, size:] == 0).all()


def test_time_and_composition_matter(net, batch):
    x_t, t, cond, mask = batch
    expected = net(x_t, t, cond, mask)["frac"]
    assert (net(x_t, 1 - t, cond, mask)["frac"] - expected).abs().max() > 1e-3
    other = {"atom_types": (cond["atom_types"] % 99 + 1) * mask}
    assert (net(x_t, t, other, mask)["frac"] - expected).abs().max() > 1e-3


def test_sizes_below_one_are_refused():
    with pytest.raises(BadInput, match=r"model\.layers"):
        CSPNetConfig(layers=0)


@pytest.mark.parametrize("block", [1, 3])
def test_blocks_of_a_cpu_change_nothing(net, batch, monkeypatch, block):
    whole = net(*batch)
    seen = []
    monkeypatch.setattr(cspnet, "CACHED", block * 6 * 6 * 24)
    predict = CSPNet._predict
    monkeypatch.setattr(
        CSPNet, "_predict", lambda self, *parts: seen.append(len(parts[3])) or predict(self, *parts)
    )
    with torch.no_grad():
        found = net(*batch)
    assert seen == ([1, 1, 1, 1] if block == 1 else [3, 1])
    for name, value in whole.items():
        torch.testing.assert_close(found[name], value.detach(), atol=1e-12, rtol=1e-11)
    seen.clear()
    net(*batch)  # gradients need the whole batch
    assert seen == [4]
