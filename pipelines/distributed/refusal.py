"""Errors that trying again cannot cure, carried from a worker to the driver.

Ray restarts a worker group whose worker raised. A refusal (bad input, a loss that is not finite)
is written beside the checkpoints instead: workers that start and find one return at once, and the
driver raises it.
"""

import json
import os
from pathlib import Path
from typing import NoReturn

from orbitdiff import errors
from orbitdiff.errors import OrbitDiffError

__all__ = ["clear_refusal", "find_refusal", "raise_refusal", "write_refusal"]

NAME = "refusal.json"


def write_refusal(storage: Path, error: OrbitDiffError) -> None:
    """Keep class and message of an error; the first one stays."""
    path = storage / NAME
    if path.exists():
        return
    partial = storage / f".{NAME}.{os.getpid()}"
    partial.write_text(json.dumps({"kind": type(error).__name__, "message": str(error)}))
    os.replace(partial, path)


def find_refusal(storage: Path) -> bool:
    """True where a worker has refused to go on."""
    return (storage / NAME).exists()


def clear_refusal(storage: Path) -> None:
    """Forget an earlier refusal, for a new start."""
    (storage / NAME).unlink(missing_ok=True)


def raise_refusal(storage: Path) -> NoReturn:
    """Raise the kept error in its own class."""
    found = json.loads((storage / NAME).read_text())
    kind = getattr(errors, found["kind"], OrbitDiffError)
    raise kind(found["message"])
