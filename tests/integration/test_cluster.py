"""Raylets as separate processes: two nodes train as one does; nodes are killed, others join."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

import torch
from safetensors.torch import load_file

from pipelines.environment import prepare_environment
from pipelines.params import load
from pipelines.stages import train
from pipelines.stages.base import LocalExecutor, NullTracker

prepare_environment()

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(2400)]
ROOT = Path(__file__).parents[2]
STEPS = 400
LONG = 2000
TOLERANCE = 1e-6
"""Of weights, relative to their largest: the gradients of two workers are summed over another way."""
TRAIN = "batch_size: 8, num_workers: 2, warmup: 5, checkpoint_every: 20, validate_every: 200, log_every: 1"
MODEL = [
    "model={hidden: 16, layers: 1, frequencies: 4, time_dim: 16}",
    "validation={num: 2, sigmas: [0.1, 0.3]}",
]
FIXED = [f"train={{steps: {STEPS}, {TRAIN}}}", *MODEL]
ELASTIC = [f"train={{steps: {LONG}, min_workers: 1, {TRAIN}}}", *MODEL]
DRIVER = """
import sys
from pathlib import Path
from pipelines.environment import prepare_environment
prepare_environment()
from pipelines.distributed.ray_executor import RayExecutor
from pipelines.params import load
from pipelines.stages import train
from pipelines.stages.base import NullTracker
root, data, folder, *changes = sys.argv[1:]
params = load(Path(root) / "params.yaml").select(
    "crystals", "demo", dataset="own", estimator="exact", seed=3, changes=changes
)
folder = Path(folder)
train.run(params, {"data": Path(data)}, {"model": folder / "model", "running": folder / "running"},
          executor=RayExecutor(num_cpus=2, resize_seconds=2), tracker=NullTracker())
"""


def start(
    data: Path, folder: Path, changes: list[str], address: str = ""
) -> "subprocess.Popen[bytes]":
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": address}
    with (folder / "driver.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(ROOT), str(data), str(folder), *changes],
            cwd=folder, env=environment, stdout=log, stderr=log,
        )  # fmt: skip


def said(folder: Path) -> str:
    return (folder / "driver.log").read_text()[-3000:]


def records(history: Path) -> list[dict[str, Any]]:
    lines = history.read_text().split("\n")[:-1] if history.is_file() else []
    found = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in found]


def wait_for(steps: int, folder: Path, driver: "subprocess.Popen[bytes]", what: str) -> None:
    """Until the history has records of so many steps."""
    wait_until(
        lambda: len(records(folder / "running/history.jsonl")) >= steps, folder, driver, what
    )


def wait_until(
    holds: Callable[[], bool], folder: Path, driver: "subprocess.Popen[bytes]", what: str
) -> None:
    limit = time.monotonic() + 900
    while not holds():
        assert driver.poll() is None, f"ended before {what}: {said(folder)}"
        assert time.monotonic() < limit, f"no {what}: {said(folder)}"
        time.sleep(0.01)


def assert_same_training(found: Path, expected: Path) -> None:
    """Two model folders: the loss of every step, and the weights."""
    ours, theirs = records(found / "history.jsonl"), records(expected / "history.jsonl")
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for row, other in zip(ours, theirs, strict=True):
        if row["kind"] == "train":
            assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
    weights = load_file(found / "model.safetensors")
    for name, value in load_file(expected / "model.safetensors").items():
        difference = (weights[name] - value).abs().max()
        assert difference <= TOLERANCE * max(1.0, float(value.abs().max())), name
    assert torch.isfinite(torch.cat([value.flatten() for value in weights.values()])).all()


def test_two_nodes_train_as_one_does_and_survive_the_loss_of_one(
    tmp_path: Path, prepared_crystals: Path, nodes: Any
) -> None:
    one = start(prepared_crystals, tmp_path / "one", FIXED)
    assert one.wait(1200) == 0, said(tmp_path / "one")

    nodes.join()
    nodes.join()
    folder = tmp_path / "two"
    driver = start(prepared_crystals, folder, FIXED, nodes.address)
    try:
        wait_for(80, folder, driver, "step 80")
        # the raylet dies with its worker, and a node joins in its place
        nodes.kill(1)
        reached = records(folder / "running/history.jsonl")[-1]["step"]
        assert reached < STEPS - 100
        nodes.join()
        assert driver.wait(1200) == 0, said(folder)
    finally:
        driver.kill()
    shown = (folder / "driver.log").read_text()
    assert shown.count(f"step 1/{STEPS} ") == 1, "the training started over"
    assert_same_training(folder / "model", tmp_path / "one/model")


def test_a_training_grows_with_a_node_that_joins_and_goes_on_without_one_that_leaves(
    tmp_path: Path, prepared_crystals: Path, nodes: Any
) -> None:
    """1 worker, then 2, then 1: the run of its seed all along, as one process computes it."""
    quiet = {"model": tmp_path / "quiet/model", "running": tmp_path / "quiet/running"}
    params = load(ROOT / "params.yaml").select(
        "crystals", "demo", dataset="own", estimator="exact", seed=3, changes=ELASTIC
    )
    train.run(
        params, {"data": prepared_crystals}, quiet, executor=LocalExecutor(), tracker=NullTracker()
    )

    nodes.join()
    folder = tmp_path / "elastic"
    driver = start(prepared_crystals, folder, ELASTIC, nodes.address)

    def sizes() -> list[int]:
        """Workers of the training each time that it began or went on."""
        lines = (folder / "driver.log").read_text().splitlines()
        return [int(line.split()[2]) for line in lines if line.startswith("training on ")]

    try:
        wait_for(40, folder, driver, "step 40")
        assert sizes() == [1]
        nodes.join()
        wait_until(lambda: sizes()[-1] == 2, folder, driver, "second worker")
        step = records(folder / "running/history.jsonl")[-1]["step"]
        wait_for(step + 30, folder, driver, "30 steps of two workers")
        nodes.kill(0)
        wait_until(lambda: sizes()[-1] == 1, folder, driver, "training without the lost node")
        assert records(folder / "running/history.jsonl")[-1]["step"] < LONG
        assert driver.wait(1200) == 0, said(folder)
    finally:
        driver.kill()
    assert sizes() == [1, 2, 1]
    assert_same_training(folder / "model", quiet["model"])
