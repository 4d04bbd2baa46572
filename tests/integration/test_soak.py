"""Soak: sweeps on two raylets under random kills for $ORBITDIFF_SOAK_MINUTES; nothing is lost.

Whenever a sweep has ended another one starts, until the time is up; each of them has to give the
table of a sweep that nobody disturbs, each trial once.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
pytest.importorskip("mlflow")
psutil = pytest.importorskip("psutil")

from pipelines.environment import prepare_environment
from pipelines.params import load
from pipelines.stages import sweep as stage
from pipelines.stages.base import LocalExecutor, NullTracker
from pipelines.stages.sweeps.tuner import LocalTuner
from pipelines.sweeps import select_sweep

prepare_environment()

MINUTES = float(os.environ.get("ORBITDIFF_SOAK_MINUTES", "2"))
INTERVAL = min(60.0, 20 * MINUTES)
"""Seconds of which each has one kill, at a moment of its own."""
STANDSTILL = 1200.0
"""Seconds without a line, a step or an end after which a sweep counts as hung."""

pytestmark = [
    pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(int(120 * MINUTES) + 3600)
]  # fmt: skip
ROOT = Path(__file__).parents[2]
SECTION = {
    "estimator": "sampled",
    "dataset": "own",
    "over": {"num_samples": [2, 8]},
    "seeds": [0, 1],
    "changes": [
        "estimators.sampled={kind: importance}",
        "train={steps: 400, batch_size: 4, num_workers: 1, warmup: 5, checkpoint_every: 50,"
        " validate_every: 200, log_every: 10}",
        "model={hidden: 16, layers: 1, frequencies: 4, time_dim: 16}",
        "validation={num: 2, sigmas: [0.1, 0.3]}",
    ],
}
DRIVER = """
import json, sys
from pathlib import Path
from pipelines.environment import prepare_environment
prepare_environment()
from pipelines.distributed.tune import RayTuner
from pipelines.params import load
from pipelines.stages import sweep
from pipelines.stages.base import LocalExecutor
from pipelines.sweeps import select_sweep
from pipelines.tracking.mlflow_tracker import MLflowTracker
root, data, section = sys.argv[1:]
params = select_sweep(load(Path(root) / "params.yaml"), "crystals", "demo", json.loads(section))
sweep.run(params, {"data": Path(data)}, {"running": Path("running"), "results": Path("results")},
          executor=LocalExecutor(), tracker=MLflowTracker(), tuner=RayTuner())
"""
PROCESSES = {
    "training worker": "RayTrainWorker",
    "train controller": "TrainController",
    "trial": "ImplicitFunc",
}


def table(folder: Path) -> list[dict[str, Any]]:
    """Rows of the sweep's table, without what a clock measured."""
    rows = json.loads((folder / "results/trials.json").read_text())
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


