"""The record of a sweep: a run for the whole of it, and a child of that run for each trial."""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from pipelines.stages.base import TrackedRun, Tracker
from pipelines.stages.provenance import provenance
from pipelines.stages.sweeps.gradient import gradient_variance
from pipelines.stages.sweeps.space import Trial
from pipelines.stages.sweeps.trial import figures, outcome, read_history
from pipelines.stages.train import numbers

__all__ = ["Children"]

PARENT = "mlflow.parentRunId"
"""Tag that MLflow's pages nest runs by; the tracker puts the run's own name for the record's."""


class BrokenOff(Exception):
    """Ends the record of a trial as failed."""


@final
class Children:
    """Records trials below the run of their sweep, each once, also across restarts.

    Parameters
    ----------
    tracker : Tracker
    parent : TrackedRun
    params : SweepParams
    root : Path
        Running state of the sweep.
    """

    def __init__(self, tracker: Tracker, parent: TrackedRun, params: Any, root: Path) -> None:
        self.tracker = tracker
        self.parent = parent
        self.params = params
        self.root = root
        self.ended = 0

    def ended_now(self, trial: Trial) -> None:
        """Record a trial that has ended; one that was stopped is recorded at the end."""
        if outcome(trial.folder(self.root)) is None:
            return
        self.record(trial)
        self.ended += 1
        self.parent.metrics({"trials_ended": float(self.ended)}, step=self.ended)

    def record(self, trial: Trial, *, status: str = "") -> None:
        """Write parameters, curves and final figures of a trial, unless they were before.

        Parameters
        ----------
        trial : Trial
        status : str
            Of a trial without an outcome of its own: stopped, or failed, whose record stays open
            for the next try.
        """
        folder = trial.folder(self.root)
        note = folder / f"recorded-{self.parent.record or 'nowhere'}"
        if note.exists():
            return
        ended = outcome(folder) or {"status": status, "reason": ""}
        tags = {
            **provenance(self.params, trial.origin.data),
            "stage": "trial",
            "estimator_name": trial.estimator,
            "seed": str(trial.seed),
            "status": ended["status"],
            "reason": ended["reason"],
            PARENT: self.parent.record,
        }
        # named after the parent: an unfinished run of the same name would be continued
        name = f"{trial.name} {self.parent.record[:8]}".strip()
        with (
            contextlib.suppress(BrokenOff),
            self.tracker.run(
                name, experiment=self.params.task, params=parameters(trial), tags=tags
            ) as child,
        ):
            for record in read_history(folder):
                child.metrics(numbers(record), step=record["step"])
            last = {**figures(trial, self.root), "gradient_variance": None}
            last["gradient_variance"] = gradient_variance(trial, self.root)
            child.metrics(
                {f"final.{key}": value for key, value in last.items() if value is not None},
                step=last["step"],
            )
            if ended["status"] == "failed":
                raise BrokenOff
        if ended["status"] == "failed":
            return
        folder.mkdir(parents=True, exist_ok=True)
        note.touch()


def parameters(trial: Trial) -> Mapping[str, Any]:
    """Values of the axes, settings of the estimator, seed and steps."""
    return {
        **{f"axis.{axis}": value for axis, value in trial.values.items()},
        **{f"target.{key}": v for key, v in dataclasses.asdict(trial.arm.target).items()},
        "exact": trial.exact,
        "seed": trial.seed,
        "steps": trial.steps,
    }
