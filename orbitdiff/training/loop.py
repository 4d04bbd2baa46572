"""The training loop: plain torch, the same function alone, under Ray Train and inside a sweep."""

import dataclasses
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from orbitdiff.seeding import stream
from orbitdiff.training import checkpoint as store
from orbitdiff.training.config import TrainConfig
from orbitdiff.training.ema import moving_average
from orbitdiff.training.frozen import freeze
from orbitdiff.training.history import History
from orbitdiff.training.micro_batches import MicroBatches
from orbitdiff.training.rows import RowOrder
from orbitdiff.training.step import OptimiserStep
from orbitdiff.training.task import StreamedSet, TrainingTask
from orbitdiff.training.worker import Worker
from orbitdiff.typing import Tensor

__all__ = ["train"]


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

    Noise is drawn by step and share of the batch, and the order of the data by epoch, so a
    resumed run draws what it would have drawn.

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
    take = OptimiserStep(task, config, worker, order, model, optimiser, seed=seed, start=start)

    if worker.rank == 0 and config.min_workers:
        of = f"{worker.world_size} of {config.num_workers} workers"
        worker.say(f"training on {of} from step {start}")

    def about(step: int) -> dict[str, Any]:
        return {**task.config(), "step": step, "seed": seed}

    clock, seen = time.perf_counter(), 0
    metrics: dict[str, float] = {"step": start}
    sums: dict[str, float] = {}
    for step in range(start, config.steps):
        figures = take(step)
        ema.update_parameters(network)
        seen += 1
        for name, figure in figures.items():
            sums[name] = sums.get(name, 0.0) + figure
        done = step + 1
        last = done == config.steps
        if done % config.log_every == 0 or last:
            seconds = (time.perf_counter() - clock) / seen
            means = worker.mean({name: total / seen for name, total in sums.items()})
            metrics = {"step": done, **means}
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
