"""What a training loop needs from the process it runs in, with the in-process default."""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

import torch
from torch import nn

from orbitdiff.training.checkpoint import checkpoints, is_complete, promote

__all__ = ["LocalWorker", "Worker"]


@runtime_checkable
class Worker(Protocol):
    """One of `world_size` processes that train together."""

    rank: int
    world_size: int
    device: torch.device

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model with its gradients averaged over workers."""
        ...

    def restore(self) -> AbstractContextManager[Path | None]:
        """Give the folder of the newest whole checkpoint, or None."""
        ...

    def report(self, metrics: Mapping[str, float], checkpoint: Path | None) -> None:
        """Record metrics and keep the checkpoint folder; every rank calls it equally often."""
        ...

    def shards(self, files: Iterable[Path]) -> Iterator[Any]:
        """Give the table of each parquet file, in order; the next ones may be read ahead."""
        ...

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the mean of each number over the workers; every rank calls it equally often."""
        ...

    def say(self, line: str) -> None:
        """Show a line in the terminal of whoever started the training."""
        ...


@final
class LocalWorker:
    """The only worker of a run in this process.

    Parameters
    ----------
    storage : Path
        Folder that keeps the newest checkpoints as `step-*` folders.
    keep : int
        Number of checkpoints kept.
    """

    rank = 0
    world_size = 1

    def __init__(self, storage: Path, *, keep: int = 2) -> None:
        self.storage = storage
        self.keep = keep
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model unchanged."""
        return model

    @contextmanager
    def restore(self) -> Iterator[Path | None]:
        """Give the newest whole checkpoint; broken ones are passed over."""
        whole = [path for path in checkpoints(self.storage) if is_complete(path)]
        yield whole[-1] if whole else None

    def shards(self, files: Iterable[Path]) -> Iterator[Any]:
        """Read one file after another."""
        from orbitdiff.data.store import read_shard

        return (read_shard(path, None) for path in files)

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the numbers unchanged."""
        return dict(values)

    def say(self, line: str) -> None:
        """Print the line."""
        print(line, flush=True)

    def report(self, metrics: Mapping[str, float], checkpoint: Path | None) -> None:
        """Move the checkpoint folder into the storage and drop the oldest ones."""
        if checkpoint is None:
            return
        promote(checkpoint, self.storage / f"step-{int(metrics['step']):09d}")
        for old in checkpoints(self.storage)[: -self.keep]:
            shutil.rmtree(old)
