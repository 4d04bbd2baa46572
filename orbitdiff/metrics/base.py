"""Metrics in two steps: values per sample first, figures over the set second."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

__all__ = ["Map", "MetricResult", "TimeLimit", "time_limit"]

Row = TypeVar("Row")
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class MetricResult(Generic[Row]):
    """What a metric returns.

    Attributes
    ----------
    per_sample : frozen dataclasses, one per sample, in the order of the samples
    summary : figures over the set, JSON types without NaN
    """

    per_sample: Sequence[Row]
    summary: dict[str, Any]

    def rows(self) -> list[dict[str, Any]]:
        """Return the per-sample values as dictionaries, for a table."""
        return [asdict(row) for row in self.per_sample]  # type: ignore[call-overload]


@runtime_checkable
class Map(Protocol):
    """How a metric spreads its work: an ordered parallel map with a progress bar."""

    def __call__(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, description: str
    ) -> list[Result]:
        """Apply a function to every item, in order."""
        ...


class TimeLimit(Exception):
    """A comparison took longer than it may."""


AGAIN = 0.05
"""Seconds after which a limit strikes again."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimit where the block takes longer; no limit outside a process's main thread.

    Parameters
    ----------
    seconds : float
    """
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread() or not hasattr(
        signal, "setitimer"
    ):
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise TimeLimit(f"took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    # again and again: an error raised where a library swallows errors would end the limit
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
