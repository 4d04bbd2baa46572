"""Cost of training through Ray Train: one Ray worker against the plain loop, `cpu` size.

The same training (network, data, steps, seed) runs in turn in this process and under Ray with one
worker; the time per step is the one that the loop records, start-up and validation left out, and
the final weights are compared bit for bit. Bar: 10 %. Writes results/ray_cpu.json.
"""

import argparse
import json
import os
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from record import hardware, write
from safetensors.torch import load_file

from pipelines.distributed.ray_executor import RayExecutor
from pipelines.params import load
from pipelines.stages import fetch
from pipelines.stages.base import Executor, LocalExecutor, NullTracker
from pipelines.stages.crystals import prepare
from pipelines.stages.train import training_loop


def prepared(folder: Path) -> Path:
    params = load().select("crystals", "demo", dataset="prototypes", estimator="plain", seed=0)
    raw, data = folder / "raw", folder / "data"
    parts = {"executor": LocalExecutor(), "tracker": NullTracker()}
    fetch.run(params, {}, {"raw": raw}, **parts)
    prepare.run(params, {"raw": raw}, {"data": data}, **parts)
    return data


def step_seconds(executor: Executor, data: Path, folder: Path, steps: int) -> list[float]:
    """Seconds per step of each stretch of 50 steps, the first left out."""
    params = load().select("crystals", "cpu", dataset="prototypes", estimator="exact", seed=0)
    numbers = replace(
        params.settings.train, steps=steps, log_every=50, validate_every=steps, num_workers=1,
        checkpoint_every=steps, snapshot_every=0,
    )  # fmt: skip
    config = {
        "settings": replace(params.settings, train=numbers),
        "task": params.task,
        "arm": params.arm,
        "train": params.train_config,
        "start": None,
        "data": str(data),
        "running": str(folder),
        "seed": 0,
        "about": {},
    }
    folder.mkdir()
    executor.fit(training_loop, config, name="fit", storage=folder, num_workers=1)
    records = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [record["step_seconds"] for record in records if record["kind"] == "train"][1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    state = hardware(torch.device("cpu"))
    arms: dict[str, Executor] = {"plain_loop": LocalExecutor(), "one_ray_worker": RayExecutor()}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = prepared(root)
        for repeat in range(arguments.repeats):
            for arm, executor in arms.items():
                folder = root / f"{arm}-{repeat}"
                seconds[arm] += step_seconds(executor, data, folder, arguments.steps)
        weights = [load_file(root / f"{arm}-0" / "final" / "model.safetensors") for arm in arms]
    same = all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    median = {arm: 1e3 * statistics.median(values) for arm, values in seconds.items()}
    least = {arm: 1e3 * min(values) for arm, values in seconds.items()}
    content = {
        "what": __doc__.splitlines()[0],
        "bar_percent": 10.0,
        **state,
        "size": "cpu",
        "config": vars(arguments),
        "median_ms_per_step": {arm: round(value, 2) for arm, value in median.items()},
        "min_ms_per_step": {arm: round(value, 2) for arm, value in least.items()},
        "ray_adds_percent": {
            "median": round(100 * (median["one_ray_worker"] / median["plain_loop"] - 1), 1),
            "min": round(100 * (least["one_ray_worker"] / least["plain_loop"] - 1), 1),
        },
        "same_weights_bit_for_bit": same,
    }
    write("ray_cpu", content)


if __name__ == "__main__":
    main()
