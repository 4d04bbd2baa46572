"""What a stage needs of the outside: an executor and a tracker, with in-process defaults."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, final, runtime_checkable

from orbitdiff.training.worker import LocalWorker, Worker

__all__ = [
    "PARENT_RECORD",
    "Executor",
    "LocalExecutor",
    "Loop",
    "NullTracker",
    "TrackedRun",
    "Tracker",
]

PARENT_RECORD = "ORBITDIFF_PARENT_RECORD"
"""Environment variable: record of the flow that the stages of this process belong to."""

Item = TypeVar("Item")
Result = TypeVar("Result")
Loop = Callable[[Worker, dict[str, Any]], dict[str, Any]]
"""A training function: (worker, config) -> last metrics."""


@runtime_checkable
class Executor(Protocol):
    """Where work runs: this process, or Ray."""

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, description: str
    ) -> list[Result]:
        """Apply a function to every item, in order, with a progress bar."""
        ...

    def fit(
        self,
        loop: Loop,
        config: dict[str, Any],
        *,
        name: str,
        storage: Path,
        num_workers: int,
        min_workers: int = 0,
    ) -> dict[str, Any]:
        """Run a training loop; the same name and storage resume.

        It has `num_workers` workers, or where `min_workers` is set as many between the two as
        there is room for.
        """
        ...


@runtime_checkable
class TrackedRun(Protocol):
    """An open record of one run.

    Parameters
    ----------
    id : str
        Name of the run where it is kept, empty while it is not there.
    record : str
        Name of the record, the same when the run starts again after it broke off.
    """

    id: str
    record: str

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        """Record numbers."""
        ...

    def artifact(self, path: Path) -> None:
        """Record a file or folder."""
        ...

    def model(self, folder: Path, *, name: str) -> None:
        """Register a model folder as the newest version of a name."""
        ...


@runtime_checkable
class Tracker(Protocol):
    """Who keeps the record: nobody, or MLflow."""

    def run(
        self, name: str, *, experiment: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> AbstractContextManager[TrackedRun]:
        """Open a run; the same name in an experiment continues its record."""
        ...


@final
class LocalExecutor:
    """Everything in this process; the progress of `map` is printed."""

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, description: str
    ) -> list[Result]:
        """Apply a function to every item, in order."""
        from tqdm import tqdm

        return [function(item) for item in tqdm(items, desc=description, leave=False)]

    def fit(
        self,
        loop: Loop,
        config: dict[str, Any],
        *,
        name: str,
        storage: Path,
        num_workers: int,
        min_workers: int = 0,
    ) -> dict[str, Any]:
        """Run a training loop in this process, as the only worker."""
        return loop(LocalWorker(storage / name), config)


@final
class _Nothing:
    id = ""
    record = ""

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        """Keep nothing."""

    def artifact(self, path: Path) -> None:
        """Keep nothing."""

    def model(self, folder: Path, *, name: str) -> None:
        """Keep nothing."""


@final
class NullTracker:
    """Keeps no record."""

    @contextmanager
    def run(
        self, name: str, *, experiment: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> Iterator[TrackedRun]:
        """Open a run that records nothing."""
        yield _Nothing()
