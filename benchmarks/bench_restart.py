"""What a killed training worker costs: steps done again, and seconds until the run is where it was.

A training (`demo` network, built-in data) under Ray Train loses its worker by SIGKILL, twice, at
moments spread evenly over the interval between two checkpoints, from its first step on.
`steps_redone` counts from the checkpoint that it resumes from to the last step on record;
`seconds_to_resume` from the kill until the new worker has read the checkpoint, `seconds_to_return`
until it has done the lost steps again.
Bar: at most one interval. Writes results/restart_cpu.json.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch
from bench_ray import prepared
from record import hardware, write

from pipelines.distributed.ray_executor import RayExecutor
from pipelines.params import load
from pipelines.stages.train import training_loop

KILLS = 2
"""Of one training: Ray Train gives up after more."""
PATIENCE = 600.0


def settings_of(data: Path, folder: Path, steps: int, every: int) -> dict[str, Any]:
    """Config of the training: each step on record, one worker."""
    params = load().select("crystals", "demo", dataset="prototypes", estimator="exact", seed=0)
    numbers = replace(
        params.settings.train, steps=steps, log_every=1, validate_every=steps, num_workers=1,
        checkpoint_every=every, snapshot_every=0,
    )  # fmt: skip
    return {
        "settings": replace(params.settings, train=numbers),
        "task": params.task,
        "arm": params.arm,
        "train": numbers,
        "start": None,
        "data": str(data),
        "running": str(folder),
        "seed": 0,
        "about": {},
    }


def last_step(history: Path) -> int:
    """Last whole step on record, 0 without one."""
    if not history.exists():
        return 0
    lines = [line for line in history.read_text().split("\n")[:-1] if line]
    return int(json.loads(lines[-1])["step"]) if lines else 0


def wait_until(condition: Callable[[], bool]) -> float:
    """Clock when the condition holds."""
    limit = time.perf_counter() + PATIENCE
    while not condition():
        if time.perf_counter() > limit:
            raise TimeoutError(f"nothing happened for {PATIENCE:.0f} s")
        time.sleep(0.002)
    return time.perf_counter()


def training_worker() -> psutil.Process:
    """The training process below this one."""
    below = psutil.Process().children(recursive=True)
    (worker,) = [each for each in below if "RayTrainWorker" in " ".join(each.cmdline())]
    return worker


def kill_at(history: Path, step: int, every: int) -> dict[str, float]:
    """Kill the worker at a step; the cost of it."""
    wait_until(lambda: last_step(history) >= step - every)
    worker, before = training_worker(), history.stat().st_ino
    start = wait_until(lambda: last_step(history) >= step)
    worker.kill()
    psutil.wait_procs([worker], timeout=20)
    reached = last_step(history)
    # a run that resumes replaces its record by one cut back to the checkpoint
    resumed = wait_until(lambda: history.stat().st_ino != before)
    checkpoint = last_step(history) // every * every
    returned = wait_until(lambda: last_step(history) >= reached)
    return {
        "reached": reached,
        "resumed_from": checkpoint,
        "steps_redone": reached - checkpoint,
        "seconds_to_resume": round(resumed - start, 2),
        "seconds_to_return": round(returned - start, 2),
    }


def killed_training(
    data: Path, folder: Path, *, every: int, moments: Sequence[float]
) -> list[dict[str, float]]:
    """Train with one kill for each moment, a fraction of the interval after a checkpoint.

    Parameters
    ----------
    data, folder : Path
    every : int
        Steps between two checkpoints.
    moments : sequence of float
        In [0, 1), at most two.
    """
    at = [round(every * (2 + 2 * number + moment)) for number, moment in enumerate(moments)]
    steps = every * (2 + 2 * len(moments))
    found: list[dict[str, float]] = []
    history = folder / "history.jsonl"

    def kill() -> None:
        for step in at:
            found.append(kill_at(history, step, every))

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    RayExecutor(num_cpus=1).fit(
        training_loop,
        settings_of(data, folder, steps, every),
        name="fit",
        storage=folder,
        num_workers=1,
    )
    killer.join(timeout=PATIENCE)
    if len(found) < len(at) or last_step(history) < steps:
        raise RuntimeError(f"{len(found)} of {len(at)} kills were outlived")
    return found


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--trainings", type=int, default=3)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    about = hardware(torch.device("cpu"))
    number = options.trainings * KILLS
    moments = [index / number for index in range(number)]
    kills: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as parent:
        data = prepared(Path(parent))
        for training in range(options.trainings):
            part = moments[KILLS * training : KILLS * (training + 1)]
            folder = Path(parent) / f"training-{training}"
            kills += killed_training(data, folder, every=options.every, moments=part)
            print(kills[-KILLS:], flush=True)
    result = {
        "what": __doc__.split("\n", maxsplit=1)[0],
        "bar": {"steps_redone": options.every},
        **about,
        "config": {"checkpoint_every": options.every, "trainings": options.trainings},
        "kills": kills,
        "most_steps_redone": max(kill["steps_redone"] for kill in kills),
        "seconds_to_resume": statistics.median(kill["seconds_to_resume"] for kill in kills),
        "seconds_to_return": statistics.median(kill["seconds_to_return"] for kill in kills),
    }
    write("restart_cpu", result)


if __name__ == "__main__":
    main()
