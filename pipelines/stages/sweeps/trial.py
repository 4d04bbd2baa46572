"""One trial: a training run of its own, resumed where it was stopped, and the figures it gave."""

import json
import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, final

import torch

from orbitdiff.data.toy import point
from orbitdiff.errors import NonFiniteLoss, OrbitDiffError
from orbitdiff.export import write_atomically
from orbitdiff.metrics.comparison import last_validation, of_kind
from orbitdiff.seeding import stream
from orbitdiff.tasks.toy import Toy
from orbitdiff.tasks.toy_training import train_toy
from orbitdiff.training import checkpoint as store
from orbitdiff.training.history import History
from orbitdiff.training.lock import only_writer
from orbitdiff.training.worker import Worker
from pipelines.stages.base import Executor
from pipelines.stages.sweeps.gradient import measure
from pipelines.stages.sweeps.space import Trial
from pipelines.stages.train import training_loop

__all__ = ["figures", "outcome", "read_history", "run_trial"]

OUTCOME = "outcome.json"
HISTORY = "history.jsonl"
AVERAGED = ("ess_frac", "ess_positions", "ess_x")
"""Records of the field that is averaged over its orbit, in each task; plain fields have ESS 1."""


@final
class StoppableWorker:
    """A worker whose training ends itself once a file is there.

    A run that is killed from outside would leave its place on the cluster taken.

    Parameters
    ----------
    worker : Worker
    stop : Path
    """

    def __init__(self, worker: Worker, stop: Path) -> None:
        self.worker = worker
        self.stop = stop
        self.rank = worker.rank
        self.world_size = worker.world_size
        self.device = worker.device
        self.wrap = worker.wrap
        self.restore = worker.restore
        self.report = worker.report
        self.shards = worker.shards
        self.mean = worker.mean

    def say(self, line: str) -> None:
        """Show a line; after every log interval the training may end here."""
        if self.stop.exists():
            raise OrbitDiffError("stopped: other trials are better")
        self.worker.say(line)


def stoppable_loop(worker: Worker, config: dict[str, Any]) -> dict[str, Any]:
    """The training loop of the stage `train`, ended by the file `config["stop"]`."""
    return training_loop(StoppableWorker(worker, Path(config["stop"])), config)


def run_trial(trial: Trial, root: Path, executor: Executor, *, stop: Path | None = None) -> None:
    """Train and measure, unless the trial has ended before; one that was cut off goes on.

    Parameters
    ----------
    trial : Trial
    root : Path
        Running state of the sweep, absolute.
    executor : Executor
        Trains on the trial's own number of workers.
    stop : Path, optional
        Once this file is there, the training ends as it is, and the trial has no outcome.

    Raises
    ------
    OrbitDiffError
        What hinders the training; a loss that is not finite is a result of the trial instead.
    """
    folder = trial.folder(root)
    # a search may choose a point again while its first trial still runs
    with only_writer(folder / "lock", patience=math.inf):
        if outcome(folder) is None:
            train_trial(trial, folder, executor, stop or folder / "stop")
        measure(trial, root)


def train_trial(trial: Trial, folder: Path, executor: Executor, stop: Path) -> None:
    """Train to the end, and note how that was."""
    try:
        if trial.num_workers:
            executor.fit(
                stoppable_loop, {**loop_config(trial, folder), "stop": str(stop)}, name="ray",
                storage=folder, num_workers=trial.num_workers,
            )  # fmt: skip
        else:
            train_toy_trial(trial, folder)
    except NonFiniteLoss as error:
        end(folder, "diverged", str(error))
    except OrbitDiffError:
        if not stop.exists():
            raise
        return
    else:
        end(folder, "finished")
    shutil.rmtree(folder / "ray", ignore_errors=True)


def loop_config(trial: Trial, folder: Path) -> dict[str, Any]:
    """What the training loop of the stage `train` needs."""
    return {
        "task": trial.origin.task,
        "settings": trial.settings,
        "arm": trial.arm,
        "train": trial.settings.train,
        "start": None,
        "data": str(trial.origin.data),
        "running": str(folder),
        "seed": trial.seed,
        "about": {"seed": trial.seed, "estimator_name": trial.estimator, "trial": trial.name},
    }


def train_toy_trial(trial: Trial, folder: Path) -> None:
    """Train a stack of one member and write what the training loop would.

    The last validation record holds the mean over the checkpoints of the last tenth: a single
    checkpoint of the toy fluctuates from step to step.
    """
    clock = time.perf_counter()
    result = train_toy(trial.settings)
    seconds = (time.perf_counter() - clock) / trial.steps
    history = History(folder / HISTORY)
    history.rewind(0)
    ess = toy_ess(trial)
    for row in result.history:
        train = {"kind": "train", "step": row["step"], "loss": row["loss"][0]}
        history.write({**train, "step_seconds": seconds, **({} if ess is None else {"ess_x": ess})})
        last = row["step"] == trial.steps
        error = result.members[0]["late_error"] if last else row["error"][0]
        history.write({"kind": "validation", "step": row["step"], "distance_mean": error})
    store.save(folder / "final", result.weights, {"task": "toy", "trial": trial.name})


def toy_ess(trial: Trial) -> float | None:
    """Mean effective sample size over the noise levels of the toy, None where it has none."""
    toy = Toy(trial.settings)
    t = torch.linspace(0, 1, trial.settings.levels).repeat(20)
    x_0 = point(len(t))
    noised = toy.kernel.sample(x_0, t, generator=stream("sweep", "toy", "noise"))
    found = toy.estimators[trial.estimator](
        noised.x_t, x_0, t, noise=noised.noise, generator=stream("sweep", "toy", "elements")
    )
    return None if found.info.ess is None else float(found.info.ess.mean())


def end(folder: Path, status: str, reason: str = "") -> None:
    """Note that a trial has ended; it is never run again."""
    write_atomically(folder / OUTCOME, json.dumps({"status": status, "reason": reason}) + "\n")


def outcome(folder: Path) -> Mapping[str, str] | None:
    """How a trial ended; None where it did not."""
    try:
        found: dict[str, str] = json.loads((folder / OUTCOME).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return found


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Whole records of a history that may still be written to."""
    try:
        lines = (folder / HISTORY).read_text().split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def figures(trial: Trial, root: Path) -> dict[str, Any]:
    """Numbers of a trial up to now; None where it has no such number.

    Parameters
    ----------
    trial : Trial
    root : Path

    Returns
    -------
    dict
        `step` (last one recorded), `validation_error`, `loss`, `ess` (mean over the training),
        `step_seconds` (median over log intervals), `train_seconds`.
    """
    history = read_history(trial.folder(root))
    train, last = of_kind(history, "train"), last_validation(history)
    ess = [row[key] for row in train for key in AVERAGED if key in row]
    steps = [0, *(int(row["step"]) for row in train)]
    seconds = [float(row["step_seconds"]) for row in train]
    return {
        "step": steps[-1],
        "validation_error": None if last is None else finite(last["distance_mean"]),
        "loss": finite(train[-1]["loss"]) if train else None,
        "ess": sum(ess) / len(ess) if ess else None,
        "step_seconds": median(seconds) if seconds else None,
        "train_seconds": sum(
            each * (step - before)
            for each, before, step in zip(seconds, steps, steps[1:], strict=False)
        ),
    }


def finite(value: float) -> float | None:
    """None instead of NaN or infinity, which tables and JSON do not hold."""
    return float(value) if math.isfinite(value) else None
