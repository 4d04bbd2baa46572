"""Raylets as separate processes: two nodes train as one does; a node is killed, another joins."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray")
pytest.importorskip("pymatgen")

import torch
from pymatgen.core import Lattice, Structure
from safetensors.torch import load_file

from pipelines.environment import prepare_environment
from pipelines.stages.base import LocalExecutor
from pipelines.stages.crystals.prepare import prepare_own

prepare_environment()

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(2400)]
ROOT = Path(__file__).parents[2]
STEPS = 400
TOLERANCE = 1e-6
"""Of weights, relative to their largest: the gradients of two workers are summed over another way."""
CHANGES = [
    f"train={{steps: {STEPS}, batch_size: 8, num_workers: 2, warmup: 5,"
    " checkpoint_every: 20, validate_every: 200, log_every: 1}",
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
root, data, folder, *changes = sys.argv[1:]
params = load(Path(root) / "params.yaml").select(
    "crystals", "demo", dataset="own", estimator="exact", seed=3, changes=changes
)
folder = Path(folder)
train.run(params, {"data": Path(data)}, {"model": folder / "model", "running": folder / "running"},
          executor=RayExecutor(num_cpus=2), tracker=NullTracker())
"""


def write_data(folder: Path) -> Path:
    cifs = folder / "cifs"
    cifs.mkdir()
    for number in range(24):
        places = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
        crystal = Structure(Lattice.cubic(4 + 0.05 * number), ["Ba", "Ti", "O"], places)
        crystal.to(str(cifs / f"crystal-{number}.cif"))
    prepare_own(cifs, folder / "data", executor=LocalExecutor())
    return folder / "data"


def start(data: Path, folder: Path, address: str = "") -> "subprocess.Popen[bytes]":
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": address}
    with (folder / "driver.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(ROOT), str(data), str(folder), *CHANGES],
            cwd=folder, env=environment, stdout=log, stderr=log,
        )  # fmt: skip


def said(folder: Path) -> str:
    return (folder / "driver.log").read_text()[-3000:]


def records(history: Path) -> list[dict[str, Any]]:
    lines = history.read_text().split("\n")[:-1] if history.is_file() else []
    found = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in found]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that offers nothing: trainings land on the nodes that join it."""
    from ray.cluster_utils import Cluster

    # a raylet that waits for a core is not dead
    monkeypatch.setenv("RAY_health_check_period_ms", "1000")
    monkeypatch.setenv("RAY_health_check_timeout_ms", "20000")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "15")
    head = {"num_cpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    found = Cluster(initialize_head=True, connect=False, head_node_args=head)
    yield found
    found.shutdown()


def join(cluster: Any, number: int) -> Any:
    """A raylet with one CPU, an address and an object store of its own."""
    return cluster.add_node(
        num_cpus=1, object_store_memory=80 * 2**20, node_ip_address=f"127.0.0.{number}"
    )


def test_two_nodes_train_as_one_does_and_survive_the_loss_of_one(
    tmp_path: Path, cluster: Any
) -> None:
    data = write_data(tmp_path)
    one = start(data, tmp_path / "one")
    assert one.wait(1200) == 0, said(tmp_path / "one")

    nodes = [join(cluster, 2), join(cluster, 3)]
    cluster.wait_for_nodes()
    folder = tmp_path / "two"
    driver = start(data, folder, cluster.address)
    history = folder / "running/history.jsonl"
    try:
        limit = time.monotonic() + 900
        while len(records(history)) < 80:
            assert driver.poll() is None, said(folder)
            assert time.monotonic() < limit, said(folder)
            time.sleep(0.01)
        # the raylet dies with its worker, and a node joins in its place
        raylet = nodes[1].all_processes["raylet"][0].process
        os.kill(raylet.pid, signal.SIGKILL)
        reached = records(history)[-1]["step"]
        assert reached < STEPS - 100
        join(cluster, 4)
        assert driver.wait(1200) == 0, said(folder)
    finally:
        driver.kill()
    shown = (folder / "driver.log").read_text()
    assert shown.count(f"step 1/{STEPS} ") == 1, "the training started over"

    quiet, found = (
        records(tmp_path / "one/model/history.jsonl"),
        records(folder / "model/history.jsonl"),
    )
    assert [row["step"] for row in found] == [row["step"] for row in quiet]
    for row, expected in zip(found, quiet, strict=True):
        if row["kind"] == "train":
            assert row["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    weights = load_file(folder / "model/model.safetensors")
    for name, value in load_file(tmp_path / "one/model/model.safetensors").items():
        difference = (weights[name] - value).abs().max()
        assert difference <= TOLERANCE * max(1.0, float(value.abs().max())), name
    assert torch.isfinite(torch.cat([value.flatten() for value in weights.values()])).all()
