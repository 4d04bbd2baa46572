"""One writer per running folder: a worker that outlives its killed driver keeps others out."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orbitdiff.errors import OrbitDiffError

__all__ = ["only_writer"]

PAUSE = 0.2


@contextmanager
def only_writer(folder: Path, *, patience: float = 60.0) -> Iterator[None]:
    """Hold the folder's lock; the system frees it when the process ends, however it ends.

    Parameters
    ----------
    folder : Path
        Created if needed.
    patience : float
        Seconds to wait for another writer to end.

    Raises
    ------
    OrbitDiffError
        Another process still writes after `patience` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "writer.lock"
    with path.open("a+") as file:
        limit = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > limit:
                    file.seek(0)
                    raise OrbitDiffError(
                        f"another process ({file.read().strip() or 'unknown'}) still trains in "
                        f"{folder}; wait for its end, or stop it"
                    ) from error
                time.sleep(PAUSE)
        file.truncate(0)
        file.write(f"pid {os.getpid()}\n")
        file.flush()
        yield
