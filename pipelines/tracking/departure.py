"""Tell a process that exited from one that was killed after its last word.

A run may be over, and its process killed before whoever waits for it has learned so; it is then
started again, and should find the record that it had. So every journal has a note of its process,
which names a file that the process holds locked, and an ended one stays until the process exits.
"""

import atexit
import fcntl
import shutil
import uuid
from pathlib import Path
from typing import IO

from orbitdiff.export import write_atomically

__all__ = ["claim", "remove_at_exit", "was_killed"]

NOTE = "process"
_marks: dict[Path, IO[str]] = {}
_ended: dict[Path, str] = {}


def claim(folder: Path) -> None:
    """Note in a journal's folder that it is this process's."""
    place = folder.parents[1]
    if place not in _marks:
        _marks[place] = (place / f".process-{uuid.uuid4().hex}").open("w")
        fcntl.flock(_marks[place], fcntl.LOCK_EX)
    _ended.pop(folder, None)
    write_atomically(folder / NOTE, Path(_marks[place].name).name)


def remove_at_exit(folder: Path) -> None:
    """Remove the folder of an ended run when this process exits."""
    _ended[folder] = (folder / "id").read_text()


def was_killed(folder: Path) -> bool:
    """True where the process of a journal is gone without an exit."""
    note = folder / NOTE
    if not note.is_file():
        return False
    mark = folder.parents[1] / note.read_text()
    try:
        with mark.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@atexit.register
def depart() -> None:
    """Remove what this process leaves."""
    for folder, identity in _ended.items():
        if (folder / "id").is_file() and (folder / "id").read_text() == identity:
            shutil.rmtree(folder, ignore_errors=True)
    for mark in _marks.values():
        Path(mark.name).unlink(missing_ok=True)
        mark.close()
    _ended.clear()
    _marks.clear()
