"""What every result file of a benchmark says about where it was measured."""

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

__all__ = ["RESULTS", "hardware", "interleaved", "write"]

RESULTS = Path(__file__).parent / "results"


def hardware(device: torch.device) -> dict[str, Any]:
    """Processor, versions and threads."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    found = {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": [round(x, 2) for x in os.getloadavg()],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device.type,
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def interleaved(
    functions: Sequence[Callable[[], object]], *, repeats: int, device: torch.device
) -> list[list[float]]:
    """Seconds of each function, called in turn so that a busy machine slows all alike."""
    times: list[list[float]] = [[] for _ in functions]
    for repeat in range(repeats + 2):
        for function, seconds in zip(functions, times, strict=True):
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat >= 2:
                seconds.append(time.perf_counter() - start)
    return times


def write(name: str, content: dict[str, Any]) -> None:
    """Write results/NAME.json and print it."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(content, indent=2) + "\n"
    partial = RESULTS / f".{name}.partial"
    partial.write_text(text)
    os.replace(partial, RESULTS / f"{name}.json")
    print(text)
