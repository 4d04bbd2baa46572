"""A row of a data set that was refused: what every parser returns in place of a sample."""

from dataclasses import dataclass

__all__ = ["Rejected"]


@dataclass(frozen=True)
class Rejected:
    """One refused row: its id, the kind of fault, and what was found."""

    id: str
    reason: str
    detail: str
