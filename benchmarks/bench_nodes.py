"""Training on one and two Ray nodes, and what a model of it needs: `cpu` size of the crystals.

Layouts are nodes x workers per node; each node is a raylet of its own with its own object store
(two on one machine, over loopback). The points are whole trainings through Ray Train with the same
global batch. Beside them, for `scale_model.py`, and without these points: steps of one worker at
several batch sizes, of two workers that exchange nothing, all-reduces, a checkpoint, batches built
by the data sets. Writes results/nodes_cpu.json.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bench_ray import prepared
from record import hardware, write
from scale_counts import datasets

from orbitdiff.tasks.base import build_task
from orbitdiff.training import checkpoint as store
from orbitdiff.training.history import History
from orbitdiff.training.loop import train
from orbitdiff.training.worker import LocalWorker, Worker
from pipelines.distributed.ray_executor import RayExecutor
from pipelines.environment import prepare_environment
from pipelines.params import load

LAYOUTS = {"1x1": (1,), "1x2": (2,), "2x1": (1, 1)}
SIZES = (4 * 2**10, 64 * 2**10, 2**20, 8 * 2**20)


@contextmanager
def cluster_of(cpus: tuple[int, ...]) -> Iterator[None]:
    """A Ray cluster with one raylet for each entry, on loopback."""
    prepare_environment()
    # a raylet that waits for a core must not be taken for dead
    os.environ.setdefault("RAY_health_check_failure_threshold", "60")
    import ray
    from ray.cluster_utils import Cluster

    about: dict[str, Any] = {"object_store_memory": 80 * 2**20}
    head = {"num_cpus": cpus[0], "include_dashboard": False, **about}
    cluster = Cluster(initialize_head=True, connect=False, head_node_args=head)
    try:
        for number, count in enumerate(cpus[1:], start=2):
            cluster.add_node(num_cpus=count, node_ip_address=f"127.0.0.{number}", **about)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def step_ms(worker: Worker, config: dict[str, Any], batch: int, folder: Path) -> list[float]:
    """Milliseconds per step of each stretch of a training, the first left out."""
    steps, settings = config["steps"], config["settings"]
    stretch = max(1, steps // 6)
    numbers = replace(
        settings.train, batch_size=batch, steps=steps, log_every=stretch, validate_every=steps,
        checkpoint_every=steps, snapshot_every=0, num_workers=1,
    )  # fmt: skip
    quick = replace(settings, validation=replace(settings.validation, num=4, sigmas=(0.1,)))
    task = build_task("crystals", quick, config["arm"], Path(config["data"]))
    history = History(folder / "history.jsonl")
    train(task, numbers, worker, seed=0, history=history, progress=False)
    if worker.rank:
        return []
    records = [json.loads(line) for line in history.path.read_text().splitlines()]
    return [1e3 * x["step_seconds"] for x in records if x["kind"] == "train"][1:]


def all_reduce_ms(size: int, repeats: int = 30) -> float:
    """Milliseconds of an all-reduce of `size` bytes over the workers."""
    value, seconds = torch.ones(size // 4), []
    for _ in range(repeats + 3):
        torch.distributed.barrier()
        start = time.perf_counter()
        torch.distributed.all_reduce(value)
        seconds.append(time.perf_counter() - start)
        value.fill_(1.0)
    return 1e3 * statistics.median(seconds[3:])


def probe(worker: Worker, config: dict[str, Any]) -> dict[str, Any]:
    """Measure one layout, all workers at once (runs under Ray Train)."""
    rank, folder = worker.rank, Path(config["folder"])
    found: dict[str, Any] = {"point": []}
    several = worker.world_size > 1
    batches = [config["batch"] // worker.world_size] if several else config["batches"]
    alone: dict[str, list[float]] = {str(batch): [] for batch in batches}
    for repeat in range(config["repeats"]):
        for batch in batches:
            if several:
                torch.distributed.barrier()
            place = folder / f"alone-{rank}-{batch}-{repeat}"
            alone[str(batch)] += step_ms(LocalWorker(place), config, batch, place)
    found["alone"] = {batch: statistics.median(times) for batch, times in alone.items()}
    if several:
        found["all_reduce"] = {str(size): all_reduce_ms(size) for size in SIZES}
    # last: a reported checkpoint would be where a second training resumes
    found["point"] = step_ms(worker, config, config["batch"], folder / f"point-{rank}")
    return found


def checkpoint_seconds(folder: Path, config: dict[str, Any]) -> dict[str, float]:
    """Bytes and seconds of a training checkpoint."""
    task = build_task("crystals", config["settings"], config["arm"], Path(config["data"]))
    network = task.build_denoiser(generator=torch.Generator().manual_seed(0))
    weights = network.state_dict()
    ema = {name: x.clone() for name, x in weights.items()}
    moments = [(torch.zeros_like(x), torch.zeros_like(x)) for x in network.parameters()]
    trainer = {"network": weights, "ema": ema, "optimiser": moments}
    seconds = []
    for repeat in range(5):
        target = folder / f"checkpoint-{repeat}"
        start = time.perf_counter()
        store.save(target, weights, {}, trainer=trainer)
        seconds.append(time.perf_counter() - start)
    size = sum(path.stat().st_size for path in target.iterdir())
    return {"bytes": size, "seconds": round(statistics.median(seconds), 4)}


def host_us(make: Callable[[int, int], Any], points: int, size: int = 128) -> float:
    """Microseconds per sample to build a batch."""
    data, seconds = make(size, points), []
    for _ in range(12):
        rows = torch.randperm(size)
        start = time.perf_counter()
        data.batch(rows)
        seconds.append(time.perf_counter() - start)
    return round(1e6 * statistics.median(seconds) / size, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    state, batch = hardware(torch.device("cpu")), arguments.batch
    run = load().select("crystals", "cpu", dataset="prototypes", estimator="exact", seed=0)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        config = {
            "settings": run.settings, "arm": run.arm, "data": str(prepared(root)), "batch": batch,
            "batches": [batch // 4, batch // 2, batch], "steps": arguments.steps,
            "repeats": arguments.repeats,
        }  # fmt: skip
        for layout, cpus in LAYOUTS.items():
            folder = root / layout
            with cluster_of(cpus):
                found[layout] = RayExecutor().fit(
                    probe, {**config, "folder": str(folder)}, name="fit", storage=folder,
                    num_workers=sum(cpus),
                )  # fmt: skip
            print(layout, json.dumps(found[layout]), flush=True)
        checkpoint = checkpoint_seconds(root, config)
    pairs = {layout: found[layout] for layout in ("1x2", "2x1")}
    points = {"crystals": 5, "conformers": 18, "backbones": 128}
    content = {
        "what": __doc__.splitlines()[0],
        **state,
        "size": "cpu",
        "config": vars(arguments),
        "batch": batch,
        "alone_ms": rounded(found["1x1"]["alone"]),
        "together_ms": {k: round(x["alone"][str(batch // 2)], 3) for k, x in pairs.items()},
        "all_reduce_ms": {layout: rounded(x["all_reduce"]) for layout, x in pairs.items()},
        "checkpoint": checkpoint,
        "host_us_per_sample": {k: host_us(make, points[k]) for k, make in datasets().items()},
        "points_ms": {k: round(statistics.median(x["point"]), 3) for k, x in found.items()},
    }
    write("nodes_cpu", content)


def rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


if __name__ == "__main__":
    main()
