"""The transformer without equivariance: attention, padding, permutations, labels, learning."""

import math

import pytest
import torch
from torch.nn import functional

from orbitdiff.errors import BadInput
from orbitdiff.nn.molecule_features import linear_velocity
from orbitdiff.nn.molecule_transformer import (
    MoleculeTransformer,
    MoleculeTransformerConfig,
    TransformerBlock,
)

SIZES = [7, 1, 5]
SMALL = MoleculeTransformerConfig(hidden=24, layers=2, heads=3, time_dim=12, atom_features=4)
SCALES = {"data_scale": 1.2, "prior_scale": 1.2}


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = MoleculeTransformer(SMALL)
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return net.double()


@pytest.fixture
def batch(generator):
    mask = torch.arange(7) < torch.tensor(SIZES)[:, None]
    both = mask[:, None] & mask[:, :, None]
    x = torch.randn(3, 7, 3, generator=generator, dtype=torch.float64)
    x = (x - (x * mask[..., None]).sum(1, keepdim=True) / mask.sum(1)[:, None, None]) * mask[
        ..., None
    ]
    cond = {
        "atom_types": torch.randint(1, 10, (3, 7), generator=generator) * mask,
        "atom_features": torch.randn(3, 7, 4, generator=generator).double() * mask[..., None],
        "pair_types": torch.randint(0, 7, (3, 7, 7), generator=generator) * both,
        "graph_distance": torch.randint(0, 9, (3, 7, 7), generator=generator) * both,
        "stereo": torch.tensor([[[0, 1, 2, 3, 4], [4, 0, 6, 5, 3]]] + 2 * [[[0] * 5] * 2]),
        "stereo_sign": torch.tensor([[1.0, -1.0], [0, 0], [0, 0]], dtype=torch.float64),
    }
    t = torch.rand(3, generator=generator, dtype=torch.float64)
    return {"positions": x}, t, cond, mask


def test_a_new_network_is_the_best_linear_prediction(batch):
    x_t, t, cond, mask = batch
    found = MoleculeTransformer(SMALL).double()(x_t, t, cond, mask)["positions"]
    expected = linear_velocity(t, **SCALES)[:, None, None] * x_t["positions"]
    torch.testing.assert_close(found, expected)


def test_a_block_attends_as_written_atom_by_atom(generator):
    torch.manual_seed(1)
    block = TransformerBlock(SMALL).double()
    torch.nn.init.normal_(block.modulation.weight, std=0.3)
    x = torch.randn(1, 5, 24, generator=generator, dtype=torch.float64)
    time = torch.randn(1, 12, generator=generator, dtype=torch.float64)
    graph = torch.randn(16, 1, 5, 5, generator=generator, dtype=torch.float64)
    padding = torch.tensor([0.0, 0.0, 0.0, 0.0, -1e9], dtype=torch.float64).view(1, 1, 1, 5)
    found = block(x, graph.flatten(1), padding, time)
    scale, shift, gate, scale_2, shift_2, gate_2 = block.modulation(time)[0].chunk(6)
    y = functional.layer_norm(x[0], (24,)) * (1 + scale) + shift
    query, key, value = (functional.linear(y, *part) for part in thirds(block.qkv))
    mixed = torch.zeros(5, 24, dtype=torch.float64)
    for head in range(3):
        part = slice(8 * head, 8 * head + 8)
        for i in range(5):
            logits = [
                query[i, part] @ key[j, part] / math.sqrt(8) + block.bias(graph[:, 0, i, j])[head]
                for j in range(4)
            ]
            weights = torch.stack(logits).exp()
            mixed[i, part] = weights @ value[:4, part] / weights.sum()
    expected = x[0] + gate * block.attention_out(mixed)
    y = functional.layer_norm(expected, (24,)) * (1 + scale_2) + shift_2
    torch.testing.assert_close(found[0], expected + gate_2 * block.mlp(y))


def thirds(linear):
    return zip(linear.weight.chunk(3), linear.bias.chunk(3), strict=True)


def test_permutations_of_atoms_permute_the_velocity(net, batch, generator):
    x_t, t, cond, mask = batch
    order = torch.randperm(7, generator=generator)
    turned = {
        "atom_types": cond["atom_types"][:, order],
        "atom_features": cond["atom_features"][:, order],
        "pair_types": cond["pair_types"][:, order][:, :, order],
        "graph_distance": cond["graph_distance"][:, order][:, :, order],
        "stereo": order.argsort()[cond["stereo"]],
        "stereo_sign": cond["stereo_sign"],
    }
    found = net({"positions": x_t["positions"][:, order]}, t, turned, mask[:, order])["positions"]
    expected = net(x_t, t, cond, mask)["positions"][:, order]
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


