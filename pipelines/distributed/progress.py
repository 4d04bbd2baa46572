"""Lines that a worker says, shown in the driver's terminal: Ray's own log stays out of it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["PROGRESS_FILE", "follow"]

PROGRESS_FILE = "progress.log"
PAUSE = 0.5


@contextmanager
def follow(path: Path) -> Iterator[None]:
    """Print whole lines that are appended to a file, until the block ends.

    Parameters
    ----------
    path : Path
        Emptied first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    done = threading.Event()

    def show() -> None:
        position, rest = 0, b""
        while True:
            last = done.wait(PAUSE)
            with path.open("rb") as file:
                file.seek(position)
                found = file.read()
            position += len(found)
            *lines, rest = (rest + found).split(b"\n")
            for line in lines:
                print(line.decode(errors="replace"), flush=True)
            if last:
                return

    thread = threading.Thread(target=show, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
