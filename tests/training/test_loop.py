from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import nn

from orbitdiff.batch import Batch
from orbitdiff.errors import BadInput, NonFiniteLoss
from orbitdiff.kernels import GaussianKernel, LinearSigma, Parametrization
from orbitdiff.objective import DiffusedField, Objective
from orbitdiff.orbit.plain import PlainTarget
from orbitdiff.seeding import stream
from orbitdiff.training.checkpoint import load_model
from orbitdiff.training.config import TrainConfig
from orbitdiff.training.history import History
from orbitdiff.training.loop import train
from orbitdiff.training.rows import RowOrder
from orbitdiff.training.step import OptimiserStep
from orbitdiff.training.worker import LocalWorker


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, x_t, t, cond, mask):
        joined = torch.cat([x_t["x"], t[:, None, None]], -1)
        return {"x": self.linear(joined)}


def unit(t):
    return torch.ones_like(t)


@dataclass
class Tiny:
    """A task of ten numbers."""

    poison: bool = False
    stop_at: int | None = None
    seen: int = 0
    objective: Objective = field(init=False)

    def __post_init__(self):
        kernel = GaussianKernel(LinearSigma())
        estimator = PlainTarget(kernel, parametrization=Parametrization.DATA)
        self.objective = Objective({"x": DiffusedField(kernel, estimator, unit)})

    def build_denoiser(self, *, generator):
        network = Line()
        with torch.no_grad():
            for weight in network.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator))
        return network

    def train_sizes(self):
        return torch.ones(10)

    def train_batch(self, rows, *, generator):
        self.seen += 1
        if self.stop_at is not None and self.seen > self.stop_at:
            raise KeyboardInterrupt
        x = rows.float()[:, None, None] / 10
        if self.poison:
            x = torch.where(rows[:, None, None] == 3, torch.nan, x)
        return Batch({"x": x}, torch.ones(len(rows), 1, dtype=torch.bool), {}, rows)

    def validate(self, denoiser):
        return {"distance_mean": float(denoiser.linear.weight.detach().sum())}

    def config(self):
        return {"task": "tiny"}


CONFIG = TrainConfig(
    steps=23, batch_size=4, checkpoint_every=5, validate_every=10, log_every=1, num_workers=1
)


def go(tmp_path, task, name, *, config=CONFIG, start_weights=None):
    history = History(tmp_path / name / "history.jsonl")
    worker = LocalWorker(tmp_path / name)
    result = train(
        task, config, worker, seed=3, history=history, start_weights=start_weights, progress=False
    )
    return result, history.path.read_text()


def without_times(text):
    import json

    records = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in r.items() if k != "step_seconds"} for r in records]


def test_stop_and_resume_give_the_same_bits(tmp_path):
    whole, whole_history = go(tmp_path, Tiny(), "whole")
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, Tiny(stop_at=13), "cut")
    resumed, resumed_history = go(tmp_path, Tiny(), "cut")
    for name, value in whole["weights"].items():
        assert torch.equal(value, resumed["weights"][name]), name
    assert without_times(whole_history) == without_times(resumed_history)


def test_snapshots_hold_the_averaged_weights_of_their_step(tmp_path):
    config = replace(CONFIG, snapshot_every=10)
    worker, history = LocalWorker(tmp_path), History(tmp_path / "history.jsonl")
    snapshots = tmp_path / "snapshots"
    result = train(
        Tiny(), config, worker, seed=3, history=history, snapshots=snapshots, progress=False
    )
    assert sorted(path.name for path in snapshots.iterdir()) == ["0000010", "0000020", "0000023"]
    weights, about = load_model(snapshots / "0000010")
    with worker.restore() as newest:
        last, _ = load_model(newest)
    assert about["step"] == 10
    assert not torch.equal(weights["linear.weight"], result["weights"]["linear.weight"])
    assert torch.equal(last["linear.weight"], result["weights"]["linear.weight"])


def test_training_reduces_the_loss(tmp_path):
    config = replace(CONFIG, steps=100, learning_rate=0.1, warmup=1)
    _, text = go(tmp_path, Tiny(), "run", config=config)
    losses = [r["loss"] for r in without_times(text) if r["kind"] == "train"]
    assert len(losses) == config.steps
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_non_finite_loss_names_samples_and_keeps_the_checkpoint(tmp_path):
    with pytest.raises(NonFiniteLoss, match=r"step \d+: t = \[.*samples = \[3\]"):
        go(tmp_path, Tiny(poison=True), "bad")


class Overflow(Line):
    """The loss is finite, its gradient is not."""

    def forward(self, x_t, t, cond, mask):
        found = super().forward(x_t, t, cond, mask)
        # sqrt has an infinite slope at 0
        return {"x": found["x"] + (0 * found["x"]).abs().sqrt()}


