"""Symmetries, limits and labels of the equivariant transformer."""

import sys
from pathlib import Path

import pytest
import torch

from orbitdiff.errors import BadInput
from orbitdiff.nn.equivariant_transformer import (
    EquivariantTransformer,
    EquivariantTransformerConfig,
)
from orbitdiff.nn.molecule_features import linear_velocity

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from edge_list_transformer import EdgeListTransformer

SIZES = [9, 1, 2, 6]
SMALL = {"layers": 3, "pair_width": 10, "radial": 8, "time_dim": 12, "atom_features": 5}


def with_weights(net):
    """The network with its zero starts replaced, so that every part matters."""
    torch.manual_seed(1)
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return net.double()


@pytest.fixture
def net():
    torch.manual_seed(0)
    config = EquivariantTransformerConfig(hidden=24, heads=4, **SMALL)
    return with_weights(EquivariantTransformer(config))


@pytest.fixture
def batch(generator):
    mask = torch.arange(9) < torch.tensor(SIZES)[:, None]
    both = mask[:, None] & mask[:, :, None]
    x = torch.randn(4, 9, 3, generator=generator, dtype=torch.float64) * mask[..., None]
    x = (x - x.sum(1, keepdim=True) / mask.sum(1)[:, None, None]) * mask[..., None]
    upper = torch.randint(0, 7, (4, 9, 9), generator=generator).triu(1)
    steps = torch.randint(1, 9, (4, 9, 9), generator=generator).triu(1)
    cond = {
        "atom_types": torch.randint(1, 10, (4, 9), generator=generator) * mask,
        "atom_features": torch.randn(4, 9, 5, generator=generator).double() * mask[..., None],
        "pair_types": (upper + upper.mT) * both,
        "graph_distance": (steps + steps.mT) * both,
        "stereo": torch.zeros(4, 2, 5, dtype=torch.long),
        "stereo_sign": torch.zeros(4, 2, dtype=torch.float64),
    }
    cond["stereo"][0] = torch.tensor([[0, 1, 2, 3, 4], [3, 0, 5, 8, 7]])
    cond["stereo"][3, 0] = torch.tensor([2, 1, 0, 5, 4])
    cond["stereo_sign"][0] = torch.tensor([1.0, -1.0])
    cond["stereo_sign"][3, 0] = 1.0
    t = torch.rand(4, generator=generator, dtype=torch.float64)
    return {"positions": x}, t, cond, mask


def test_a_new_network_is_the_best_linear_prediction(batch):
    x_t, t, cond, mask = batch
    config = EquivariantTransformerConfig(
        hidden=24, heads=4, data_scale=1.5, prior_scale=0.8, **SMALL
    )
    found = EquivariantTransformer(config).double()(x_t, t, cond, mask)["positions"]
    normal = torch.randn(
        2, 400_000, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    x_0, y = 1.5 * normal[0], 0.8 * normal[1]
    for row, time in enumerate(t):
        sample = (1 - time) * x_0 + time * y
        slope = (sample * (y - x_0)).mean() / sample.square().mean()
        torch.testing.assert_close(found[row], slope * x_t["positions"][row], atol=0.05, rtol=0.01)


def test_values_and_gradients_equal_the_edge_list_network(net, batch):
    x_t, t, cond, mask = batch
    plain = EdgeListTransformer(net)
    found, expected = (f(x_t, t, cond, mask)["positions"] for f in (net, plain))
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(3)).double()
    ours = torch.autograd.grad((found * weights).sum(), list(net.parameters()))
    theirs = torch.autograd.grad((expected * weights).sum(), list(net.parameters()))
    assert all(grad.abs().max() > 1e-6 for grad in theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-7)


def test_float32_agrees(net, batch):
    x_t, t, cond, mask = batch
    expected = net(x_t, t, cond, mask)["positions"]
    cond = {name: x.float() if x.is_floating_point() else x for name, x in cond.items()}
    found = net.float()({"positions": x_t["positions"].float()}, t.float(), cond, mask)
    torch.testing.assert_close(found["positions"].double(), expected, atol=1e-4, rtol=1e-4)


def test_rotations_turn_the_velocity(net, batch, generator):
    x_t, t, cond, mask = batch
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    turn = turn * turn.det()
    found = net({"positions": x_t["positions"] @ turn.T}, t, cond, mask)["positions"]
    expected = net(x_t, t, cond, mask)["positions"] @ turn.T
    linear = linear_velocity(t, data_scale=1.2, prior_scale=1.2)[:, None, None] * x_t["positions"]
    assert (expected - linear @ turn.T).abs().amax((1, 2))[[0, 2, 3]].min() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


def test_mirror_images_need_flipped_labels(net, batch):
    x_t, t, cond, mask = batch
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    image = {"positions": x_t["positions"] @ mirror}
    expected = net(x_t, t, cond, mask)["positions"] @ mirror
    flipped = {**cond, "stereo_sign": -cond["stereo_sign"]}
    found = net(image, t, flipped, mask)["positions"]
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    same = net(image, t, cond, mask)["positions"]
    apart = (same - expected).abs().amax((1, 2))
    assert apart[[0, 3]].min() > 1e-3
    assert apart[[1, 2]].max() < 1e-9