def ends(folder: Path) -> dict[str, int]:
    """When each trial ended."""
    found = folder.glob("running/trials/*/outcome.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


class Round:
    """One sweep: its driver is started again whenever it has ended without its results."""

    def __init__(self, folder: Path, data: Path, address: str) -> None:
        folder.mkdir()
        self.folder, self.data, self.address = folder, data, address
        self.known: dict[str, int] = {}
        self.given_up = 0
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": self.address}
        environment.pop("MLFLOW_TRACKING_URI", None)
        with (self.folder / "driver.log").open("ab") as log:
            self.begun = log.tell()
            self.driver = subprocess.Popen(
                [sys.executable, "-c", DRIVER, str(ROOT), str(self.data), json.dumps(SECTION)],
                cwd=self.folder, env=environment, stdout=log, stderr=log,
            )  # fmt: skip

    def said(self) -> str:
        return (self.folder / "driver.log").read_text()

    def kill(self) -> None:
        self.driver.kill()
        self.driver.wait()
        self.start()

    def ended(self) -> bool:
        """True once the sweep is through; trials of too many kills are tried by a new driver."""
        for name, moment in ends(self.folder).items():
            assert self.known.setdefault(name, moment) == moment, f"{name} was repeated"
        if (code := self.driver.poll()) is None:
            return False
        if code:
            # Ray's processes may write after the driver's last words
            last = (self.folder / "driver.log").read_bytes()[self.begun :].decode(errors="replace")
            assert "trials broke off" in last, last[-4000:]
            self.given_up += 1
            self.start()
        return code == 0

    def moved(self) -> float:
        """When a file of the sweep was written last, in seconds."""
        files = [*self.folder.glob("running/trials/*/*"), self.folder / "driver.log"]
        moments = []
        for path in files:
            with contextlib.suppress(FileNotFoundError):
                moments.append(path.stat().st_mtime)
        return max(moments)


def targets(now: Round, nodes: Any) -> dict[str, list[Callable[[], None]]]:
    """What may be killed at this moment, by kind; a driver and a node come back at once."""

    def lose(number: int) -> None:
        nodes.kill(number)
        nodes.join()

    found: dict[str, list[Callable[[], None]]] = {
        "driver": [now.kill],
        "raylet": [lambda number=number: lose(number) for number in range(len(nodes.nodes))],
    }
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            command = " ".join(process.cmdline())
            for kind, word in PROCESSES.items():
                if command.startswith("ray::") and word in command:
                    found.setdefault(kind, []).append(process.kill)
    return found


def recorded_runs(folder: Path) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiments = [found.experiment_id for found in client.search_experiments()]
    return list(client.search_runs(experiments))


def test_every_trial_is_accounted_for(
    tmp_path: Path, prepared_crystals: Path, nodes: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = tmp_path / "quiet"
    stage.run(
        select_sweep(load(ROOT / "params.yaml"), "crystals", "demo", SECTION), {"data": prepared_crystals},
        {"running": quiet / "running", "results": quiet / "results"},
        executor=LocalExecutor(), tracker=NullTracker(), tuner=LocalTuner(),
    )  # fmt: skip
    expected = table(quiet)
    assert len(expected) == 6
    assert {row["status"] for row in expected} == {"finished"}

    for _ in range(2):
        nodes.join()
    seed = int(os.environ.get("ORBITDIFF_SOAK_SEED", "0"))
    choose = random.Random(seed)
    start, killed, rounds = time.monotonic(), Counter[str](), []
    moments = [(n + choose.random()) * INTERVAL for n in range(int(60 * MINUTES / INTERVAL))]
    while moments or not rounds or not rounds[-1].ended():
        passed = time.monotonic() - start
        if not rounds or (moments and rounds[-1].ended()):
            rounds.append(
                Round(tmp_path / f"round-{len(rounds)}", prepared_crystals, nodes.address)
            )
        now = rounds[-1]
        if moments and passed > moments[0]:
            moments.pop(0)
            found = targets(now, nodes)
            kind = choose.choice(sorted(found))
            with contextlib.suppress(psutil.NoSuchProcess):
                choose.choice(found[kind])()
                killed[kind] += 1
        assert time.time() - now.moved() < STANDSTILL, now.said()[-4000:]
        time.sleep(0.2)
    minutes = (time.monotonic() - start) / 60

    for sweep in rounds:
        assert table(sweep.folder) == expected, sweep.folder
        assert len(sweep.known) == len(expected)
        runs = recorded_runs(sweep.folder)
        names = {run.info.run_name for run in runs}
        assert len(names) == len(runs) == 1 + len(expected)
        assert {run.info.status for run in runs} == {"FINISHED"}
    assert killed.total() >= 1
    with capsys.disabled():
        print(
            f"\nsoak: {minutes:.1f} minutes, {killed.total()} kills ({dict(killed)}), "
            f"{len(rounds)} sweeps of {len(expected)} trials, "
            f"{sum(sweep.given_up for sweep in rounds)} drivers that gave up and were started again"
        )
