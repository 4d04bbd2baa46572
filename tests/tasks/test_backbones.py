"""The backbone task: times, targets of every arm, yardstick, extra losses, settings."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from orbitdiff.data.proteins import Backbone, ProteinDataset, backbone_schema, backbone_to_row
from orbitdiff.data.store import write_shards
from orbitdiff.errors import BadInput, IncompatibleKernel
from orbitdiff.groups.rotation import SO3
from orbitdiff.kernels.base import expand
from orbitdiff.nn.backbone_transformer import BackboneTransformerConfig
from orbitdiff.nn.chain_features import distogram_loss
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.samplers.flow import FlowConfig
from orbitdiff.seeding import stream
from orbitdiff.tasks.backbone_objective import FIELD, BackboneKernelConfig, BackboneObjective
from orbitdiff.tasks.backbone_yardstick import BackboneYardstick
from orbitdiff.tasks.backbones import (
    BackboneEvaluateConfig,
    Backbones,
    BackboneSampleConfig,
    BackbonesConfig,
    BackboneValidationConfig,
    build_network,
)
from orbitdiff.training.config import TrainConfig

CPU = torch.device("cpu")
KERNEL = BackboneKernelConfig()
ARMS = {
    "plain": EstimatorSpec("plain"),
    "published": EstimatorSpec("rotation_samples", num_samples=64, include_true=False),
    "published_true": EstimatorSpec("rotation_samples", num_samples=64),
    "exact": EstimatorSpec("rotation"),
}
MODEL = BackboneTransformerConfig(
    hidden=16, layers=1, heads=2, pair_width=8, registers=2, radial=6, time_dim=8
)
CONFIG = BackbonesConfig(
    model=MODEL,
    train=TrainConfig(steps=2, batch_size=4, num_workers=1),
    sample=BackboneSampleConfig(lengths=(12,), num=2, batch_size=2, sampler=FlowConfig(steps=3)),
    estimators=ARMS,
    validation=BackboneValidationConfig(num=3, times=(0.1, 0.6)),
)


def helix(name: str, length: int) -> Backbone:
    """CA atoms of an ideal right-handed helix with a kink, centred."""
    turn = np.radians(100) * np.arange(length)
    ca = np.stack([2.3 * np.cos(turn), 2.3 * np.sin(turn), 1.5 * np.arange(length)], 1)
    ca[length // 2 :, 0] += 0.5 * np.arange(length - length // 2)
    ca = (ca - ca.mean(0)).astype(np.float32)
    return Backbone(name, ca, "A" * length, name, name)


@pytest.fixture(scope="module")
def dataset() -> ProteinDataset:
    return ProteinDataset([helix(f"h{length}", length) for length in (9, 12, 14, 11, 13)])


def test_times_follow_the_published_law() -> None:
    """Against 1 - Beta(1.9, 1) of torch's own sampler, mixed with 2 % uniform."""
    num = 40_000
    t = KERNEL.draw_times(num, generator=torch.Generator().manual_seed(0), device=CPU)
    assert KERNEL.margin <= float(t.min())
    assert float(t.max()) < 1
    torch.manual_seed(1)
    beta = 1 - torch.distributions.Beta(1.9, 1.0).sample((num,))
    mixed = torch.where(torch.rand(num) < 0.02, torch.rand(num), beta)
    for share in (0.1, 0.5, 0.9, 0.99):
        found, wanted = t.quantile(share), mixed.quantile(share)
        assert abs(float(found - wanted)) < 0.01
    uniform = replace(KERNEL, uniform=1.0).draw_times(
        num, generator=torch.Generator().manual_seed(0), device=CPU
    )
    assert abs(float(uniform.mean()) - 0.5) < 0.01


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_gives_a_finite_loss_and_the_same_one_again(
    dataset: ProteinDataset, name: str
) -> None:
    objective = BackboneObjective(KERNEL, ARMS[name])
    network = build_network(MODEL, generator=stream(0))
    batch = dataset.batch(torch.arange(len(dataset)))

    def loss() -> torch.Tensor:
        generator = stream(1)
        t = objective.draw_times(len(batch), generator=generator, device=CPU)
        return objective(network, batch, t, generator=generator).per_sample.detach()

    first = loss()
    assert torch.isfinite(first).all()
    assert torch.equal(first, loss())


