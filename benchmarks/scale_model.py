"""From 2 cores to 512 GPUs on paper: the tables of docs/scale.md, computed.

    python benchmarks/scale_model.py                          # print them
    python benchmarks/scale_model.py --write docs/scale.md    # put them where the page marks them

Costs of a step come from the real modules (`scale_counts`), times from results/nodes_cpu.json
(`bench_nodes.py`) and from the hardware that `scale_cluster` assumes.
"""

import argparse
import dataclasses
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

from record import RESULTS
from scale_cluster import (
    GPU,
    Cluster,
    Link,
    Measured,
    Parts,
    all_reduce,
    buckets,
    gpu_seconds,
    step,
)
from scale_counts import Cost, Workload, count, workloads

from pipelines.environment import SETTINGS

__all__ = ["TABLES", "fill", "limit_of", "main"]

WORKERS = (1, 8, 64, 512)
GPU_CLUSTER = Cluster(
    per_node=8, inner=Link(3e-6, 0.7 * 450e9), outer=Link(8e-6, 0.8 * 50e9), overlap=True,
    tree=True, jitter=0.02,
)  # fmt: skip
ETHERNET = Cluster(
    per_node=1, inner=Link(0.0, math.inf), outer=Link(60e-6, 0.9 * 1.25e9), overlap=False,
    tree=False, jitter=0.02,
)  # fmt: skip
HALF = 0.5  # efficiency below which a part is said to break the scaling
FAILURES = 50_000.0  # GPU hours between two failures


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def digits(value: float, figures: int = 3) -> str:
    """Round to some figures, with thousands separated."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = max(0, figures - 1 - math.floor(math.log10(abs(value))))
    return f"{round(value, places):,.{places}f}"


def task_of(work: Workload) -> str:
    return work.name.split()[0]


def gpu_step(work: Workload, cost: Cost, batch: float, workers: int, measured: Measured) -> Parts:
    """Step of a worker with `batch` samples on a GPU, its batch built by the host before it."""
    host = batch * measured.host_seconds(task_of(work))
    compute = gpu_seconds(cost, batch, GPU())
    return step(cost, compute, workers, GPU_CLUSTER, input_seconds=host)


def cost_table(measured: Measured) -> str:
    """What one step is made of."""
    head = ["workload", "parameters", "batch", "GFLOP per sample", "TFLOP per step",
            "GB moved per step", "FLOP per byte", "kernels", "gradients MB",
            "kept for backward, MB per sample", "largest batch in 80 GB"]  # fmt: skip
    rows = []
    for work in workloads():
        cost, batch = count(work), work.batch
        flops, moved = cost.flops_at(batch).sum(), cost.bytes_at(batch).sum()
        state = 20 * cost.num_parameters  # weights, gradients, two moments, averaged weights
        most = (GPU().capacity - state) / cost.saved_per_sample
        rows.append(
            [work.name, f"{cost.num_parameters:,}", str(batch), digits(cost.flops[1].sum() / 1e9),
             digits(flops / 1e12), digits(moved / 1e9), digits(flops / moved, 2),
             f"{len(cost.stage):,}", digits(4 * cost.num_parameters / 1e6),
             digits(cost.saved_per_sample / 1e6), digits(most, 2)]
        )  # fmt: skip
    return table(head, rows)


def measured_table(measured: Measured) -> str:
    """Measured and predicted steps of the layouts on one machine."""
    head = ["nodes x workers", "batch per worker", "measured ms", "predicted ms", "error",
            "compute ms", "all-reduce ms", "waiting ms"]  # fmt: skip
    rows, cost = [], count(workloads()[0])
    for layout, ms in measured.content["points_ms"].items():
        nodes, each = map(int, layout.split("x"))
        parts = measured.predict(nodes, nodes * each, cost)
        found = 1e3 * parts.total
        rows.append(
            [layout, str(measured.content["batch"] // (nodes * each)), digits(ms), digits(found),
             f"{100 * (found / ms - 1):+.0f} %", digits(1e3 * parts.compute),
             digits(1e3 * parts.exchange, 2), digits(1e3 * parts.waiting, 2)]
        )  # fmt: skip
    return table(head, rows)


def ethernet_table(measured: Measured) -> str:
    """CPU nodes with one worker each on 10 Gb Ethernet: the preset's batch, and as much each."""
    work = workloads()[0]
    cost, batch = count(work), measured.content["batch"]
    head = ["nodes", "same batch: ms per step", "speed-up", "batch of each node kept: ms per step",
            "efficiency"]  # fmt: skip
    rows, single = [], measured.seconds(batch)
    for nodes in (1, 2, 4, 8, 16, 32, 64):
        strong, weak = (
            step(cost, (measured.seconds(b), 0.0), nodes, ETHERNET).total
            for b in (batch / nodes, batch)
        )
        rows.append([str(nodes), digits(1e3 * strong), digits(single / strong, 2),
                     digits(1e3 * weak), f"{100 * single / weak:.0f} %"])  # fmt: skip
    return table(head, rows)


