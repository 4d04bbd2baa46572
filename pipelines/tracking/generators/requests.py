"""Rows that a served model takes, held to limits; what is refused says why, with status 400."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

from orbitdiff.errors import BadInput, OrbitDiffError

__all__ = ["LONGEST", "MOST_ROWS", "MOST_SAMPLES", "Request", "as_refusals", "read_requests"]

MOST_ROWS = 64
"""Rows of one request."""
MOST_SAMPLES = 256
"""Samples of one request, over its rows."""
LONGEST = 1000
"""Characters of a description."""


@final
@dataclass(frozen=True)
class Request:
    """One row: what is described, how many samples, and their seed."""

    described: str
    n: int
    seed: int


def one(described: str) -> int:
    """Most descriptions mean one thing, of which n samples are drawn."""
    return 1


def read_requests(table: Any, column: str, *, things: Callable[[str], int] = one) -> list[Request]:
    """Rows of a table with the column of descriptions and, where wanted, n and seed.

    Parameters
    ----------
    table : pandas.DataFrame
    column : str
    things : callable
        Number of things that a description means, of each of which n samples are drawn.

    Raises
    ------
    BadInput
        Too many rows or samples, a description that is no text or too long.
    """
    if len(table) > MOST_ROWS:
        raise BadInput(f"expected at most {MOST_ROWS} rows in a request, got {len(table)}")
    found = []
    for number, row in enumerate(table.to_dict("records")):
        text = row.get(column)
        if not isinstance(text, str) or not text.strip():
            raise BadInput(f"expected text in column {column} of row {number}, got {text!r}")
        if len(text) > LONGEST:
            raise BadInput(
                f"expected at most {LONGEST} characters in column {column}, got {len(text)}"
            )
        found.append(Request(text, whole(row.get("n"), 1), whole(row.get("seed"), 0)))
    wanted = sum(max(0, request.n) * things(request.described) for request in found)
    if wanted > MOST_SAMPLES:
        raise BadInput(f"expected at most {MOST_SAMPLES} samples in a request, got {wanted}")
    return found


def whole(value: Any, default: int) -> int:
    """Return a number of the table; a column or cell that is not there means the default."""
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return default if missing else int(value)


@contextmanager
def as_refusals() -> Iterator[None]:
    """Give errors of the input to the client; MLflow's server would hide their text."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    try:
        yield
    except OrbitDiffError as error:
        raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from error