def test_the_loss_is_the_published_one_in_square_nanometres(dataset: ProteinDataset) -> None:
    """By hand: v = 10 eps - x_0 in angstrom, eps centred; mean over coordinates; a zero network."""
    objective = BackboneObjective(KERNEL, ARMS["plain"])
    batch = dataset.batch(torch.arange(len(dataset)))
    t = torch.linspace(0.05, 0.95, len(batch))

    def zero(x_t, t, cond, mask):
        return {FIELD: torch.zeros_like(x_t[FIELD])}

    found = objective(zero, batch, t, generator=stream(2)).per_sample
    eps = torch.randn(batch.state[FIELD].shape, generator=stream(2))
    for row, length in enumerate(dataset.lengths.tolist()):
        own = eps[row, :length] - eps[row, :length].mean(0)
        velocity = 10 * own - batch.state[FIELD][row, :length]
        assert torch.allclose(found[row], 0.01 * velocity.square().mean(), rtol=1e-4)


def test_plain_and_sampled_targets_average_to_the_exact_one(dataset: ProteinDataset) -> None:
    """E[(target - exact) f(x_t)] = 0 for f = 1 and f = x_t, and exact has the least power."""
    batch = dataset.batch(torch.zeros(3000, dtype=torch.long))
    turned = SO3().sample(3000, generator=stream(3), dtype=torch.float32)
    x_0 = batch.state[FIELD] @ turned.mT
    t = KERNEL.draw_times(3000, generator=stream(4), device=CPU).clamp(min=0.1)
    objective = BackboneObjective(KERNEL, ARMS["plain"])
    x_t, noise = objective.field.kernel.sample(x_0, t, mask=batch.mask, generator=stream(5))
    found = {
        name: objective.diffused(spec)
        .estimator(x_t, x_0, t, noise=noise, mask=batch.mask, generator=stream(6))
        .value
        for name, spec in ARMS.items()
    }
    power = {name: float(value.square().mean()) for name, value in found.items()}
    assert power["exact"] < power["published_true"] < power["plain"]
    for name in ("plain", "published_true"):
        difference = found[name] - found["exact"]
        for weight in (torch.ones_like(x_t), x_t):
            moments = (difference * weight).sum((1, 2))
            assert abs(float(moments.mean() / (moments.std() / 3000**0.5))) < 4


def test_an_estimator_of_another_group_is_refused() -> None:
    with pytest.raises(IncompatibleKernel):
        BackboneObjective(KERNEL, EstimatorSpec("torus"))


def test_yardstick_is_zero_for_the_exact_mean_and_counts_what_is_added(
    dataset: ProteinDataset,
) -> None:
    """A network that knows the answer, then one that is off by a vector fixed in space."""
    batch = dataset.batch(torch.arange(3))
    yardstick = BackboneYardstick(KERNEL, batch, (0.2, 0.7))
    exact = BackboneObjective(KERNEL, ARMS["exact"]).field.estimator

    class Knows(torch.nn.Module):
        def __init__(self, offset: float) -> None:
            super().__init__()
            self.offset = torch.nn.Parameter(torch.tensor([offset, 0.0, 0.0]))

        def forward(self, x_t, t, cond, mask):
            value = exact(x_t[FIELD], batch.state[FIELD], t, mask=mask).value
            return {FIELD: (value + self.offset) * mask[..., None]}

    best = yardstick.measure(Knows(0.0))
    assert best["distance_mean"] < 1e-4
    assert best["equivariance_mean"] < 1e-4
    off = yardstick.measure(Knows(3.0))
    assert off["distance"]["0.2"] == pytest.approx(3.0, rel=1e-2)  # 9 / 3 axes
    turns = [level[3][:, 0, 0] for level in yardstick.levels]
    for time, turn in zip(("0.2", "0.7"), turns, strict=True):
        wanted = (18 - 18 * turn).mean() / 3  # |R^T v - v|^2 = 2 |v|^2 (1 - R_xx)
        assert off["equivariance"][time] == pytest.approx(float(wanted), rel=1e-2)