def test_each_stereocentre_has_its_own_label(net, batch):
    x_t, t, cond, mask = batch
    outputs = []
    for signs in ([1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]):
        labels = cond["stereo_sign"].clone()
        labels[0] = torch.tensor(signs)
        outputs.append(net(x_t, t, {**cond, "stereo_sign": labels}, mask)["positions"][0])
    assert torch.pdist(torch.stack(outputs).flatten(1)).min() > 1e-3


def test_odd_orders_of_neighbours_with_flipped_labels_are_the_same_centre(net, batch):
    x_t, t, cond, mask = batch
    expected = net(x_t, t, cond, mask)["positions"]
    for order, parity in (([0, 2, 1, 3, 4], -1), ([0, 4, 2, 3, 1], -1), ([0, 2, 3, 1, 4], 1)):
        other = {"stereo": cond["stereo"][..., order], "stereo_sign": parity * cond["stereo_sign"]}
        found = net(x_t, t, {**cond, **other}, mask)["positions"]
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


def test_without_stereocentres_mirror_images_are_mirrored(net, batch):
    x_t, t, cond, mask = batch
    none = {"stereo": cond["stereo"][:, :0], "stereo_sign": cond["stereo_sign"][:, :0]}
    cond = {**cond, **none}
    found = net({"positions": -x_t["positions"]}, t, cond, mask)["positions"]
    expected = net(x_t, t, cond, mask)["positions"]
    torch.testing.assert_close(found, -expected, atol=1e-9, rtol=1e-9)
    expected.square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_permutations_of_atoms_permute_the_velocity(net, batch, generator):
    x_t, t, cond, mask = batch
    order = torch.randperm(9, generator=generator)
    place = order.argsort()
    turned = {
        "atom_types": cond["atom_types"][:, order],
        "atom_features": cond["atom_features"][:, order],
        "pair_types": cond["pair_types"][:, order][:, :, order],
        "graph_distance": cond["graph_distance"][:, order][:, :, order],
        "stereo": place[cond["stereo"]],
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


@pytest.mark.parametrize("spread", [0.0, 1e-8, 1.0, 1e3])
def test_values_and_gradients_are_finite_for_any_geometry(net, batch, spread):
    x_t, t, cond, mask = batch
    position = (spread * x_t["positions"]).float().requires_grad_()
    cond = {name: x.float() if x.is_floating_point() else x for name, x in cond.items()}
    for time in (torch.zeros(4), torch.ones(4), t.float()):
        found = net.float()({"positions": position}, time, cond, mask)["positions"]
        assert found.isfinite().all()
        grad = torch.autograd.grad(found.square().sum(), [position, *net.parameters()])
        assert all(part.isfinite().all() for part in grad)


def test_time_bonds_and_features_matter(net, batch):
    x_t, t, cond, mask = batch
    expected = net(x_t, t, cond, mask)["positions"]
    linear = linear_velocity(1 - t, data_scale=1.2, prior_scale=1.2)[:, None, None]
    linear = linear - linear_velocity(t, data_scale=1.2, prior_scale=1.2)[:, None, None]
    later = net(x_t, 1 - t, cond, mask)["positions"]
    assert (later - expected - linear * x_t["positions"]).abs().max() > 1e-3
    for name, top in (("atom_types", 9), ("pair_types", 6), ("graph_distance", 8)):
        changed = torch.where(cond[name] > 0, cond[name] % top + 1, 0)
        found = net(x_t, t, {**cond, name: changed}, mask)["positions"]
        assert (found - expected).abs().max() > 1e-3
    found = net(x_t, t, {**cond, "atom_features": -cond["atom_features"]}, mask)["positions"]
    assert (found - expected).abs().max() > 1e-3


def test_sizes_of_the_presets():
    sizes = {
        "cpu": EquivariantTransformerConfig(
            hidden=80, layers=4, heads=8, pair_width=32, radial=24, time_dim=48
        ),
        "paper": EquivariantTransformerConfig(),
    }
    count = {
        name: sum(x.numel() for x in EquivariantTransformer(config).parameters())
        for name, config in sizes.items()
    }
    assert 0.28e6 < count["cpu"] < 0.36e6
    assert 7.5e6 < count["paper"] < 8.5e6


def test_learns_the_velocity_of_one_molecule(batch):
    x_t, _, cond, mask = batch
    torch.manual_seed(0)
    net = EquivariantTransformer(EquivariantTransformerConfig(hidden=32, heads=4, **SMALL))
    row = {name: x[:1].expand(32, *x.shape[1:]) for name, x in cond.items()}
    row = {name: x.float() if x.is_floating_point() else x for name, x in row.items()}
    x_0 = x_t["positions"][:1].float()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(80):
        noise = 1.2 * torch.randn(32, 9, 3, generator=generator)
        noise = noise - noise.mean(1, keepdim=True)
        t = torch.rand(32, generator=generator)
        noised = (1 - t)[:, None, None] * x_0 + t[:, None, None] * noise
        found = net({"positions": noised}, t, row, mask[:1].expand(32, -1))["positions"]
        loss = (found - (noise - x_0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_bad_sizes_are_refused():
    with pytest.raises(BadInput, match=r"model\.layers"):
        EquivariantTransformerConfig(layers=0)
    with pytest.raises(BadInput, match="divide"):
        EquivariantTransformerConfig(hidden=80, heads=7)
