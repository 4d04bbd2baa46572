"""What the training loop needs of a task."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from orbitdiff.batch import Batch
from orbitdiff.nn.base import Denoiser
from orbitdiff.objective import Loss
from orbitdiff.typing import Tensor

__all__ = ["StreamedSet", "TrainingObjective", "TrainingTask"]


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
