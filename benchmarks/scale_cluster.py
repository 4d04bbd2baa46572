"""Seconds of a data-parallel training step on a cluster, part by part.

A step is: build the batch on the host, compute, average gradients, wait for the slowest worker.
DistributedDataParallel sends gradients in buckets as backward fills them, last layer first; a
bucket starts when it is full and the one before it has arrived, so what lies beyond the end of
backward is paid for. Compute comes from a measured line (CPU) or from a roofline over the kernels
that `scale_counts` recorded (GPU). Assumptions of the hardware are fields of `Cluster` and `GPU`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from scale_counts import Cost

__all__ = [
    "GPU",
    "Cluster",
    "Link",
    "Measured",
    "Parts",
    "all_reduce",
    "buckets",
    "exposed",
    "gpu_seconds",
    "largest_of",
    "step",
]

FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20  # bytes, the defaults of DistributedDataParallel


@dataclass(frozen=True)
class Link:
    """Seconds of a message of n bytes between neighbours: latency + n / bandwidth."""

    latency: float
    bandwidth: float


@dataclass(frozen=True)
class GPU:
    """What one device and the process that feeds it can do; a share of the data sheet."""

    half: float = 0.5 * 989e12
    """bfloat16 operations per second (H100 SXM, dense)."""
    single: float = 0.7 * 67e12
    """float32 operations per second."""
    memory: float = 0.8 * 3.35e12
    """Bytes per second."""
    kernel: float = 4e-6
    """Shortest kernel."""
    launch: float = 8e-6
    """Time that Python and torch need to start a kernel."""
    capacity: float = 80e9
    """Bytes of memory."""


@dataclass(frozen=True)
class Cluster:
    """Workers of a node share `inner`, each worker has an `outer` link to other nodes."""

    per_node: int
    inner: Link
    outer: Link
    overlap: bool
    """Whether gradients travel while backward computes (a CPU worker's core does both)."""
    tree: bool
    """Latency grows with the logarithm of the nodes (NCCL) or with their number (Gloo's ring)."""
    jitter: float
    """Standard deviation of a worker's step, as a share of it."""


class Parts(NamedTuple):
    """Seconds of a step."""

    input: float
    compute: float
    exchange: float
    waiting: float

    @property
    def total(self) -> float:
        """The whole step."""
        return sum(self)


def all_reduce(size: float, workers: int, cluster: Cluster) -> float:
    """Seconds to average `size` bytes: ring in each node, then between nodes on equal shares."""
    local = min(workers, cluster.per_node)
    nodes = math.ceil(workers / cluster.per_node)
    hops = 2 * math.ceil(math.log2(nodes)) if cluster.tree else 2 * (nodes - 1)
    inner = 2 * (local - 1) * (cluster.inner.latency + size / local / cluster.inner.bandwidth)
    outer = 2 * (nodes - 1) / nodes * size / local / cluster.outer.bandwidth
    return inner + hops * cluster.outer.latency + outer


def buckets(parameters: Sequence[int], *, itemsize: int = 4) -> list[int]:
    """Bytes of each bucket of gradients, in the order in which backward fills them."""
    found, limit = [0], FIRST_BUCKET
    for number in reversed(parameters):
        if found[-1] >= limit:
            found.append(0)
            limit = BUCKET
        found[-1] += number * itemsize
    return found


def exposed(sizes: Sequence[float], backward: float, reduce: Callable[[float], float]) -> float:
    """Seconds between the end of backward and the arrival of the last bucket."""
    filled, end, total = 0.0, 0.0, sum(sizes)
    for size in sizes:
        filled += size
        end = max(end, backward * filled / total) + reduce(size)
    return end - backward


def gpu_seconds(cost: Cost, batch: float, gpu: GPU) -> tuple[float, float]:
    """Compute and its backward part: the slower of the device and of the host that feeds it."""
    peak = np.where(cost.half, gpu.half, gpu.single)
    device = np.maximum(cost.flops_at(batch) / peak, cost.bytes_at(batch) / gpu.memory)
    device = np.maximum(device, gpu.kernel)
    host = np.full_like(device, gpu.launch)
    backward = cost.stage == "backward"
    whole = max(device.sum(), host.sum())
    return float(whole), float(whole * device[backward].sum() / device.sum())


def largest_of(number: int) -> float:
    """Expected largest of some standard normal deviations (Blom's approximation)."""
    return NormalDist().inv_cdf((number - 0.375) / (number + 0.25))


def step(
    cost: Cost,
    compute: tuple[float, float],
    workers: int,
    cluster: Cluster,
    *,
    input_seconds: float = 0.0,
) -> Parts:
    """Seconds of a step whose worker computes for `compute` = (all, backward) seconds."""
    exchange = 0.0
    if workers > 1:
        sizes = buckets(cost.parameters)

        def reduce(size: float) -> float:
            return all_reduce(size, workers, cluster)

        exchange = exposed(sizes, compute[1] if cluster.overlap else 0.0, reduce)
        if cost.buffers:  # rank 0 sends them before each forward: half an empty all-reduce
            exchange += reduce(0) / 2
    waiting = compute[0] * cluster.jitter * largest_of(workers)
    return Parts(input_seconds, compute[0], exchange, waiting)


class Measured:
    """Lines through the measurements of `bench_nodes.py`; the points themselves are not used.

    Parameters
    ----------
    content : mapping
        results/nodes_cpu.json.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content
        alone = {int(size): ms / 1e3 for size, ms in content["alone_ms"].items()}
        self.fixed, self.per_sample = line(alone)
        share = content["batch"] // 2
        self.contention = {
            layout: ms / 1e3 / self.seconds(share) for layout, ms in content["together_ms"].items()
        }
        self.links = {
            layout: link({int(size): ms / 1e3 for size, ms in times.items()})
            for layout, times in content["all_reduce_ms"].items()
        }

    def seconds(self, batch: float) -> float:
        """Step of a worker that is alone on its machine."""
        return self.fixed + self.per_sample * batch

    def predict(self, nodes: int, workers: int, cost: Cost) -> Parts:
        """Step of a layout that was measured: one worker, or two on one or two nodes."""
        layout = f"{nodes}x{workers // nodes}"
        link = self.links.get(layout, Link(0.0, math.inf))
        slower = self.contention.get(layout, 1.0)
        compute = slower * self.seconds(self.content["batch"] / workers)
        jitter = self.content["jitter"].get(layout, 0.0)
        cluster = Cluster(workers // nodes, link, link, overlap=False, tree=False, jitter=jitter)
        return step(cost, (compute, 0.0), workers, cluster)

    @property
    def disk(self) -> float:
        """Bytes per second of a checkpoint: serialise, write, synchronise, hash."""
        found = self.content["checkpoint"]
        return float(found["bytes"] / found["seconds"])

    def host_seconds(self, task: str) -> float:
        """Time that the host needs to build one sample of a batch."""
        return float(self.content["host_us_per_sample"][task]) / 1e6


def line(points: Mapping[int, float]) -> tuple[float, float]:
    """Least squares y = a + b x with a and b of at least 0, relative errors counted."""
    x, y = np.array(list(points)), np.array(list(points.values()))
    design = np.stack([1 / y, x / y], 1)
    start, slope = np.linalg.lstsq(design, np.ones_like(y), rcond=None)[0]
    if start < 0:
        start, slope = 0.0, 1 / np.mean(x / y)
    if slope < 0:
        start, slope = 1 / np.mean(1 / y), 0.0
    return float(start), float(slope)


def link(points: Mapping[int, float]) -> Link:
    """Link between two workers: their all-reduce of n bytes takes 2 latency + n / bandwidth."""
    start, slope = line(points)
    return Link(start / 2, math.inf if slope == 0 else 1 / slope)