def limit_of(parts: Parts, single: Parts, share: float) -> str:
    """Part that costs most against `share` of the step of one worker."""
    extra = {
        "batches built by the host": parts.input - share * single.input,
        "kernel launches and kernels too small": parts.compute - share * single.compute,
        "all-reduce": parts.exchange,
        "slowest worker": parts.waiting,
    }
    return max(extra, key=lambda name: extra[name])


def gpu_table(measured: Measured, *, strong: bool) -> str:
    """Step and efficiency on 1 to 512 GPUs, and what costs most once half is lost, or at 512."""
    names = [f"{w} GPU{'s' * (w > 1)}" for w in WORKERS]
    rows = []
    for work in workloads():
        cost, single = count(work), gpu_step(work, count(work), work.batch, 1, measured)
        cells, half, why = dict.fromkeys(WORKERS, "-"), "-", ""
        for workers in (2**k for k in range(10)):
            share = 1 / workers if strong else 1.0
            if work.batch * share < 1:
                why = why or "less than one sample per worker"
                break
            parts = gpu_step(work, cost, work.batch * share, workers, measured)
            efficiency = share * single.total / parts.total
            if workers in WORKERS:
                cells[workers] = f"{digits(1e3 * parts.total)} ms, {100 * efficiency:.0f} %"
            if half == "-" and efficiency < HALF:
                half, why = str(workers), limit_of(parts, single, share)
            elif workers == WORKERS[-1]:
                why = why or limit_of(parts, single, share)
        rows.append([work.name, *cells.values(), half, why])
    return table(["workload", *names, "below half at", "largest extra cost"], rows)


def device_table(measured: Measured) -> str:
    """One GPU: time of its kernels, time to start them, and the batch's own time on the host."""
    head = ["workload", "device ms", "launches ms", "batch on the host ms", "TFLOP/s reached"]
    rows = []
    for work in workloads():
        cost, gpu = count(work), GPU()
        parts = gpu_step(work, cost, work.batch, 1, measured)
        device, _ = gpu_seconds(cost, work.batch, dataclasses.replace(gpu, launch=0.0))
        rate = cost.flops_at(work.batch).sum() / parts.total
        rows.append([work.name, digits(1e3 * device), digits(1e3 * gpu.launch * len(cost.stage)),
                     digits(1e3 * parts.input, 2), digits(rate / 1e12)])  # fmt: skip
    return table(head, rows)


def exchange_table(measured: Measured) -> str:
    """Gradients at the preset's batch on each GPU: all-reduce, what is not hidden, bandwidth."""
    columns = [f"{w} GPUs: all-reduce ms, not hidden, GB/s per GPU" for w in WORKERS[1:]]
    head = ["workload", "gradients MB", "buckets", *columns]
    rows = []
    for work in workloads():
        cost = count(work)
        sizes, cells = buckets(cost.parameters), []
        for workers in WORKERS[1:]:
            parts = gpu_step(work, cost, work.batch, workers, measured)
            whole = sum(all_reduce(size, workers, GPU_CLUSTER) for size in sizes)
            rate = 2 * (1 - 1 / workers) * sum(sizes) / parts.total / 1e9
            cells.append(
                f"{digits(1e3 * whole, 2)}, {digits(1e3 * parts.exchange, 2)}, {digits(rate, 2)}"
            )
        rows.append([work.name, digits(sum(sizes) / 1e6), str(len(sizes)), *cells])
    return table(head, rows)


