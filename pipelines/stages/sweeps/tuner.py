"""Who runs the trials of a sweep: this process, or Ray Tune."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

from orbitdiff.errors import BadInput
from pipelines.stages.base import Executor, LocalExecutor
from pipelines.stages.sweeps.config import Search
from pipelines.stages.sweeps.space import Point, Trial
from pipelines.stages.sweeps.trial import outcome, run_trial

__all__ = ["LocalTuner", "Plan", "Tuner"]


@final
@dataclass(frozen=True)
class Plan:
    """What is to be tried.

    Parameters
    ----------
    name : str
        The same name and folder continue an interrupted plan.
    points : sequence of Point
    search : Search
    axes, place : mapping
        Of the space that `points` are from; read by searches that choose points.
    """

    name: str
    points: Sequence[Point]
    search: Search
    axes: Mapping[str, tuple[Any, ...]]
    place: Mapping[tuple[Any, ...], Point]

    @property
    def jobs(self) -> list[list[Trial]]:
        """Trials that are scheduled as one: each alone, or the seeds of a point together."""
        if self.search.kind == "optuna":
            return [list(point.trials) for point in self.points]
        return [[trial] for point in self.points for trial in point.trials]


@runtime_checkable
class Tuner(Protocol):
    """Runs the trials of a plan."""

    def check(self, trials: Sequence[Trial]) -> None:
        """Refuse trials that could never start."""
        ...

    def run(
        self, plan: Plan, root: Path, *, on_end: Callable[[Trial], None]
    ) -> dict[str, list[str]]:
        """Run what has not ended yet.

        Parameters
        ----------
        plan : Plan
        root : Path
            Running state, absolute; a later call with the same plan goes on from it.
        on_end : callable
            Called here, in the calling process, when a trial has ended or was stopped.

        Returns
        -------
        dict
            Names of the trials that were `tried`, and of those that `failed`: a later call
            tries them again.
        """
        ...


@final
class LocalTuner:
    """One trial after the other, in this process; all of them, to the end.

    Parameters
    ----------
    executor : Executor, optional
    """

    def __init__(self, executor: Executor | None = None) -> None:
        self.executor = executor or LocalExecutor()

    def check(self, trials: Sequence[Trial]) -> None:
        """Refuse trials of several workers."""
        most = max((trial.num_workers for trial in trials), default=0)
        if most > 1:
            raise BadInput(
                f"expected train.num_workers = 1 without Ray, got {most}: unset ORBITDIFF_EXECUTOR"
            )

    def run(
        self, plan: Plan, root: Path, *, on_end: Callable[[Trial], None]
    ) -> dict[str, list[str]]:
        """Run the grid."""
        if (plan.search.kind, plan.search.scheduler) != ("grid", "none"):
            raise BadInput("only Ray Tune searches and stops early: unset ORBITDIFF_EXECUTOR")
        tried = []
        for point in plan.points:
            for trial in point.trials:
                if outcome(trial.folder(root)) is None:
                    run_trial(trial, root, self.executor)
                on_end(trial)
                tried.append(trial.name)
        return {"tried": tried, "failed": []}
