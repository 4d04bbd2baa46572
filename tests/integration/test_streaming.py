"""Shards that Ray Data reads ahead train the weights of a training that reads them itself."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")
pytest.importorskip("pymatgen")

import pyarrow.parquet as pq
from safetensors.torch import load_file

from orbitdiff.data.crystals import crystal_schema
from orbitdiff.data.store import write_shards
from pipelines.distributed.ray_executor import RayExecutor
from pipelines.distributed.shards import stream_tables
from pipelines.params import load
from pipelines.stages import train
from pipelines.stages.base import Executor, LocalExecutor, NullTracker

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[2]
STEPS = 300
CHANGES = [
    f"train={{steps: {STEPS}, batch_size: 4, num_workers: 1, warmup: 5, checkpoint_every: 20,"
    " validate_every: 150, log_every: 5, window: 2}",
    "model={hidden: 16, layers: 1, frequencies: 4, time_dim: 16}",
    "validation={num: 2, sigmas: [0.1, 0.3]}",
]


@pytest.fixture
def ray_ends() -> Any:
    import ray

    yield
    ray.shutdown()


def cut_up(data: Path) -> list[Path]:
    """Write the training set again, three rows to a file."""
    rows = pq.read_table(data / "train-00000.parquet").to_pylist()
    return write_shards(rows, data, schema=crystal_schema(), name="train", rows_per_shard=3)


def trained(folder: Path, data: Path, executor: Executor) -> dict[str, torch.Tensor]:
    params = load(ROOT / "params.yaml").select(
        "crystals", "demo", dataset="own", estimator="exact", seed=3, changes=CHANGES
    )
    outputs = {"model": folder / "model", "running": folder / "running"}
    train.run(params, {"data": data}, outputs, executor=executor, tracker=NullTracker())
    return load_file(folder / "model/model.safetensors")


def kill_worker(history: Path, killed: list[int]) -> None:
    """Kill the training process in the middle of the run."""
    limit = time.monotonic() + 300
    while not history.is_file() or history.read_text().count("\n") < STEPS // 10:
        if time.monotonic() > limit:
            return
        time.sleep(0.005)
    for process in psutil.Process().children(recursive=True):
        if "RayTrainWorker" in " ".join(process.cmdline()):
            process.kill()
            killed.append(history.read_text().count("\n"))


@pytest.mark.usefixtures("ray_ends")
def test_ray_data_gives_the_same_weights(tmp_path: Path, prepared_crystals: Path) -> None:
    """Also where the worker is killed, and another one reads on from its checkpoint."""
    files = cut_up(prepared_crystals)
    assert len(files) >= 5
    here = trained(tmp_path / "here", prepared_crystals, LocalExecutor())
    # the training worker holds the only CPU
    killed: list[int] = []
    history = tmp_path / "there/running/history.jsonl"
    threading.Thread(target=kill_worker, args=(history, killed), daemon=True).start()
    there = trained(tmp_path / "there", prepared_crystals, RayExecutor(num_cpus=1))
    assert len(killed) == 1
    assert killed[0] < STEPS // 5
    assert here.keys() == there.keys()
    for name, value in here.items():
        assert torch.equal(there[name], value), name


@pytest.mark.usefixtures("ray_ends")
def test_tables_come_in_the_order_of_their_files(prepared_crystals: Path) -> None:
    files = cut_up(prepared_crystals)
    RayExecutor(num_cpus=1)._connect()
    order = [files[number] for number in (3, 0, 4, 0, 1)] + files[::-1] * 15  # two Ray data sets
    for path, table in zip(order, stream_tables(order), strict=True):
        assert table["id"].to_pylist() == pq.read_table(path)["id"].to_pylist()
