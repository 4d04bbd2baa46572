"""What a sweep varies: the section `sweeps.TASK.PRESET` of params.yaml."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, final

from orbitdiff.errors import BadInput
from orbitdiff.orbit.base import EstimatorSpec

__all__ = ["ESTIMATOR_AXES", "SCHEDULERS", "SEARCHES", "Search", "SweepConfig"]

SEARCHES = ("grid", "optuna")
SCHEDULERS = ("none", "asha", "median")
ESTIMATOR_AXES = ("estimator", *(field.name for field in dataclasses.fields(EstimatorSpec)))
"""Axes by a short name: an arm of the preset, or a setting of the estimator that is varied."""


@final
@dataclass(frozen=True)
class Search:
    """Which points of the space are tried, and which of them to the end.

    Parameters
    ----------
    kind : str
        `grid`: all points; `optuna`: `points` of them, each chosen by what the earlier ones gave
        (TPE; a point is judged by the mean over its seeds).
    points : int
        Of `optuna`.
    scheduler : str
        `none`, `asha` (successive halving) or `median` (worse than the median so far stops).
    grace : int
        Steps that every trial makes.
    reduction : int
        ASHA goes on with the best 1 / reduction at each rung.
    """

    __pydantic_config__ = {"extra": "forbid"}

    kind: str = "grid"
    points: int = 16
    scheduler: str = "none"
    grace: int = 500
    reduction: int = 3

    def __post_init__(self) -> None:
        if self.kind not in SEARCHES:
            raise BadInput(f"expected search.kind among {SEARCHES}, got {self.kind!r}")
        if self.scheduler not in SCHEDULERS:
            raise BadInput(f"expected search.scheduler among {SCHEDULERS}, got {self.scheduler!r}")
        if self.points < 1 or self.grace < 1 or self.reduction < 2:
            raise BadInput(
                "expected search.points and search.grace of at least 1 and search.reduction of "
                f"at least 2, got {self.points}, {self.grace} and {self.reduction}"
            )


@final
@dataclass(frozen=True)
class SweepConfig:
    """One sweep.

    Parameters
    ----------
    estimator : str
        Arm of the preset whose settings are varied.
    over : mapping of axis to values
        An axis is a setting of the estimator (num_samples, temperature, kind, proposal, ...),
        `estimator` (arms of the preset), or a dotted key of the preset (train.learning_rate).
    exact : str
        Arm with the exact estimator; it has a row of its own.
    dataset : str
        Empty for tasks that prepare no data.
    seeds : tuple of int
        Replicates of every point.
    changes : tuple of str
        key=value of the preset that all trials share.
    search : Search
    """

    __pydantic_config__ = {"extra": "forbid"}

    estimator: str
    over: dict[str, tuple[Any, ...]]
    exact: str = "exact"
    dataset: str = ""
    seeds: tuple[int, ...] = (0, 1, 2)
    changes: tuple[str, ...] = ()
    search: Search = field(default_factory=Search)

    def __post_init__(self) -> None:
        if not self.over:
            raise BadInput("expected at least one axis to sweep over, such as num_samples")
        for axis, values in self.over.items():
            if not values:
                raise BadInput(f"expected values of axis {axis}: --values {axis}=a,b,c")
            if len(set(map(repr, values))) < len(values):
                raise BadInput(f"axis {axis} names a value twice: {list(values)}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise BadInput(f"expected different seeds, at least one, got {list(self.seeds)}")
        if self.search.kind == "optuna" and self.search.scheduler != "none" and self.replicated:
            raise BadInput(
                "optuna judges a point by the mean over its seeds, which no trial knows before its "
                "end: take search.scheduler none, or a single seed"
            )

    @property
    def replicated(self) -> bool:
        """More than one seed."""
        return len(self.seeds) > 1
