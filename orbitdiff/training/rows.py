"""Which rows of the training set each step sees."""

import itertools
from collections.abc import Iterator

import torch

from orbitdiff.seeding import epoch_order, stream
from orbitdiff.typing import Tensor

__all__ = ["rows_of_worker"]


def rows_of_worker(
    sizes: Tensor,
    *,
    batch_size: int,
    bucket: int,
    seed: int,
    rank: int,
    world_size: int,
    start: int,
) -> Iterator[Tensor]:
    """Rows of each step from `start`: one shuffled stream of epochs, cut into batches.

    The global batch of a step is the same for any number of workers; worker r takes every
    world_size-th row of it.

    Parameters
    ----------
    sizes : (M,)
        Number of points of each training sample.
    batch_size : int
        Samples of a step over all workers.
    bucket : int
        Batches of like size are cut from this many at a time, 0 for none.
    seed, rank, world_size, start : int
    """
    epoch_of, order, size = -1, torch.empty(0, dtype=torch.int64), len(sizes)
    for step in itertools.count(start):
        positions = torch.arange(step * batch_size, (step + 1) * batch_size)
        rows = []
        for epoch in sorted(set((positions // size).tolist())):
            if epoch != epoch_of:
                epoch_of, order = epoch, epoch_order(size, seed=seed, epoch=epoch)
                if bucket:
                    generator = stream(seed, "bucket", epoch)
                    order = bucketed(
                        order, sizes, batch_size=batch_size, bucket=bucket, generator=generator
                    )
            rows.append(order[positions[positions // size == epoch] % size])
        yield torch.cat(rows)[rank::world_size]


def bucketed(
    order: Tensor, sizes: Tensor, *, batch_size: int, bucket: int, generator: torch.Generator
) -> Tensor:
    """Sort a shuffled order by size within pools of batches, and shuffle the batches of a pool."""
    parts: list[Tensor] = []
    for pool in order.split(bucket * batch_size):
        batches = pool[sizes[pool].argsort(stable=True)].split(batch_size)
        parts += [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
    return torch.cat(parts)
