"""The backbone transformer: linear start, padding, precision, self-conditioning, distogram."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from orbitdiff.data.proteins import blank_batch
from orbitdiff.errors import BadInput
from orbitdiff.nn.backbone_transformer import BackboneTransformer, BackboneTransformerConfig
from orbitdiff.nn.base import Denoiser
from orbitdiff.nn.chain_features import POINTS, chain_features, distogram_loss

CPU = BackboneTransformerConfig(
    hidden=96, layers=4, heads=6, pair_width=32, registers=4, radial=16, time_dim=32
)
SMALL = replace(CPU, hidden=24, layers=2, heads=3, pair_width=8, registers=2, radial=8, time_dim=8)
SIZES = [7, 1, 4, 9]


def awake(config, *, seed=0):
    """A network whose zeros are replaced, so that every part takes effect."""
    torch.manual_seed(seed)
    net = BackboneTransformer(config)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return net


def inputs(sizes=SIZES, *, width=None, dtype=torch.float64, seed=1):
    batch = blank_batch(list(sizes))
    generator = torch.Generator().manual_seed(seed)
    x = 8 * torch.randn(len(sizes), max(sizes), 3, generator=generator, dtype=dtype)
    mask = batch.mask
    real = mask[..., None].to(dtype)
    x = (x - (x * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)) * real
    t = torch.rand(len(sizes), generator=generator, dtype=dtype)
    index = batch.cond["residue_index"]
    if width is not None:
        more = width - max(sizes)
        x, mask, index = (
            torch.nn.functional.pad(part, shape)
            for part, shape in ((x, (0, 0, 0, more)), (mask, (0, more)), (index, (0, more)))
        )
    return {"positions": x}, t, {"residue_index": index}, mask


def parameters(config):
    return sum(parameter.numel() for parameter in BackboneTransformer(config).parameters())


def test_sizes():
    assert 0.4e6 < parameters(CPU) < 0.6e6
    paper = BackboneTransformerConfig()
    one, two = (parameters(replace(paper, layers=layers)) for layers in (1, 2))
    whole = one + (paper.layers - 1) * (two - one)  # each layer adds the same number
    assert 60e6 < whole < 200e6
    assert isinstance(BackboneTransformer(SMALL), Denoiser)


def test_the_untrained_network_is_the_best_linear_prediction():
    x_t, t, cond, mask = inputs()
    config = replace(SMALL, data_scale=7.0, prior_scale=11.0)
    found = BackboneTransformer(config).double()(x_t, t, cond, mask)["positions"]
    for row, time in enumerate(t.tolist()):
        # regression of y - x_0 on x_t, from the covariance of the three
        covariance = time * 11.0**2 - (1 - time) * 7.0**2
        variance = (1 - time) ** 2 * 7.0**2 + time**2 * 11.0**2
        expected = covariance / variance * x_t["positions"][row]
        torch.testing.assert_close(found[row], expected, atol=1e-9, rtol=1e-9)


def test_the_output_is_scaled_to_what_the_linear_part_leaves():
    """With F = 1 everywhere (before centring, masked here by its difference) u - c x = c_out."""
    x_t, t, cond, mask = inputs([6, 6])
    config = replace(SMALL, data_scale=7.0, prior_scale=11.0)
    net = BackboneTransformer(config).double()
    still = net(x_t, t, cond, mask)["positions"]
    with torch.no_grad():
        net.final_modulation.bias[:] = torch.randn(2 * config.hidden)
        net.out.weight.normal_()
    change = net(x_t, t, cond, mask)["positions"] - still
    twin = BackboneTransformer(replace(config, prior_scale=22.0)).double()
    twin.load_state_dict(net.state_dict())
    start = BackboneTransformer(replace(config, prior_scale=22.0)).double()
    other = twin(x_t, t, cond, mask)["positions"] - start(x_t, t, cond, mask)["positions"]
    for row, time in enumerate(t.tolist()):
        rest = [math.sqrt(1 / ((1 - time) ** 2 / p**2 + time**2 / 7.0**2)) for p in (11.0, 22.0)]
        torch.testing.assert_close(other[row] / rest[1], change[row] / rest[0])
    assert change.abs().max() > 1


def test_padding_and_the_batch_have_no_influence():
    net = awake(SMALL).double()
    x_t, t, cond, mask = inputs()
    together = net(x_t, t, cond, mask)["positions"]
    assert (together[~mask] == 0).all()
    assert together.sum(1).abs().max() < 1e-9
    wide = net(*inputs(width=14))["positions"]
    torch.testing.assert_close(wide[:, :9], together, atol=1e-9, rtol=1e-9)
    for row, size in enumerate(SIZES):
        alone = net(
            {"positions": x_t["positions"][row : row + 1, :size]},
            t[row : row + 1],
            {"residue_index": torch.arange(size)[None]},
            torch.ones(1, size, dtype=torch.bool),
        )["positions"]
        torch.testing.assert_close(together[row, :size], alone[0], atol=1e-9, rtol=1e-9)
    filled = {"positions": torch.where(mask[..., None], x_t["positions"], 7.7)}
    torch.testing.assert_close(net(filled, t, cond, mask)["positions"], together)


def test_every_residue_sees_coordinates_order_time_and_length():
    net = awake(SMALL).double()
    x_t, t, cond, mask = inputs([8])
    found = net(x_t, t, cond, mask)["positions"]
    moved = {"positions": x_t["positions"].clone()}
    moved["positions"][0, 0] += 0.5
    assert (net(moved, t, cond, mask)["positions"] - found).abs().amax(-1).min() > 1e-6
    assert (net(x_t, t + 0.01, cond, mask)["positions"] - found).abs().amax(-1).min() > 1e-6
    back = {"positions": x_t["positions"].flip(1)}
    assert (net(back, t, cond, mask)["positions"].flip(1) - found).abs().max() > 1e-3
    gap = {"residue_index": cond["residue_index"] + 20 * (cond["residue_index"] > 3)}
    assert (net(x_t, t, gap, mask)["positions"] - found).abs().max() > 1e-3
    turn = torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    turned = net({"positions": x_t["positions"] @ turn}, t, cond, mask)["positions"]
    assert (turned - found @ turn).abs().max() > 1e-3  # by design: rotations are learned


def test_a_chain_can_be_learned():
    """At t = 0.3 and one chain the velocity is (x_t - x_0) / t; the linear part can not know it."""
    torch.manual_seed(0)
    net = BackboneTransformer(SMALL)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    x_0 = inputs([9], dtype=torch.float32, seed=5)[0]["positions"].expand(16, -1, -1)
    cond = {"residue_index": torch.arange(9).expand(16, -1)}
    mask, t = torch.ones(16, 9, dtype=torch.bool), torch.full((16,), 0.3)
    losses = []
    for _ in range(120):
        prior = 10 * torch.randn(16, 9, 3)
        prior = prior - prior.mean(1, keepdim=True)
        found = net({"positions": 0.7 * x_0 + 0.3 * prior}, t, cond, mask)["positions"]
        loss = (found - (prior - x_0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.25 * np.mean(losses[:3])


def test_bfloat16_keeps_the_coordinates():
    net, start = awake(SMALL), BackboneTransformer(SMALL)
    x_t, t, cond, mask = inputs(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low, linear = net(x_t, t, cond, mask), start(x_t, t, cond, mask)
    assert low["positions"].dtype == torch.float32
    torch.testing.assert_close(linear, start(x_t, t, cond, mask))
    exact = net(x_t, t, cond, mask)["positions"]
    change = (exact - start(x_t, t, cond, mask)["positions"]).square().mean().sqrt()
    error = (low["positions"] - exact).square().mean().sqrt()
    assert 0 < error < 0.03 * change
    # two inputs that bfloat16 can not tell apart
    near = {"positions": x_t["positions"] * (1 + 1e-3)}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        shifted = net(near, t, cond, mask)["positions"]
    assert (shifted - low["positions"]).abs().max() > 1e-4
    low["positions"].square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_float32_agrees_with_float64():
    net = awake(SMALL)
    x_t, t, cond, mask = inputs()
    exact = net.double()(x_t, t, cond, mask)["positions"]
    single = net.float()({"positions": x_t["positions"].float()}, t.float(), cond, mask)
    torch.testing.assert_close(single["positions"].double(), exact, atol=2e-3, rtol=2e-3)


def test_self_conditioning():
    x_t, t, cond, mask = inputs()
    guess = {**cond, "self_condition": 0.5 * x_t["positions"]}
    zeros = {**cond, "self_condition": torch.zeros_like(x_t["positions"])}
    net = awake(replace(SMALL, self_condition=True)).double()
    without = net(x_t, t, cond, mask)["positions"]
    torch.testing.assert_close(net(x_t, t, zeros, mask)["positions"], without)
    assert (net(x_t, t, guess, mask)["positions"] - without).abs().max() > 1e-2
    deaf = awake(SMALL).double()
    torch.testing.assert_close(deaf(x_t, t, guess, mask), deaf(x_t, t, cond, mask))


def test_distogram_is_given_only_when_asked():
    x_t, t, cond, mask = inputs()
    net = awake(replace(SMALL, distogram_bins=12)).double()
    assert set(net(x_t, t, cond, mask)) == {"positions"}
    both = net(x_t, t, cond, mask, distogram=True)
    torch.testing.assert_close(both["positions"], net(x_t, t, cond, mask)["positions"])
    logits = both["distogram"]
    assert logits.shape == (4, 9, 9, 12)
    torch.testing.assert_close(logits, logits.transpose(1, 2))
    with pytest.raises(BadInput, match="distogram_bins"):
        awake(SMALL)(*inputs(dtype=torch.float32), distogram=True)


def test_distogram_loss_by_a_loop_over_pairs():
    bins, (x_t, _, _, mask) = 6, inputs()
    x_0 = x_t["positions"] / 2
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 9, 9, bins, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.1, 0.2, 0.69, 0.71], dtype=torch.float64)
    found = distogram_loss(logits, x_0, t, mask)
    edges = np.linspace(0, 10, bins)  # 10 angstrom and more: the last bin
    for row, size in enumerate(SIZES):
        values = []
        for i in range(size):
            for j in range(size):
                if i == j:
                    continue
                distance = np.linalg.norm(x_0[row, i] - x_0[row, j])
                place = np.searchsorted(edges, distance, side="right") - 1
                probability = torch.softmax(logits[row, i, j], -1)[place]
                values.append(-math.log(probability))
        expected = np.mean(values) if values and t[row] < 0.7 else 0.0
        assert float(found[row]) == pytest.approx(expected, abs=1e-9)


def test_neighbours_along_the_chain_stop_at_the_ends():
    x = torch.arange(12, dtype=torch.float64).view(1, 4, 3).square()
    mask = torch.tensor([[True, True, True, False]])
    found = chain_features(x, mask)
    assert found.shape == (1, 4, POINTS)
    torch.testing.assert_close(found[0, 1, :3], 0.1 * x[0, 1])
    for place, offset in enumerate((-4, -3, -2, -1, 1, 2, 3, 4)):
        features = found[0, 1, 3 + 7 * place :][:7]
        if offset in (-1, 1):
            step = x[0, 1 + offset] - x[0, 1]
            length = step.norm()
            expected = torch.cat([0.1 * step, step / length, 0.1 * length[None]])
        else:
            expected = torch.zeros(7, dtype=torch.float64)
        torch.testing.assert_close(features, expected, atol=2e-3, rtol=1e-4)


def test_wrong_sizes_are_refused():
    for change, match in [({"hidden": 0}, "hidden"), ({"heads": 5}, "heads"),
                          ({"registers": 0}, "registers"), ({"data_scale": 0.0}, "data_scale")]:  # fmt: skip
        with pytest.raises(BadInput, match=match):
            replace(SMALL, **change)