def test_padding_changes_nothing_and_stays_zero(net, batch):
    x_t, t, cond, mask = batch
    expected = net(x_t, t, cond, mask)["positions"]
    for row, size in enumerate(SIZES):
        alone = {name: value[row : row + 1] for name, value in cond.items()}
        for name in ("atom_types", "atom_features", "pair_types", "graph_distance"):
            alone[name] = alone[name][:, :size]
        for name in ("pair_types", "graph_distance"):
            alone[name] = alone[name][:, :, :size]
        position = {"positions": x_t["positions"][row : row + 1, :size]}
        found = net(position, t[row : row + 1], alone, mask[row : row + 1, :size])["positions"]
        torch.testing.assert_close(found[0], expected[row, :size], atol=1e-10, rtol=1e-9)
        assert (expected[row, size:] == 0).all()
        assert expected[row].mean(0).abs().max() < 1e-12


def test_every_input_matters(net, batch):
    x_t, t, cond, mask = batch
    expected = net(x_t, t, cond, mask)["positions"]
    changes = [
        {"atom_types": (cond["atom_types"] % 9 + 1) * mask},
        {"atom_features": -cond["atom_features"]},
        {"pair_types": (cond["pair_types"] + 1) % 7},
        {"graph_distance": (cond["graph_distance"] + 1) % 9},
        {"stereo_sign": cond["stereo_sign"] * torch.tensor([-1.0, 1.0])},
        {"stereo_sign": cond["stereo_sign"] * torch.tensor([1.0, -1.0])},
    ]
    for change in changes:
        found = net(x_t, t, {**cond, **change}, mask)["positions"]
        assert (found - expected).abs().max() > 1e-3
    linear = linear_velocity(1 - t, **SCALES) - linear_velocity(t, **SCALES)
    later = net(x_t, 1 - t, cond, mask)["positions"] - linear[:, None, None] * x_t["positions"]
    assert (later - expected).abs().max() > 1e-3


def test_without_stereocentres_every_weight_still_has_a_gradient(net, batch):
    x_t, t, cond, mask = batch
    none = {"stereo": cond["stereo"][:, :0], "stereo_sign": cond["stereo_sign"][:, :0]}
    found = net(x_t, t, {**cond, **none}, mask)["positions"]
    found.square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    unlabelled = {**cond, "stereo_sign": torch.zeros_like(cond["stereo_sign"])}
    torch.testing.assert_close(found, net(x_t, t, unlabelled, mask)["positions"])


@pytest.mark.parametrize("spread", [0.0, 1e-8, 1e3])
def test_values_and_gradients_are_finite_for_any_geometry(net, batch, spread):
    x_t, _, cond, mask = batch
    position = (spread * x_t["positions"]).float().requires_grad_()
    cond = {name: x.float() if x.is_floating_point() else x for name, x in cond.items()}
    for time in (torch.zeros(3), torch.ones(3)):
        found = net.float()({"positions": position}, time, cond, mask)["positions"]
        assert found.isfinite().all()
        grad = torch.autograd.grad(found.square().sum(), [position, *net.parameters()])
        assert all(part.isfinite().all() for part in grad)


def test_sizes_of_the_presets():
    small = MoleculeTransformerConfig(hidden=80, layers=4, heads=8, time_dim=32)
    count = {
        name: sum(x.numel() for x in MoleculeTransformer(config).parameters())
        for name, config in {"cpu": small, "paper": MoleculeTransformerConfig()}.items()
    }
    assert 0.3e6 < count["cpu"] < 0.5e6
    assert 7.5e6 < count["paper"] < 9e6


def test_learns_the_velocity_of_one_molecule(batch):
    x_t, _, cond, mask = batch
    torch.manual_seed(0)
    net = MoleculeTransformer(SMALL)
    row = {name: x[:1].expand(32, *x.shape[1:]) for name, x in cond.items()}
    row = {name: x.float() if x.is_floating_point() else x for name, x in row.items()}
    x_0 = x_t["positions"][:1].float()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(100):
        noise = 1.2 * torch.randn(32, 7, 3, generator=generator)
        noise = noise - noise.mean(1, keepdim=True)
        t = torch.rand(32, generator=generator)
        noised = (1 - t)[:, None, None] * x_0 + t[:, None, None] * noise
        found = net({"positions": noised}, t, row, mask[:1].expand(32, -1))["positions"]
        loss = (found - (noise - x_0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


def test_bad_sizes_are_refused():
    with pytest.raises(BadInput, match=r"model\.hidden"):
        MoleculeTransformerConfig(hidden=0)
    with pytest.raises(BadInput, match="divide"):
        MoleculeTransformerConfig(hidden=80, heads=7)
