"""Which training rows each step takes: one shuffled stream of epochs, the same for any workers.

Where only a window of the training set is in memory, an epoch shuffles the shards, takes them
window by window, and shuffles the rows of a window.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch

from orbitdiff.seeding import epoch_order, stream
from orbitdiff.typing import Int, Tensor

__all__ = ["RowOrder"]


@final
@dataclass(frozen=True)
class RowOrder:
    """Rows of each step.

    Parameters
    ----------
    sizes : (M,)
        Points of each training sample.
    seed, batch_size : int
    bucket : int
        Batches of samples of like size are cut from this many batches at a time; 0 for none.
    shards : (S,) int64, optional
        Rows of each shard, in the order of the rows.
    window : int
        Shards that are in memory at a time; 0 where all are.
    """

    sizes: Tensor
    seed: int
    batch_size: int
    bucket: int = 0
    shards: Int[Tensor, " S"] | None = None
    window: int = 0

    def of_worker(self, *, rank: int, world_size: int, start: int) -> Iterator[Tensor]:
        """Yield the rows of each step from `start`.

        The global batch of a step is the same for any number of workers; worker r takes every
        world_size-th row of it.
        """
        epoch_of, order, size = -1, torch.empty(0, dtype=torch.int64), len(self.sizes)
        for step in itertools.count(start):
            positions = torch.arange(step * self.batch_size, (step + 1) * self.batch_size)
            rows = []
            for epoch in sorted(set((positions // size).tolist())):
                if epoch != epoch_of:
                    epoch_of, order = epoch, self.of_epoch(epoch)
                rows.append(order[positions[positions // size == epoch] % size])
            yield torch.cat(rows)[rank::world_size]

    def of_epoch(self, epoch: int) -> Tensor:
        """Return every row once, (M,)."""
        if self.shards is None:
            parts = [epoch_order(len(self.sizes), seed=self.seed, epoch=epoch)]
        else:
            ends, counts = self.shards.cumsum(0).tolist(), self.shards.tolist()
            generator = stream(self.seed, "order", epoch)
            parts = []
            for window in self.windows_of_epoch(epoch):
                kept = [torch.arange(ends[i] - counts[i], ends[i]) for i in window]
                rows = torch.cat(kept)
                parts.append(rows[torch.randperm(len(rows), generator=generator)])
        if self.bucket:
            generator = stream(self.seed, "bucket", epoch)
            parts = [self.bucketed(part, generator=generator) for part in parts]
        return torch.cat(parts)

    def bucketed(self, order: Tensor, *, generator: torch.Generator) -> Tensor:
        """Sort an order by size within pools of batches, and shuffle the batches of a pool."""
        parts: list[Tensor] = []
        for pool in order.split(self.bucket * self.batch_size):
            batches = pool[self.sizes[pool].argsort(stable=True)].split(self.batch_size)
            drawn = torch.randperm(len(batches), generator=generator).tolist()
            parts += [batches[i] for i in drawn]
        return torch.cat(parts)

    def windows_of_epoch(self, epoch: int) -> list[list[int]]:
        """Shards of an epoch in groups that are in memory at the same time."""
        assert self.shards is not None  # there are windows of shards alone
        drawn = torch.randperm(len(self.shards), generator=stream(self.seed, "shards", epoch))
        return [part.tolist() for part in drawn.split(self.window)]

    def windows(self, *, start: int) -> Iterator[list[int]]:
        """Yield windows as the rows from step `start` on need them, without end."""
        assert self.shards is not None  # there are windows of shards alone
        first, skipped = divmod(start * self.batch_size, len(self.sizes))
        for epoch in itertools.count(first):
            end = 0
            for window in self.windows_of_epoch(epoch):
                end += int(self.shards[window].sum())
                if epoch > first or end > skipped:
                    yield window
