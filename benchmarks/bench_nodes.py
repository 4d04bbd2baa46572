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
from collections.abc import Callable, Iterator, Mapping
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


class Unsaved:
    """A Ray worker whose trainings start anew and keep no checkpoint."""

    def __init__(self, worker: Worker) -> None:
        self.rank, self.world_size, self.device = worker.rank, worker.world_size, worker.device
        self.wrap, self.mean, self.shards = worker.wrap, worker.mean, worker.shards

    @contextmanager
    def restore(self) -> Iterator[None]:
        """Give no checkpoint."""
        yield None

    def report(self, metrics: Mapping[str, float], checkpoint: Path | None) -> None:
        """Keep nothing."""

    def say(self, line: str) -> None:
        """Show nothing."""


def step_ms(worker: Worker, config: dict[str, Any], batch: int, folder: Path) -> list[float]:
    """Milliseconds of each step of a training, the first ten left out."""
    steps, settings = config["steps"], config["settings"]
    numbers = replace(
        settings.train, batch_size=batch, steps=steps, log_every=1, validate_every=steps,
        checkpoint_every=steps, snapshot_every=0, num_workers=1,
    )  # fmt: skip
    quick = replace(settings, validation=replace(settings.validation, num=4, sigmas=(0.1,)))
    task = build_task("crystals", quick, config["arm"], Path(config["data"]))
    history = History(folder / "history.jsonl")
    train(task, numbers, worker, seed=0, history=history, progress=False)
    if worker.rank:
        return []
    records = [json.loads(line) for line in history.path.read_text().splitlines()]
    return [1e3 * x["step_seconds"] for x in records if x["kind"] == "train"][10:]


def all_reduce_ms(size: int, repeats: int = 30) -> float:
    """Milliseconds of an all-reduce of `size` bytes over the workers, median of the repeats."""
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
    rank, folder, batch = worker.rank, Path(config["folder"]), config["batch"]
    several = worker.world_size > 1
    alone = [batch // 2] if several else [batch // 4, batch // 2, batch]
    times: dict[str, list[float]] = {}
    for repeat in range(config["repeats"]):
        for size in alone:
            if several:
                torch.distributed.barrier()
            place = folder / f"alone-{rank}-{size}-{repeat}"
            found = step_ms(LocalWorker(place), config, size, place)
            times.setdefault(f"alone {size}", []).extend(found)
        place = folder / f"point-{rank}-{repeat}"
        times.setdefault("point", []).extend(step_ms(Unsaved(worker), config, batch, place))
    if several:
        for size in SIZES:
            times[f"all-reduce {size}"] = [all_reduce_ms(size)]
    return times


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
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    state, batch = hardware(torch.device("cpu")), arguments.batch
    run = load().select("crystals", "cpu", dataset="prototypes", estimator="exact", seed=0)
    times: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        config = {
            "settings": run.settings, "arm": run.arm, "data": str(prepared(root)), "batch": batch,
            "steps": arguments.steps, "repeats": arguments.repeats,
        }  # fmt: skip
        for layout, cpus in LAYOUTS.items():
            folder = root / layout
            with cluster_of(cpus):
                times[layout] = RayExecutor().fit(
                    probe, {**config, "folder": str(folder)}, name="fit", storage=folder,
                    num_workers=sum(cpus),
                )  # fmt: skip
        checkpoint = checkpoint_seconds(root, config)
    usual = {k: {name: typical(x) for name, x in found.items()} for k, found in times.items()}
    half = f"alone {batch // 2}"
    points = {"crystals": 5, "conformers": 18, "backbones": 128}
    content = {
        "what": __doc__.splitlines()[0],
        **state,
        "size": "cpu",
        "config": vars(arguments),
        "batch": batch,
        "alone_ms": by_size(usual["1x1"], "alone"),
        "together_ms": {layout: usual[layout][half] for layout in ("1x2", "2x1")},
        "jitter": {layout: jitter(times[layout][half]) for layout in ("1x2", "2x1")},
        "all_reduce_ms": {
            layout: by_size(usual[layout], "all-reduce") for layout in ("1x2", "2x1")
        },
        "checkpoint": checkpoint,
        "host_us_per_sample": {k: host_us(make, points[k]) for k, make in datasets().items()},
        "points_ms": {layout: found["point"] for layout, found in usual.items()},
    }
    write("nodes_cpu", content)


def typical(values: list[float]) -> float:
    """Median over the means of ten values at a time."""
    means = [statistics.fmean(values[i : i + 10]) for i in range(0, len(values), 10)]
    return round(statistics.median(means), 3)


def jitter(values: list[float]) -> float:
    """Standard deviation as a share of the median, from the median absolute deviation."""
    middle = statistics.median(values)
    return round(1.4826 * statistics.median(abs(x - middle) for x in values) / middle, 4)


def by_size(values: dict[str, float], kind: str) -> dict[str, float]:
    """Values of one kind by the number behind its name."""
    return {name.split()[1]: ms for name, ms in values.items() if name.split()[0] == kind}


if __name__ == "__main__":
    main()