def test_extra_parts_add_their_loss_and_are_trained(dataset: ProteinDataset) -> None:
    """The distogram loss of the same pass is added; self-conditioning happens in half the steps."""
    model = replace(MODEL, self_condition=True, distogram_bins=8)
    network = build_network(model, generator=stream(0))
    batch = dataset.batch(torch.arange(len(dataset)))
    t = torch.full((len(batch),), 0.4)
    calls = []

    def counted(x_t, t, cond, mask, **more):
        calls.append(("self_condition" in cond, torch.is_grad_enabled()))
        return network(x_t, t, cond, mask, **more)

    plain = BackboneObjective(KERNEL, ARMS["plain"])
    alone = plain(network, batch, t, generator=stream(7))
    both = BackboneObjective(KERNEL, ARMS["plain"], distogram=True)(
        counted, batch, t, generator=stream(7)
    )
    x_t, _ = plain._objective.noise(batch, t, generator=stream(7))
    logits = network(x_t, t, batch.cond, batch.mask, distogram=True)["distogram"]
    extra = distogram_loss(logits, batch.state[FIELD], t, batch.mask)
    assert torch.allclose(both.per_sample, alone.per_sample + extra, rtol=1e-5)
    both.value.backward()
    assert network.distogram_out.weight.grad is not None
    twice = BackboneObjective(KERNEL, ARMS["plain"], self_condition=True)
    kinds = []
    for seed in range(40):
        calls.clear()
        twice(counted, batch, t, generator=stream("coin", seed))
        kinds.append(tuple(calls))
    once, guessed = ((False, True),), ((False, False), (True, True))
    assert set(kinds) == {once, guessed}
    assert 10 < kinds.count(guessed) < 30


def test_self_conditioning_hands_over_the_data_prediction(dataset: ProteinDataset) -> None:
    batch = dataset.batch(torch.arange(2))
    t = torch.tensor([0.3, 0.8])
    seen = []

    def network(x_t, t, cond, mask):
        if "self_condition" in cond:
            seen.append((cond["self_condition"], x_t[FIELD]))
        return {FIELD: 2 * x_t[FIELD]}

    objective = BackboneObjective(KERNEL, ARMS["plain"], self_condition=True)
    for seed in range(12):
        objective(network, batch, t, generator=stream("coin", seed))
    assert seen
    for guess, x_t in seen:
        assert torch.allclose(guess, x_t - expand(t) * 2 * x_t)


def test_training_chains_come_in_random_orientations(tmp_path: Path) -> None:
    for split in ("train", "val"):
        rows = [backbone_to_row(helix(f"{split}{length}", length)) for length in (9, 12, 14, 11)]
        write_shards(rows, tmp_path, schema=backbone_schema(), name=split)
    (tmp_path / "manifest.json").write_text('{"counts": {"train": 4, "val": 4, "test": 0}}')
    task = Backbones(CONFIG, ARMS["plain"], tmp_path)
    assert task.train_sizes().tolist() == [9, 12, 14, 11]
    rows = torch.tensor([2, 0])
    first, again, other = (
        task.train_batch(rows, generator=stream("data", step)) for step in (0, 0, 1)
    )
    assert torch.equal(first.state[FIELD], again.state[FIELD])
    assert not torch.allclose(first.state[FIELD], other.state[FIELD], atol=1.0)
    for batch in (first, other):
        stored = task.training_set.batch(rows).state[FIELD]
        gram = batch.state[FIELD] @ batch.state[FIELD].mT
        assert torch.allclose(gram, stored @ stored.mT, atol=1e-2)
        volume = torch.linalg.det(batch.state[FIELD][:, :3] - batch.state[FIELD][:, 3:4])
        kept = torch.linalg.det(stored[:, :3] - stored[:, 3:4])
        assert torch.allclose(volume, kept, atol=1e-2)  # no mirror image
    figures = task.validate(task.build_denoiser(generator=stream(0, "weights")))
    assert set(figures["distance"]) == {"0.1", "0.6"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BackboneKernelConfig(power=0.0), "power"),
        (lambda: BackboneKernelConfig(margin=0.0), "margin"),
        (lambda: BackboneKernelConfig(prior_scale=-1.0), "scale"),
        (lambda: replace(CONFIG, kernel=BackboneKernelConfig(prior_scale=5.0)), "prior_scale"),
        (
            lambda: replace(
                CONFIG,
                sample=replace(CONFIG.sample, sampler=FlowConfig(steps=2, self_condition=True)),
            ),
            "self_condition",
        ),
        (lambda: replace(CONFIG.sample, lengths=()), "lengths"),
        (lambda: replace(CONFIG.sample, num=0), "num"),
        (lambda: BackboneEvaluateConfig(noise=0.0), "noise"),
    ],
)
def test_bad_settings_are_refused(make, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()
