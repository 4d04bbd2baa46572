"""One optimiser step of a worker: its shares of the batch, their gradient, the update."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import final

import torch
from torch import nn

from orbitdiff.batch import Batch
from orbitdiff.errors import NonFiniteLoss
from orbitdiff.objective import Loss
from orbitdiff.seeding import stream
from orbitdiff.training.config import TrainConfig, learning_rate
from orbitdiff.training.memory import memory_named
from orbitdiff.training.rows import RowOrder
from orbitdiff.training.task import TrainingTask
from orbitdiff.training.worker import Worker
from orbitdiff.typing import Tensor

__all__ = ["OptimiserStep"]


@final
class OptimiserStep:
    """Computes a worker's part of the gradient of a step, and updates.

    A batch is a number of shares, each with rows and noise of its own:
    gradient = 1/S sum_s gradient of share s. There is one for each worker, or `num_workers` of
    them however many workers there are where `config.min_workers` is set; worker r of w computes
    the shares r, r + w, ...

    Parameters
    ----------
    task : TrainingTask
    config : TrainConfig
    worker : Worker
    order : RowOrder
    model : Module
        The network as `worker.wrap` returned it.
    optimiser : Optimizer
    seed : int
        The noise of step s and share r comes from the stream (seed, "noise", s, r).
    start : int
        First step.
    """

    def __init__(
        self,
        task: TrainingTask,
        config: TrainConfig,
        worker: Worker,
        order: RowOrder,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        *,
        seed: int,
        start: int,
    ) -> None:
        self.task, self.config, self.worker = task, config, worker
        self.model, self.optimiser, self.seed = model, optimiser, seed
        self.shares = config.num_workers if config.min_workers else worker.world_size
        # DistributedDataParallel takes the mean over workers, whatever shares each of them has
        self.weight = worker.world_size / self.shares
        self.rows: dict[int, Iterator[Tensor]] = {
            share: order.of_worker(rank=share, world_size=self.shares, start=start)
            for share in range(worker.rank, self.shares, worker.world_size)
        }

    def __call__(self, step: int) -> dict[str, float]:
        """Take the step; returns what is recorded, whose mean over workers is that over shares.

        Raises
        ------
        NonFiniteLoss
            A loss or the gradient is not finite; no weight was changed.
        OutOfMemory
        """
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.config, step)
        self.optimiser.zero_grad(set_to_none=True)
        figures: dict[str, list[float]] = {}
        taken: list[tuple[Tensor, Tensor]] = []
        last = max(self.rows)
        for share, rows in self.rows.items():
            with nullcontext() if share == last else self.without_exchange():
                loss, times, batch = self.backward(step, share, next(rows))
            taken.append((times, batch.ids))
            for name, value in recorded(loss).items():
                figures.setdefault(name, []).append(value)
        means = {name: self.weight * sum(values) for name, values in figures.items()}
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm))
        if not math.isfinite(norm):
            own = sum(figures["loss"]) / len(self.rows)

            def listed(which: int) -> list[float]:
                return torch.cat([share[which] for share in taken]).tolist()

            raise NonFiniteLoss(
                f"gradient is not finite at step {step}, the loss is ({own:.4g}): "
                f"t = {listed(0)}, samples = {listed(1)}; the last good checkpoint is kept. "
                "Lower train.learning_rate or look at these samples"
            )
        self.optimiser.step()
        return {**means, "gradient_norm": norm}

    def backward(self, step: int, share: int, rows: Tensor) -> tuple[Loss, Tensor, Batch]:
        """Add the gradient of one share."""
        device = self.worker.device
        choices = stream(self.seed, "data", step, share)
        batch = self.task.train_batch(rows, generator=choices).to(device)
        generator = stream(self.seed, "noise", step, share, device=device)
        objective = self.task.objective
        t = objective.draw_times(len(batch), generator=generator, device=device)
        half = self.config.precision == "bfloat16"
        with memory_named(
            batch,
            step=step,
            num_workers=self.shares,
            micro_batches=self.config.micro_batches,
        ):
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                loss = objective(self.model, batch, t, generator=generator)
            if not bool(torch.isfinite(loss.value)):
                bad = ~torch.isfinite(loss.per_sample)
                raise NonFiniteLoss(
                    f"loss is not finite at step {step}: t = {t[bad].tolist()}, "
                    f"samples = {batch.ids[bad].tolist()}; the last good checkpoint is kept. "
                    "Lower train.learning_rate or look at these samples"
                )
            (self.weight * loss.value).backward()
        return loss, t, batch

    def without_exchange(self) -> AbstractContextManager[None]:
        """Keep gradients to this worker, for all shares but its last."""
        no_sync = getattr(self.model, "no_sync", nullcontext)
        context: AbstractContextManager[None] = no_sync()
        return context


def recorded(loss: Loss) -> dict[str, float]:
    """Figures of a loss that the history keeps."""
    figures = {"loss": float(loss.value.detach())}
    for name, value in loss.per_field.items():
        figures[f"loss_{name}"] = float(value.detach().mean())
    for name, info in loss.info.items():
        if info.ess is not None:
            figures[f"ess_{name}"] = float(info.ess.mean())
    return figures
