"""A function in a process of its own: what hangs or crashes there costs one item, not the run."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar, final

from orbitdiff.errors import OrbitDiffError

__all__ = ["Ended", "Isolated"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Ended(NamedTuple):
    """Why there is no result: `time limit`, `crashed` or `error`, and what is known of it."""

    reason: str
    detail: str


@final
class Isolated(Generic[Item, Result]):
    """Applies a function to items, one after the other, in a child process.

    The child ends itself by a signal when an item takes too long, also inside compiled code and
    also if this process is gone by then; the next item gets a new child.

    Parameters
    ----------
    function : callable
        Found by the child under its module and name.
    max_seconds : int
        For one item.
    preload : sequence of str
        Modules that the children share, so that each starts in a few milliseconds.
    """

    def __init__(
        self, function: Callable[[Item], Result], *, max_seconds: int, preload: Sequence[str]
    ) -> None:
        kinds = multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context(
            "forkserver" if "forkserver" in kinds else "spawn"
        )
        if "forkserver" in kinds:
            self._context.set_forkserver_preload(list(preload))
        self._function, self._max_seconds = function, max_seconds
        self._process: Any = None
        self._connection: Connection | None = None

    def __call__(self, item: Item) -> Result | Ended:
        """Return the function's value, or why there is none.

        Raises
        ------
        OrbitDiffError
            What the function raised; or the child could not start.
        """
        if self._process is None:
            self._start()
        assert self._connection is not None
        try:
            self._connection.send(item)
            kind, answer = self._connection.recv()
        except (EOFError, ConnectionError):
            return self._autopsy()
        if kind == "refused":
            raise answer
        return Ended("error", answer) if kind == "error" else answer

    def __enter__(self) -> "Isolated[Item, Result]":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            assert self._connection is not None
            self._connection.close()
            if error is not None:
                self._process.kill()
            self._process.join()

    def _start(self) -> None:
        self._connection, other = self._context.Pipe()
        self._process = self._context.Process(
            target=_serve, args=(other, self._function, self._max_seconds), daemon=True
        )
        self._process.start()
        other.close()

    def _autopsy(self) -> Ended:
        """Say how the child ended."""
        assert self._connection is not None
        self._connection.close()
        self._process.join()
        code, self._process = self._process.exitcode, None
        if code == -signal.SIGALRM:
            return Ended("time limit", f"stopped after {self._max_seconds} s")
        if code < 0:
            return Ended("crashed", signal.Signals(-code).name)
        raise OrbitDiffError(
            f"the worker process ended with code {code}: its function must be importable, and a "
            "script that starts this needs `if __name__ == '__main__':` around the call"
        )


def _serve(connection: Connection, function: Callable[[Any], Any], max_seconds: int) -> None:
    """Answer items until the other side closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        signal.alarm(max_seconds)
        try:
            answer = ("value", function(item))
        except OrbitDiffError as error:
            answer = ("refused", error)
        except Exception as error:
            answer = ("error", f"{type(error).__name__}: {error}"[:200])
        signal.alarm(0)
        connection.send(answer)
