"""The numbers of a training run."""

import math
from dataclasses import dataclass

from orbitdiff.errors import BadInput

__all__ = ["TrainConfig", "learning_rate"]


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
    min_workers : int
        Least training processes of a run that goes on where workers are lost and takes in those
        that come: the shares of missing workers are computed by the others, so that their number
        changes neither draws nor gradient. 0 asks for exactly `num_workers`.
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
    min_workers: int = 0
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
        if not 0 <= self.min_workers <= self.num_workers:
            raise BadInput(
                f"train.min_workers must be 0 to num_workers ({self.num_workers}), "
                f"got {self.min_workers}"
            )
        most = self.batch_size // self.num_workers
        if not 1 <= self.micro_batches <= most:
            raise BadInput(
                f"train.micro_batches must be 1 to {most}, the samples of a worker, "
                f"got {self.micro_batches}"
            )


def learning_rate(config: TrainConfig, step: int) -> float:
    """Rate at a step: linear warm-up, then cosine decay."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    low = config.final_fraction
    return config.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress)))
