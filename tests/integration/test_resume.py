"""Kill the run, then the training worker: the weights end as if nothing had happened."""

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
pytest.importorskip("pymatgen")

from pymatgen.core import Lattice, Structure
from safetensors.torch import load_file

from pipelines.params import RunParams, load
from pipelines.stages import train
from pipelines.stages.base import LocalExecutor, NullTracker
from pipelines.stages.prepare import prepare_own

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
CHANGES = [
    "train={steps: 160, batch_size: 4, num_workers: 1, checkpoint_every: 10, validate_every: 80,"
    " log_every: 1, warmup: 5}",
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


def write_data(folder: Path) -> None:
    cifs = folder / "cifs"
    cifs.mkdir()
    for number in range(24):
        places = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
        crystal = Structure(Lattice.cubic(4 + 0.05 * number), ["Ba", "Ti", "O"], places)
        crystal.to(str(cifs / f"crystal-{number}.cif"))
    prepare_own(cifs, folder / "data", executor=LocalExecutor())


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


def last_step(history: Path) -> int:
    try:
        return int(json.loads(history.read_text().splitlines()[-1])["step"])
    except (OSError, ValueError, IndexError):
        return -1


def wait_for_step(driver: "subprocess.Popen[bytes]", folder: Path, low: int, high: int) -> None:
    """Return while the run stands between two steps."""
    limit = time.monotonic() + 120
    while not low <= last_step(folder / "ray/running/history.jsonl") < high:
        assert driver.poll() is None, (folder / "driver.log").read_text()[-3000:]
        assert time.monotonic() < limit, "the run did not get there in two minutes"
        time.sleep(0.005)


def training_workers(driver: "subprocess.Popen[bytes]") -> list[Any]:
    """Training processes below a driver, and no others."""
    below = psutil.Process(driver.pid).children(recursive=True)
    return [process for process in below if "RayTrainWorker" in " ".join(process.cmdline())]


def records(history: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in history.read_text().splitlines()]
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in found]


@pytest.mark.timeout(400)
def test_killed_run_and_killed_worker_end_with_the_same_bits(tmp_path: Path) -> None:
    write_data(tmp_path)
    whole = tmp_path / "whole"
    train.run(
        selected(),
        {"data": tmp_path / "data"},
        {"model": whole / "model", "running": whole / "running"},
        executor=LocalExecutor(),
        tracker=NullTracker(),
    )

    first = start(tmp_path)
    wait_for_step(first, tmp_path, 40, 160)
    family = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    psutil.wait_procs(family, timeout=20)
    reached = last_step(tmp_path / "ray/running/history.jsonl")
    assert 40 <= reached < 160
    assert not (tmp_path / "ray/model").exists()

    second = start(tmp_path)
    wait_for_step(second, tmp_path, reached + 15, 160)
    (worker,) = training_workers(second)
    worker.kill()
    assert second.wait(timeout=180) == 0, (tmp_path / "driver.log").read_text()[-3000:]

    resumed = load_file(tmp_path / "ray/model/model.safetensors")
    expected = load_file(whole / "model/model.safetensors")
    assert resumed.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(resumed[name], value), name
    assert records(tmp_path / "ray/model/history.jsonl") == records(whole / "model/history.jsonl")