def input_table(measured: Measured) -> str:
    """What feeding the devices takes at the preset's batch on each."""
    head = ["workload", "samples/s per GPU", "MB/s to the device", "kB per sample",
            "host us per sample", "host share of the step", "GB in a worker per million samples",
            "TB read at the start by 512 workers"]  # fmt: skip
    rows = []
    for work in workloads():
        cost = count(work)
        parts = gpu_step(work, cost, work.batch, 1, measured)
        rate = work.batch / parts.total
        rows.append(
            [work.name, digits(rate), digits(rate * cost.input_per_sample / 1e6, 2),
             digits(cost.input_per_sample / 1e3), digits(1e6 * parts.input / work.batch, 2),
             f"{100 * parts.input / parts.total:.0f} %", digits(cost.input_per_sample / 1e3, 2),
             digits(WORKERS[-1] * cost.input_per_sample / 1e6, 2)]
        )  # fmt: skip
    return table(head, rows)


def checkpoint_table(measured: Measured) -> str:
    """Cost of checkpoints on one GPU, and the interval that loses least on 512."""
    head = ["workload", "checkpoint MB", "seconds", "every, steps", "share of the time",
            "best interval on 512 GPUs, steps", "training on one GPU, hours"]  # fmt: skip
    rows = []
    for work in workloads():
        cost = count(work)
        seconds = cost.checkpoint / measured.disk
        single = gpu_step(work, cost, work.batch, 1, measured).total
        wide = gpu_step(work, cost, work.batch, WORKERS[-1], measured).total
        between = FAILURES * 3600 / WORKERS[-1]
        share = seconds / (seconds + work.checkpoint_every * single)
        rows.append(
            [work.name, digits(cost.checkpoint / 1e6), digits(seconds, 2),
             f"{work.checkpoint_every:,}", f"{100 * share:.1f} %",
             digits(math.sqrt(2 * seconds * between) / wide, 2),
             digits(work.steps * single / 3600, 2)]
        )  # fmt: skip
    return table(head, rows)


def control_table(measured: Measured) -> str:
    """Calls that the controller of Ray Train makes to ask its workers whether they live."""
    interval = float(SETTINGS["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"])
    head = ["workers", "health checks per second", "at 2 s instead"]
    return table(head, [[str(w), digits(w / interval), digits(w / 2)] for w in WORKERS])


def assumption_table(measured: Measured) -> str:
    """Hardware of the predictions."""
    rows = [["H100 SXM", name, f"{value:.3g}"] for name, value in dataclasses.asdict(GPU()).items()]
    for name, cluster in (("GPU nodes", GPU_CLUSTER), ("10 Gb Ethernet", ETHERNET)):
        for key, value in dataclasses.asdict(cluster).items():
            shown = value.values() if isinstance(value, dict) else [value]
            rows.append([name, key, ", ".join(f"{x:.3g}" for x in map(float, shown))])
    return table(["what", "field", "value (s, bytes/s, operations/s)"], rows)


TABLES = {
    "costs": cost_table,
    "measured": measured_table,
    "ethernet": ethernet_table,
    "device": device_table,
    "strong": lambda measured: gpu_table(measured, strong=True),
    "weak": lambda measured: gpu_table(measured, strong=False),
    "exchange": exchange_table,
    "input": input_table,
    "checkpoints": checkpoint_table,
    "control": control_table,
    "assumptions": assumption_table,
}


def fill(page: str, measured: Measured) -> str:
    """Return the page with a table behind each `<!-- table NAME -->`, up to `<!-- end -->`."""

    def put(found: re.Match[str]) -> str:
        return f"<!-- table {found[1]} -->\n{TABLES[found[1]](measured)}\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", put, page, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measured", type=Path, default=RESULTS / "nodes_cpu.json")
    parser.add_argument("--write", type=Path, help="page whose tables are replaced")
    arguments = parser.parse_args()
    measured = Measured(json.loads(arguments.measured.read_text()))
    if arguments.write:
        arguments.write.write_text(fill(arguments.write.read_text(), measured))
        return
    for name, make in TABLES.items():
        print(f"\n## {name}: {make.__doc__ or gpu_table.__doc__}\n\n{make(measured)}")


if __name__ == "__main__":
    main()
