"""Kill the run, cut its last checkpoint, kill the worker: the weights end as if nothing had happened."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")

from safetensors.torch import load_file

from pipelines.params import RunParams, load
from pipelines.stages import train
from pipelines.stages.base import LocalExecutor, NullTracker

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
STEPS = 1000
CHANGES = [
    f"train={{steps: {STEPS}, batch_size: 4, num_workers: 1, warmup: 5,"
    " checkpoint_every: 10, validate_every: 100, log_every: 1}",
    "model={hidden: 16, layers: 1, frequencies: 4, time_dim: 16}",
    "validation={num: 2, sigmas: [0.1, 0.3]}",
]
DRIVER = """
import sys
from pathlib import Path
from pipelines.environment import prepare_environment
prepare_environment()
from pipelines.distributed.ray_executor import RayExecutor
from pipelines.params import load
from pipelines.stages import train
from pipelines.stages.base import NullTracker
root, folder, *changes = sys.argv[1:]
params = load(Path(root) / "params.yaml").select(
    "crystals", "demo", dataset="own", estimator="exact", seed=3, changes=changes
)
folder = Path(folder)
train.run(params, {"data": folder / "data"},
          {"model": folder / "ray/model", "running": folder / "ray/running"},
          executor=RayExecutor(num_cpus=1), tracker=NullTracker())
"""


def selected() -> RunParams:
    params = load(ROOT / "params.yaml")
    return params.select(
        "crystals", "demo", dataset="own", estimator="exact", seed=3, changes=CHANGES
    )


def start(folder: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    with (folder / "driver.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(ROOT), str(folder), *CHANGES],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )


def last_step(folder: Path) -> int | None:
    """Last step of the history: 0 without one, None while a line is being written."""
    history = folder / "ray/running/history.jsonl"
    try:
        lines = [line for line in history.read_text().split("\n")[:-1] if line]
        return int(json.loads(lines[-1])["step"]) if lines else 0
    except FileNotFoundError:
        return 0
    except ValueError:
        return None


def watch(driver: "subprocess.Popen[bytes]", folder: Path, until: int) -> int:
    """Wait for a step, or for the end of the driver; return the lowest step seen.

    A run that starts over gives the same weights too: its history falls back to the start.
    """
    limit, lowest = time.monotonic() + 600, STEPS
    while driver.poll() is None:
        step = last_step(folder)
        if step is not None:
            lowest = min(lowest, step)
            if step >= until:
                return lowest
        assert time.monotonic() < limit, "no end after ten minutes"
        time.sleep(0.002)
    return lowest


def training_workers(driver: "subprocess.Popen[bytes]") -> list[Any]:
    """Training processes below a driver, and no others."""
    below = psutil.Process(driver.pid).children(recursive=True)
    return [process for process in below if "RayTrainWorker" in " ".join(process.cmdline())]


def cut(file: Path) -> None:
    """Leave half of a file, as a disk that fails may."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def records(history: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in history.read_text().splitlines()]
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in found]


@pytest.mark.timeout(1500)
@pytest.mark.usefixtures("prepared_crystals")
def test_killed_run_and_killed_worker_end_with_the_same_bits(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    train.run(
        selected(),
        {"data": tmp_path / "data"},
        {"model": whole / "model", "running": whole / "running"},
        executor=LocalExecutor(),
        tracker=NullTracker(),
    )

    first = start(tmp_path)
    assert watch(first, tmp_path, 150) == 0
    family = psutil.Process(first.pid).children(recursive=True)
    # all at once, as when the machine goes away: a worker left alone trains on for seconds
    for process in [first, *family]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    assert first.wait() == -signal.SIGKILL, (tmp_path / "driver.log").read_text()[-3000:]
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
    reached = last_step(tmp_path)
    assert reached is not None
    assert 150 <= reached < STEPS - 200, reached
    assert not (tmp_path / "ray/model").exists()
    known = (tmp_path / "ray/running/ray" / "checkpoint_manager_snapshot.json").read_text()
    folders = sorted((tmp_path / "ray/running/ray").glob("checkpoint_*/"))
    # the kill may leave one that Ray has not taken down yet, which it does not resume from
    *_, older, newest = [folder for folder in folders if folder.name in known]
    cut(newest / "trainer.pt")

    second = start(tmp_path)
    assert watch(second, tmp_path, reached + 40) > 0, "the killed run started over"
    (worker,) = training_workers(second)
    worker.kill()
    assert watch(second, tmp_path, STEPS + 1) > 0, "the killed worker started over"
    assert second.returncode == 0, (tmp_path / "driver.log").read_text()[-3000:]
    said = f"checkpoint {newest.name} is cut or was changed; {older.name} is taken"
    assert said in (tmp_path / "driver.log").read_text()

    resumed = load_file(tmp_path / "ray/model/model.safetensors")
    expected = load_file(whole / "model/model.safetensors")
    assert resumed.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(resumed[name], value), name
    assert records(tmp_path / "ray/model/history.jsonl") == records(whole / "model/history.jsonl")
