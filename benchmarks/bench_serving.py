"""The demo crystals model behind `mlflow models serve`: 200 requests at once, then 4 clients.

Each request asks for one structure of NaCl with a seed of its own. Median and 99th percentile of
the seconds until the answer, requests per second, failures, and memory of the server over time.
Beside them, the same draws in this process, one after the other: what the network itself takes.
Writes results/serving_cpu.json.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import torch
from record import hardware, write

from orbitdiff.inference.crystals import generate_crystals
from orbitdiff.inference.demo import demo_checkpoint
from pipelines.environment import prepare_environment
from pipelines.tracking.mlflow_tracker import MLflowTracker


@contextmanager
def server(folder: Path, timeout: int) -> Iterator[tuple[str, psutil.Process]]:
    """Register the demo model and serve it on loopback; address and process."""
    with MLflowTracker().run("demo", experiment="crystals", params={}, tags={}) as run:
        run.model(demo_checkpoint("crystals"), name="orbitdiff-crystals")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri",
         "models:/orbitdiff-crystals@newest", "--env-manager", "local", "--host", "127.0.0.1",
         "--port", str(port), "--workers", "1", "--timeout", str(timeout)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd=folder,
        env={**os.environ, "PATH": path},
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"{address}/ping", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield address, psutil.Process(process.pid)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask(address: str, seed: int) -> float:
    """Seconds of one request; minus one where it failed."""
    table = {"dataframe_split": {"columns": ["formula", "seed"], "data": [["NaCl", seed]]}}
    asked = urllib.request.Request(
        f"{address}/invocations", json.dumps(table).encode(), {"Content-Type": "application/json"}
    )
    start = time.perf_counter()
    try:
        with urllib.request.urlopen(asked, timeout=3600) as answer:
            whole = "data_" in json.loads(answer.read())["predictions"][0]["cif"]
    except (OSError, ValueError, KeyError):
        return -1.0
    return time.perf_counter() - start if whole else -1.0


def memory_mb(process: psutil.Process) -> float:
    """Resident memory of the server and what it started."""
    family = [process, *process.children(recursive=True)]
    return round(sum(one.memory_info().rss for one in family) / 2**20, 1)


def figures(seconds: Sequence[float], wall: float) -> dict[str, Any]:
    """Median, 99th percentile and rate of the answers, and failures."""
    good = sorted(x for x in seconds if x >= 0)
    return {
        "requests": len(seconds),
        "failed": len(seconds) - len(good),
        "median_seconds": round(statistics.median(good), 4),
        "p99_seconds": round(good[min(len(good) - 1, int(0.99 * len(good)))], 4),
        "per_second": round(len(good) / wall, 2),
    }


def burst(address: str, number: int) -> dict[str, Any]:
    """All requests at once."""
    start = time.perf_counter()
    with ThreadPoolExecutor(number) as pool:
        seconds = list(pool.map(lambda seed: ask(address, seed), range(number)))
    return figures(seconds, time.perf_counter() - start)


def steady(address: str, process: psutil.Process, clients: int, duration: float) -> dict[str, Any]:
    """Clients that ask again as soon as they have their answer, and memory meanwhile."""
    seeds, seconds, memory = count(), [], [memory_mb(process)]
    start = time.perf_counter()

    def client() -> None:
        while time.perf_counter() < start + duration:
            seconds.append(ask(address, next(seeds)))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(duration / 12)
        memory.append(memory_mb(process))
    found = figures(seconds, time.perf_counter() - start)
    return {"clients": clients, **found, "memory_mb": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--timeout", type=int, default=900, help="of a request; MLflow's is 60")
    arguments = parser.parse_args()
    prepare_environment()
    torch.set_num_threads(1)
    state, seconds, used = hardware(torch.device("cpu")), [], []
    for seed in range(22):
        start, spent = time.perf_counter(), time.process_time()
        generate_crystals("NaCl", 1, seed=seed)
        seconds.append(time.perf_counter() - start)
        used.append(time.process_time() - spent)
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{name}/mlflow.db"
        with server(Path(name), arguments.timeout) as (address, process):
            for seed in range(3):
                ask(address, seed)
            together = burst(address, arguments.requests)
            kept = steady(address, process, arguments.clients, arguments.seconds)
        os.chdir("/")
    write(
        "serving_cpu",
        {
            "what": __doc__.splitlines()[0],
            **state,
            "config": vars(arguments),
            "in_process_seconds": round(statistics.median(seconds[2:]), 4),
            "in_process_cpu_seconds": round(statistics.median(used[2:]), 4),
            "at_once": together,
            "steady": kept,
        },
    )


if __name__ == "__main__":
    main()
