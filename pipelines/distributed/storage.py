"""Where running checkpoints go: the folder of the run, or below the URL of $ORBITDIFF_STORAGE.

The URL is any that fsspec reads, such as s3://bucket/runs, file:///mnt/runs or memory://. Progress,
history and the finished model stay in the folder of the run.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from orbitdiff.errors import BadInput
from orbitdiff.training.checkpoint import is_complete

__all__ = ["STORAGE", "checkpoint_place", "newest_whole"]

STORAGE = "ORBITDIFF_STORAGE"


def checkpoint_place(storage: Path) -> tuple[str, Any]:
    """Return path and file system of a run's checkpoints; None is the local one.

    Parameters
    ----------
    storage : Path
        Folder of the run; `fingerprint.json` in it tells runs of the same name apart.

    Raises
    ------
    BadInput
        A URL that fsspec does not read, or a package that it needs for this is missing.
    """
    url = os.environ.get(STORAGE)
    if not url:
        return str(storage.absolute()), None
    from fsspec.core import url_to_fs
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    try:
        # others write there too: a remembered listing would be an old one
        filesystem, path = url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise BadInput(
            f"expected {STORAGE} to be a URL that fsspec reads, got {url}: {error}"
        ) from error
    note = storage / "fingerprint.json"
    digest = sha256(note.read_bytes() if note.is_file() else b"").hexdigest()[:12]
    return f"{path.rstrip('/')}/{storage.name}-{digest}", PyFileSystem(FSSpecHandler(filesystem))


@contextmanager
def newest_whole(newest: Any) -> Iterator[tuple[Path | None, str]]:
    """Give the folder and name of a checkpoint, or of the newest whole one of those before it.

    Parameters
    ----------
    newest : ray.train.Checkpoint
        The others stand beside it; their names are in order of time.
    """
    from pyarrow.fs import FileSelector
    from ray.train import Checkpoint

    place = PurePosixPath(newest.path)
    beside = newest.filesystem.get_file_info(FileSelector(str(place.parent)))
    names = sorted((PurePosixPath(info.path).name for info in beside), reverse=True)
    for name in names:
        if name.startswith("checkpoint_") and name <= place.name:
            found = Checkpoint(str(place.parent / name), filesystem=newest.filesystem)
            with found.as_directory() as folder:
                if is_complete(Path(folder)):
                    yield Path(folder), name
                    return
    yield None, ""