def test_a_gradient_that_is_not_finite_changes_no_weight(tmp_path):
    task = Tiny()
    network = Overflow()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    task.build_denoiser = lambda generator: network
    with pytest.raises(NonFiniteLoss, match=r"gradient is not finite at step 0, the loss is \(\d"):
        go(tmp_path, task, "steep")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_micro_batches_change_no_draw_and_no_step(tmp_path):
    whole, _ = go(tmp_path, Tiny(), "whole")
    parts, _ = go(tmp_path, Tiny(), "parts", config=replace(CONFIG, micro_batches=2))
    for name, value in whole["weights"].items():
        torch.testing.assert_close(parts["weights"][name], value)


def test_a_start_replaces_the_weights_of_the_seed(tmp_path):
    one, _ = go(tmp_path, Tiny(), "one")
    config = replace(CONFIG, learning_rate=1e-30)
    started, _ = go(tmp_path, Tiny(), "two", config=config, start_weights=one["weights"])
    for name, value in one["weights"].items():
        torch.testing.assert_close(started["weights"][name], value)


def test_a_frozen_part_stays_as_it_starts_and_the_rest_learns(tmp_path):
    start, _ = go(tmp_path, Tiny(), "start")
    config = replace(CONFIG, learning_rate=0.1, warmup=1, frozen=("linear.bias",))
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, Tiny(stop_at=13), "cut", config=config, start_weights=start["weights"])
    tuned, _ = go(tmp_path, Tiny(), "cut", config=config, start_weights=start["weights"])
    assert torch.equal(tuned["weights"]["linear.bias"], start["weights"]["linear.bias"])
    assert not torch.equal(tuned["weights"]["linear.weight"], start["weights"]["linear.weight"])


@pytest.mark.parametrize(
    ("frozen", "why"), [("linear", "something to train"), ("lin", r"\['linear'\]\), got 'lin'")]
)
def test_frozen_parts_that_cannot_be_are_refused(tmp_path, frozen, why):
    with pytest.raises(BadInput, match=why):
        go(tmp_path, Tiny(), "bad", config=replace(CONFIG, frozen=(frozen,)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("bucket", -1),
        ("micro_batches", 3),
        ("precision", "half"),
        ("num_workers", 9),
        ("learning_rate", -1.0),
    ],
)
def test_bad_numbers_are_refused(name, value):
    numbers = {"steps": 1, "batch_size": 4, name: value}
    with pytest.raises(BadInput, match=name):
        TrainConfig(**numbers)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_shares_of_missing_workers_are_computed_by_the_others(tmp_path, world_size):
    """The gradient of a step is the same for any number of workers, 4 shares in 1, 2 or 3."""
    config = replace(CONFIG, num_workers=4, min_workers=1, clip_norm=1e9)
    gradients, losses, rows = [], [], []
    for rank in range(world_size):
        task = Tiny()
        network = task.build_denoiser(generator=torch.Generator().manual_seed(0))
        worker = LocalWorker(tmp_path)
        worker.rank, worker.world_size = rank, world_size
        take = OptimiserStep(
            task, config, worker, RowOrder(task.train_sizes(), 3, config.batch_size), network,
            torch.optim.SGD(network.parameters(), lr=0.0), seed=3, start=0,
        )  # fmt: skip
        rows += sorted(take.rows)
        losses.append(take(0)["loss"])
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert sorted(rows) == [0, 1, 2, 3]

    # four workers, each its share of the batch with the noise of its rank
    task, expected, values = Tiny(), [], []
    for share in range(4):
        network = task.build_denoiser(generator=torch.Generator().manual_seed(0))
        order = RowOrder(task.train_sizes(), 3, config.batch_size)
        own = next(order.of_worker(rank=share, world_size=4, start=0))
        batch = task.train_batch(own, generator=torch.Generator())
        noise = stream(3, "noise", 0, share)
        t = task.objective.draw_times(len(batch), generator=noise, device=torch.device("cpu"))
        loss = task.objective(network, batch, t, generator=noise).value
        loss.backward()
        values.append(float(loss.detach()))
        expected.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert not torch.allclose(expected[0], expected[1])
    torch.testing.assert_close(torch.stack(gradients).mean(0), torch.stack(expected).mean(0))
    assert sum(losses) / world_size == pytest.approx(sum(values) / 4)


def test_a_run_is_that_of_its_shares_only_where_workers_may_be_missing(tmp_path):
    """Shares have noise of their own: fewer of them are another run; a fixed number has none."""
    four, _ = go(tmp_path, Tiny(), "four", config=replace(CONFIG, num_workers=4, min_workers=1))
    two, _ = go(tmp_path, Tiny(), "two", config=replace(CONFIG, num_workers=2, min_workers=1))
    one, _ = go(tmp_path, Tiny(), "one", config=replace(CONFIG, num_workers=4))
    alone, _ = go(tmp_path, Tiny(), "alone", config=CONFIG)
    weight = "linear.weight"
    assert not torch.equal(four["weights"][weight], two["weights"][weight])
    # without min_workers a process takes the batch as a whole
    assert torch.equal(one["weights"][weight], alone["weights"][weight])


@pytest.mark.parametrize("number", [-1, 5])
def test_min_workers_outside_the_workers_is_refused(number):
    with pytest.raises(BadInput, match=r"train.min_workers must be 0 to num_workers \(4\)"):
        replace(CONFIG, num_workers=4, min_workers=number)
