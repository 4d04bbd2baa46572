"""What Prefect, DVC, MLflow and Ray add to a training run: seconds once, and per step.

One training (`demo` network, built-in data) in a clone of the repository, with few and with many
steps, in turn: `bare` is the stage as a command, its loop in the process and no record; `whole` is
the Prefect flow, which starts `dvc repro`, whose stage starts Ray and writes to MLflow. A line
through both step counts separates what is paid once from what each step pays. Bars: 60 s, 10 %.
Writes results/overhead_cpu.json.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml
from record import hardware, write

ROOT = Path(__file__).parents[1]
RUN = "demo-prototypes-exact-0"
STAGE = ["train", "crystals", "--preset", "demo", "--dataset", "prototypes", "--estimator", "exact"]
FLOW = (
    "from pipelines.environment import prepare_environment; prepare_environment();"
    " from pipelines.flows.training import train;"
    " train('crystals', 'demo', dataset='prototypes', estimator='exact')"
)
COMMANDS = {
    "bare": [sys.executable, "-m", "pipelines", *STAGE],
    "whole": [sys.executable, "-c", FLOW],
}
PLAIN = {"ORBITDIFF_EXECUTOR": "local", "ORBITDIFF_TRACKER": "none"}


def run(command: list[str], folder: Path, **more: str) -> float:
    """Seconds of a command in the clone."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder), **more}
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    return time.perf_counter() - start


def clone(folder: Path) -> None:
    """The committed repository, its data prepared, its package the one that runs."""
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(folder)], check=True)
    for stage in ("fetch@prototypes", "prepare@prototypes"):
        run([sys.executable, "-m", "dvc", "repro", "--single-item", stage], folder, **PLAIN)


def set_steps(folder: Path, steps: int) -> None:
    """Make the preset train so many steps, with the checkpoint at the end alone."""
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["crystals"]["demo"]["train"] |= {
        "steps": steps, "num_workers": 1, "checkpoint_every": steps, "validate_every": steps,
        "snapshot_every": 0, "log_every": 50,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def forget(folder: Path) -> None:
    """Remove what an earlier run left, so that the next one trains from the start."""
    for name in (f".runs/{RUN}", f"models/{RUN}", ".dvc/cache/runs"):
        shutil.rmtree(folder / name, ignore_errors=True)
    run(["git", "checkout", "-q", "dvc.lock"], folder)
    run([sys.executable, "-m", "dvc", "commit", "-q", "-f", "prepare@prototypes"], folder)


def loop_seconds(folder: Path, steps: int) -> float:
    """Seconds of all steps by the loop's own clock."""
    lines = (folder / "models" / RUN / "history.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if record["kind"] == "train"]
    return steps * statistics.mean(record["step_seconds"] for record in records)


def measure(folder: Path, counts: tuple[int, int], repeats: int) -> dict[str, object]:
    """Seconds of both commands at both step counts, in turn; the line through their medians."""
    wall: dict[str, dict[int, list[float]]] = {
        name: {steps: [] for steps in counts} for name in COMMANDS
    }
    loop: dict[str, dict[int, list[float]]] = {
        name: {steps: [] for steps in counts} for name in COMMANDS
    }
    for repeat in range(repeats):
        for steps in counts:
            set_steps(folder, steps)
            for name, command in COMMANDS.items():
                forget(folder)
                seconds = run(command, folder, **(PLAIN if name == "bare" else {}))
                wall[name][steps].append(seconds)
                loop[name][steps].append(loop_seconds(folder, steps))
                print(f"{repeat + 1}/{repeats} {name}, {steps} steps: {seconds:.1f} s", flush=True)
    few, many = counts
    middle = {
        name: {steps: statistics.median(each) for steps, each in found.items()}
        for name, found in wall.items()
    }
    slope = {name: (found[many] - found[few]) / (many - few) for name, found in middle.items()}
    once = {name: found[few] - few * slope[name] for name, found in middle.items()}
    return {
        "seconds": wall,
        "loop_seconds": loop,
        "ms_per_step": {name: round(1e3 * value, 2) for name, value in slope.items()},
        "seconds_once": {name: round(value, 2) for name, value in once.items()},
        "added_once_s": round(once["whole"] - once["bare"], 2),
        "added_per_step_percent": round(100 * (slope["whole"] / slope["bare"] - 1), 1),
        "once_beside_the_loop_s": round(
            middle["whole"][few] - statistics.median(loop["whole"][few]), 2
        ),
    }


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs=2, default=(400, 2000))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    about = hardware(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "clone"
        clone(folder)
        found = measure(folder, tuple(options.steps), options.repeats)
    result = {
        "what": __doc__.split("\n", maxsplit=1)[0],
        "bars": {"once_s": 60, "per_step_percent": 10},
        **about,
        "config": {"run": RUN, "steps": list(options.steps), "repeats": options.repeats},
        **found,
    }
    write("overhead_cpu", result)


if __name__ == "__main__":
    main()
