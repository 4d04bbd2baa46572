"""One line for the terminal of an error that a user can act on."""

import errno
import shutil
from pathlib import Path

__all__ = ["one_line"]

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def one_line(error: Exception) -> str:
    """Message of an error; where a file could not grow, with the room that is left and the cure."""
    if not isinstance(error, OSError) or error.errno not in NO_ROOM:
        return str(error)
    where = error.filename or "a file"
    free = shutil.disk_usage(Path.cwd()).free / 2**20
    return (
        f"no room to write {where} ({error.strerror}; {free:.0f} MiB free here): make room, or "
        "raise the quota, and run the same command again; what was finished is kept"
    )
