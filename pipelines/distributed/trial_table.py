"""The live table of a sweep's trials: in a terminal one that changes, elsewhere a line per end."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipelines.stages.sweeps.space import Trial
from pipelines.stages.sweeps.trial import figures, outcome

__all__ = ["TrialTable"]

PAUSE = 1.0
MOST_ENDED = 12
"""Ended jobs that are shown: the best ones."""
ENDED = ("TERMINATED", "ERROR")

Job = Sequence[Trial]


@final
class TrialTable:
    """Follows jobs by name and reads their figures from the folders of their trials.

    Parameters
    ----------
    jobs : mapping of name to trials
    root : Path
        Running state of the sweep.
    on_end : callable
        Called once for each trial of a job that has ended or was stopped.
    total : int
        Jobs that will be tried; a search tries a part of them.
    console : rich.console.Console, optional
    """

    def __init__(
        self,
        jobs: Mapping[str, Job],
        root: Path,
        *,
        on_end: Callable[[Trial], None],
        total: int,
        console: Console | None = None,
    ) -> None:
        self.jobs = jobs
        self.root = root
        self.on_end = on_end
        self.total = total
        self.console = console or Console()
        self.states: dict[str, str] = {}
        self.told: set[str] = set()
        self.clock = 0.0
        self.live = Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        """Start to draw where the output is a terminal."""
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last table standing."""
        if self.console.is_terminal:
            self.live.stop()
            self.console.print(self.table())

    def look(self, states: Mapping[str, str]) -> None:
        """Take the present state of each job in Tune's words, and draw.

        Parameters
        ----------
        states : mapping of name to PENDING, RUNNING, PAUSED, TERMINATED or ERROR
        """
        self.states = dict(states)
        for name, state in states.items():
            if state in ENDED and name not in self.told and name in self.jobs:
                self.told.add(name)
                for trial in self.jobs[name]:
                    self.on_end(trial)
                if not self.console.is_terminal:
                    self.console.print(self.line(name), highlight=False, soft_wrap=True)
        if self.console.is_terminal and time.monotonic() - self.clock > PAUSE:
            self.clock = time.monotonic()
            self.live.update(self.table(), refresh=True)

    def line(self, name: str) -> str:
        """One ended job in a line."""
        status, *rest = self.cells(name)
        words = ("step", "error", "ms/step", "ESS")
        said = "  ".join(f"{word} {cell}" for word, cell in zip(words, rest, strict=True))
        return f"[{len(self.told)}/{self.total}] {name}  {status}  {said}"

    def table(self) -> Table:
        """Running jobs and the best of those that have ended."""
        counts = Counter(self.status(name) for name in self.states if name in self.jobs)
        del counts["waiting"]
        counts["waiting"] = self.total - counts.total()
        title = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()) if count)
        table = Table("trial", "status", title=title, title_justify="left", box=None)
        for head in ("step", "error", "ms/step", "ESS"):
            table.add_column(head, justify="right")
        running = [name for name in self.jobs if self.states.get(name) == "RUNNING"]
        for name in [*running, *self.best()]:
            table.add_row(name, *self.cells(name))
        return table

    def best(self) -> list[str]:
        """Ended jobs with the lowest errors."""
        known = {name: self.numbers(name)["validation_error"] for name in self.told}
        ranked = sorted((error, name) for name, error in known.items() if error is not None)
        return [name for _, name in ranked[:MOST_ENDED]]

    def status(self, name: str) -> str:
        """Finished, diverged, stopped, failed, running or waiting."""
        ends = [outcome(trial.folder(self.root)) for trial in self.jobs[name]]
        known = [end["status"] for end in ends if end is not None]
        if len(known) == len(ends):
            return "diverged" if "diverged" in known else "finished"
        words = {"TERMINATED": "stopped", "ERROR": "failed", "RUNNING": "running"}
        return words.get(self.states.get(name, ""), "waiting")

    def cells(self, name: str) -> list[str]:
        """Status and figures of a job."""
        found = self.numbers(name)
        return [
            self.status(name),
            f"{found['step']}/{sum(trial.steps for trial in self.jobs[name])}",
            written(found["validation_error"], "{:.4g}"),
            written(found["step_seconds"], "{:.1f}", 1e3),
            written(found["ess"], "{:.3g}"),
        ]

    def numbers(self, name: str) -> dict[str, Any]:
        """Steps of all trials of a job, and means of the figures over those that have any."""
        each = [figures(trial, self.root) for trial in self.jobs[name]]
        found: dict[str, Any] = {"step": sum(one["step"] for one in each)}
        for key in ("validation_error", "step_seconds", "ess"):
            known = [one[key] for one in each if one[key] is not None]
            found[key] = sum(known) / len(known) if known else None
        return found


def written(value: float | None, form: str, unit: float = 1.0) -> str:
    """A number, or a dash."""
    return "–" if value is None else form.format(value * unit)
