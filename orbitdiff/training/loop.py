"""The training loop: plain torch, the same function alone, under Ray Train and inside a sweep."""

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from orbitdiff.batch import Batch
from orbitdiff.errors import BadInput, NonFiniteLoss
from orbitdiff.nn.base import Denoiser
from orbitdiff.objective import Loss
from orbitdiff.seeding import stream
from orbitdiff.training import checkpoint as store
from orbitdiff.training.ema import moving_average
from orbitdiff.training.frozen import freeze
from orbitdiff.training.history import History
from orbitdiff.training.memory import memory_named
from orbitdiff.training.micro_batches import MicroBatches
from orbitdiff.training.rows import RowOrder
from orbitdiff.training.worker import Worker
from orbitdiff.typing import Tensor

__all__ = ["StreamedSet", "TrainConfig", "TrainingObjective", "TrainingTask", "train"]


@dataclass(frozen=True)
class TrainConfig:
    """Numbers of a training run.

    Parameters
    ----------
    steps, batch_size : int
        Optimiser steps, and samples per step over all workers.
    learning_rate : float
        Peak of Adam's rate; cosine decay to `final_fraction` of it after `warmup` steps.
    clip_norm : float
        Largest gradient norm.
    ema_decay : float
        Decay of the averaged weights, warmed up as min(decay, (1+n)/(10+n)).
    checkpoint_every, validate_every, log_every : int
        Intervals in steps.
    snapshot_every : int
        Steps between the averaged weights that are kept for curves over training, 0 for none.
    micro_batches : int
        Parts in which each worker's share of a batch goes through the network: the same draws and
        gradient for less memory, since only one part's activations are kept; forward passes are
        computed twice. 1 takes all at once.
    bucket : int
        Batches of samples of like size are cut from this many batches at a time, so that little
        is padding; 0 takes samples as the shuffle gives them.
    window : int
        Files of the training set that are in memory at a time, streamed in a shuffled order and
        shuffled within; 0 keeps the whole set there.
    num_workers : int
        Training processes.
    precision : str
        float32, or bfloat16 for autocast on a GPU.
    compile : bool
        torch.compile the network.
    frozen : tuple of str
        Parts of the network that stay as they start, by their names in it.
    """

    __pydantic_config__ = {"extra": "forbid"}

    steps: int
    batch_size: int
    learning_rate: float = 1e-3
    warmup: int = 100
    final_fraction: float = 0.02
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    checkpoint_every: int = 500
    validate_every: int = 500
    log_every: int = 50
    snapshot_every: int = 0
    micro_batches: int = 1
    bucket: int = 0
    window: int = 0
    num_workers: int = 2
    precision: str = "float32"
    compile: bool = False
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every", "validate_every", "log_every"):
            if getattr(self, name) < 1:
                raise BadInput(f"train.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("snapshot_every", "bucket", "window"):
            if getattr(self, name) < 0:
                raise BadInput(f"train.{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise BadInput(f"train.{name} must be positive, got {getattr(self, name)}")
        if self.precision not in ("float32", "bfloat16"):
            raise BadInput(f"train.precision is float32 or bfloat16, got {self.precision!r}")
        if not 1 <= self.num_workers <= self.batch_size:
            raise BadInput(
                f"train.num_workers must be 1 to batch_size ({self.batch_size}), "
                f"got {self.num_workers}"
            )
        most = self.batch_size // self.num_workers
        if not 1 <= self.micro_batches <= most:
            raise BadInput(
                f"train.micro_batches must be 1 to {most}, the samples of a worker, "
                f"got {self.micro_batches}"
            )


@runtime_checkable
class TrainingObjective(Protocol):
    """The loss of a batch at given times; `orbitdiff.objective.Objective` is one."""

    def draw_times(self, num: int, *, generator: torch.Generator, device: torch.device) -> Tensor:
        """Draw the times of a batch, (num,)."""
        ...

    def __call__(
        self, denoiser: Denoiser, batch: Batch, t: Tensor, *, generator: torch.Generator
    ) -> Loss:
        """Noise the batch and compare the network with the target."""
        ...


@runtime_checkable
class TrainingTask(Protocol):
    """What the loop needs of a task."""

    objective: TrainingObjective

    def build_denoiser(self, *, generator: torch.Generator) -> nn.Module:
        """Return the network at its start; the same weights for the same generator state."""
        ...

    def train_sizes(self) -> Tensor:
        """Return the number of points of each training sample, (M,)."""
        ...

    def train_batch(self, rows: Tensor, *, generator: torch.Generator) -> Batch:
        """Return the batch of these training rows; what it draws comes from the generator."""
        ...

    def validate(self, denoiser: nn.Module) -> Mapping[str, Any]:
        """Return validation figures of a network, JSON types."""
        ...

    def config(self) -> Mapping[str, Any]:
        """Return what is needed to build the task again, JSON types."""
        ...


@runtime_checkable
class StreamedSet(Protocol):
    """A training set of which a window is in memory; `StreamedSplit` is one."""

    shards: Tensor

    def open(
        self,
        windows: Iterator[list[int]],
        read: Callable[[Iterable[Path]], Iterator[Any]],
    ) -> None:
        """Take rows from now on from shards that come in this order."""
        ...


def learning_rate(config: TrainConfig, step: int) -> float:
    """Rate at a step: linear warm-up, then cosine decay."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    low = config.final_fraction
    return config.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress)))


def optimiser_step(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    loss: Loss,
    batch: Batch,
    t: Tensor,
    *,
    step: int,
    clip_norm: float,
) -> float:
    """Backward and update; a loss or gradient that is not finite raises with step, t and ids."""
    if not bool(torch.isfinite(loss.value)):
        bad = ~torch.isfinite(loss.per_sample)
        raise NonFiniteLoss(
            f"loss is not finite at step {step}: t = {t[bad].tolist()}, "
            f"samples = {batch.ids[bad].tolist()}; the last good checkpoint is kept. "
            "Lower train.learning_rate or look at these samples"
        )
    optimiser.zero_grad(set_to_none=True)
    loss.value.backward()
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), clip_norm))
    if not math.isfinite(norm):
        raise NonFiniteLoss(
            f"gradient is not finite at step {step}, the loss is "
            f"({float(loss.value.detach()):.4g}): t = {t.tolist()}, "
            f"samples = {batch.ids.tolist()}; the last good checkpoint is kept. "
            "Lower train.learning_rate or look at these samples"
        )
    optimiser.step()
    return norm


def train(
    task: TrainingTask,
    config: TrainConfig,
    worker: Worker,
    *,
    seed: int,
    history: History,
    start_weights: Mapping[str, Tensor] | None = None,
    snapshots: Path | None = None,
    streamed: StreamedSet | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Train a task's denoiser; resume from the worker's newest whole checkpoint.

    The noise of step s on worker r comes from the stream (seed, "noise", s, r) and the order
    of the data from (seed, "order", epoch), so a resumed run draws what it would have drawn.

    Parameters
    ----------
    task : TrainingTask
    config : TrainConfig
    worker : Worker
    seed : int
        Start weights, order and noise; equal for every estimator of a comparison.
    history : History
        Rank 0 writes losses and validation figures.
    start_weights : mapping of name to tensor, optional
        Weights to start from (a fine-tune); default those of the seed.
    snapshots : Path, optional
        Rank 0 writes the averaged weights of every `snapshot_every`-th step to `STEP/` in it.
    streamed : StreamedSet, optional
        The task's training set where `config.window` of its shards are in memory at a time.
    progress : bool
        Print a progress line at each log interval.

    Returns
    -------
    dict
        Last metrics and `weights`, the EMA weights.

    Raises
    ------
    NonFiniteLoss
    OutOfMemory
    """
    device = worker.device
    network = task.build_denoiser(generator=stream(seed, "weights")).to(device)
    if start_weights is not None:
        network.load_state_dict({name: value.float() for name, value in start_weights.items()})
    ema = moving_average(network, config.ema_decay)
    optimiser = torch.optim.Adam(freeze(network, config.frozen), lr=config.learning_rate)
    start = 0
    with worker.restore() as folder:
        if folder is not None:
            state = store.load_trainer(folder)
            network.load_state_dict(state["network"])
            ema.load_state_dict(state["ema"])
            optimiser.load_state_dict(state["optimiser"])
            start = state["step"]
    if worker.rank == 0:
        history.rewind(start)
    micro = config.micro_batches
    model = worker.wrap(network if micro == 1 else MicroBatches(network, micro))
    if config.compile:
        model = torch.compile(model)  # type: ignore[assignment]
    order = RowOrder(task.train_sizes(), seed, config.batch_size, config.bucket)
    if streamed is not None:
        order = dataclasses.replace(order, shards=streamed.shards, window=config.window)
        streamed.open(order.windows(start=start), worker.shards)
    rows = order.of_worker(rank=worker.rank, world_size=worker.world_size, start=start)

    def about(step: int) -> dict[str, Any]:
        return {**task.config(), "step": step, "seed": seed}

    half = config.precision == "bfloat16"
    clock, seen = time.perf_counter(), 0
    metrics: dict[str, float] = {"step": start}
    sums: dict[str, float] = {}
    for step in range(start, config.steps):
        choices = stream(seed, "data", step, worker.rank)
        batch = task.train_batch(next(rows), generator=choices).to(device)
        generator = stream(seed, "noise", step, worker.rank, device=device)
        t = task.objective.draw_times(len(batch), generator=generator, device=device)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(config, step)
        with memory_named(batch, step=step, num_workers=worker.world_size, micro_batches=micro):
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                loss = task.objective(model, batch, t, generator=generator)
            norm = optimiser_step(
                model, optimiser, loss, batch, t, step=step, clip_norm=config.clip_norm
            )
        ema.update_parameters(network)
        seen += 1
        figures = {"loss": float(loss.value.detach()), "gradient_norm": norm}
        for name, value in loss.per_field.items():
            figures[f"loss_{name}"] = float(value.detach().mean())
        for name, info in loss.info.items():
            if info.ess is not None:
                figures[f"ess_{name}"] = float(info.ess.mean())
        for name, figure in figures.items():
            sums[name] = sums.get(name, 0.0) + figure
        done = step + 1
        last = done == config.steps
        if done % config.log_every == 0 or last:
            seconds = (time.perf_counter() - clock) / seen
            metrics = {"step": done, **{name: total / seen for name, total in sums.items()}}
            metrics["step_seconds"] = seconds
            if worker.rank == 0:
                history.write({"kind": "train", **metrics})
                if progress:
                    left = (config.steps - done) * seconds
                    worker.say(
                        f"step {done}/{config.steps}  loss {metrics['loss']:.4f}  "
                        f"{seconds * 1e3:.1f} ms/step  {left / 60:.1f} min left"
                    )
            sums, seen, clock = {}, 0, time.perf_counter()
        if done % config.validate_every == 0 or last:
            if worker.rank == 0:
                validation = task.validate(ema.module)
                history.write({"kind": "validation", "step": done, **validation})
            clock, seen, sums = time.perf_counter(), 0, {}
        keep = config.snapshot_every and (done % config.snapshot_every == 0 or last)
        if snapshots is not None and keep and worker.rank == 0:
            store.save(snapshots / f"{done:07d}", ema.module.state_dict(), about(done))
        if done % config.checkpoint_every == 0 or last:
            with tempfile.TemporaryDirectory() as name:
                folder = None
                if worker.rank == 0:
                    folder = Path(name)
                    trainer = {
                        "step": done,
                        "network": network.state_dict(),
                        "ema": ema.state_dict(),
                        "optimiser": optimiser.state_dict(),
                    }
                    store.save(folder, ema.module.state_dict(), about(done), trainer=trainer)
                worker.report({**metrics, "step": done}, folder)
            clock, seen, sums = time.perf_counter(), 0, {}
    return {**metrics, "weights": {k: v.cpu() for k, v in ema.module.state_dict().items()}}
