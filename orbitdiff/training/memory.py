"""A step that does not fit into memory stops the run, with what was in it and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from orbitdiff.batch import Batch
from orbitdiff.errors import OutOfMemory

__all__ = ["memory_named"]

SAID = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")


@contextmanager
def memory_named(
    batch: Batch, *, step: int, num_workers: int, micro_batches: int = 1
) -> Iterator[None]:
    """Turn the allocator's error into one that names the step, its samples and a cure.

    Parameters
    ----------
    batch : Batch
        What this worker computes with.
    step : int
    num_workers : int
        Processes that share a step.
    micro_batches : int
        Parts in which the batch goes through the network.

    Raises
    ------
    OutOfMemory
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        sizes = batch.mask.sum(1)
        largest = sizes.argsort(descending=True)[:5]
        size = len(batch) * num_workers
        parts = min(2 * micro_batches, len(batch))
        more = (
            f"the same batch in more parts, --set train.micro_batches={parts}, "
            if parts > micro_batches
            else ""
        )
        raise OutOfMemory(
            f"out of memory at step {step} with {len(batch)} samples of up to "
            f"{int(sizes.max())} points on this worker (largest: samples = "
            f"{batch.ids[largest].tolist()}); the last checkpoint is kept. Take {more}"
            f"smaller batches, --set train.batch_size={max(1, size // 2)}, or the same batch on "
            f"more devices, --set train.num_workers={2 * num_workers}"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Tell the allocators' errors from others: torch raises RuntimeError on a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error).lower() for words in SAID)
