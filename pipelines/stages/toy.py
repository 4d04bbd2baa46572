"""Toy experiment, Table 1 of the paper: trains all arms and seeds, writes table and figure."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orbitdiff.export import write_atomically, write_csv
from orbitdiff.metrics.comparison import paired, spread
from orbitdiff.tasks.toy import ToyConfig
from orbitdiff.tasks.toy_training import ToyResult, train_toy
from orbitdiff.viz.style import arm_label
from orbitdiff.viz.toy import toy_curves
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.provenance import recorded

__all__ = ["arm_rows", "run", "train_guarded", "write_results"]

METRICS = ("error", "w2", "late_error", "last_error", "last_w2")
BASELINE = "plain"
PUBLISHED = {
    "plain": ("9.05 ± 9.47", "1.150 ± 1.581"),
    "augmentation": ("9.50 ± 9.63", "0.853 ± 1.156"),
    "exact": ("0.37 ± 0.09", "0.004 ± 0.001"),
}
ORDER = {arm: index for index, arm in enumerate(PUBLISHED)}


def train_guarded(config: ToyConfig) -> ToyResult | str:
    """Train; return the message of an error instead of raising it (it may run far away)."""
    try:
        return train_toy(config)
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"


def arm_rows(members: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread of each arm over seeds, and the paired difference to plain.

    Parameters
    ----------
    members : sequence of {"arm", "seed", "error", "w2", ...}
    """
    arms: dict[str, dict[int, Mapping[str, Any]]] = {}
    for member in members:
        arms.setdefault(member["arm"], {})[member["seed"]] = member
    plain = arms.get(BASELINE, {})
    rows = []
    for arm in sorted(arms, key=lambda name: (name not in PUBLISHED, ORDER.get(name, 0))):
        seeds = arms[arm]
        row: dict[str, Any] = {"arm": arm}
        for metric in METRICS:
            row[metric] = spread([member[metric] for member in seeds.values()])
            both = [seed for seed in seeds if seed in plain]
            if arm != BASELINE and both:
                gaps = [seeds[seed][metric] - plain[seed][metric] for seed in both]
                row[f"{metric}_minus_plain"] = paired(gaps)
        rows.append(row)
    return rows


def write_results(
    config: ToyConfig, result: ToyResult, folder: Path, *, seconds: float | None = None
) -> dict[str, Any]:
    """Write metrics.json, per_run.csv, table.md and learning_curves.png.

    Parameters
    ----------
    config : ToyConfig
    result : ToyResult
    folder : Path
        Created if needed; files are replaced one by one.
    seconds : float, optional
        Wall time of training and evaluation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = arm_rows(result.members)
    metrics: dict[str, Any] = {
        "label": "error is mean |x - sign(x)|, which the paper labels 'RMSD'; lower is better",
        "arms": rows,
        "runs": result.members,
        "settings": asdict(config),
        "seconds": seconds,
    }
    write_atomically(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_csv(result.members, folder / "per_run.csv")
    write_atomically(folder / "table.md", table(config, rows))
    toy_curves(config.members, result.history, folder / "learning_curves.png")
    return metrics


def table(config: ToyConfig, rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown table: measured, published, paired differences."""
    lines = [
        f"Toy experiment, {config.steps} steps, {len(config.seeds)} seeds, {config.num_samples} "
        "samples. Error is mean |x - sign(x)| (the paper labels it 'RMSD'). Mean ± standard "
        "deviation over seeds; differences to plain are paired by seed, ± standard error. "
        f"'best': the checkpoint with the lowest error, one every {config.select_every} steps, "
        "as published (100000 steps, 3 seeds); 'late': mean of the checkpoints in the last tenth "
        "of training, no choice.",
        "",
        "| arm | best error ×1e-5 | published | best W2 ×1e-3 | published | late error ×1e-5 "
        "| best error − plain ×1e-5 | late error − plain ×1e-5 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        error, w2 = PUBLISHED.get(row["arm"], ("–", "–"))
        cells = [
            arm_label(row["arm"]),
            between(row["error"], 1e5), error, between(row["w2"], 1e3), w2,
            between(row["late_error"], 1e5),
            between(row.get("error_minus_plain"), 1e5),
            between(row.get("late_error_minus_plain"), 1e5),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def between(value: Mapping[str, Any] | None, unit: float) -> str:
    """Mean and what follows ±, in a unit."""
    if value is None:
        return "–"
    plus = value.get("std", value.get("standard_error"))
    mean = f"{value['mean'] * unit:.3g}"
    return mean if plus is None else f"{mean} ± {plus * unit:.2g}"


def run(
    params: Any,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    executor: Executor,
    tracker: Tracker,
) -> None:
    """Train the stack of all arms and seeds as one item, write the results folder.

    Parameters
    ----------
    params : RunParams
        Its settings are a ToyConfig.
    inputs : mapping
        Empty: the data set is one number.
    outputs : {"results": Path}
    executor : Executor
    tracker : Tracker

    Raises
    ------
    RuntimeError
        Training failed; files of an earlier run are left as they were.
    """
    config: ToyConfig = params.settings
    start = time.perf_counter()
    (result,) = executor.map(train_guarded, [config], description="toy: all arms and seeds")
    if not isinstance(result, ToyResult):
        raise RuntimeError(f"toy training failed: {result}")
    seconds = round(time.perf_counter() - start, 1)
    folder = outputs["results"]
    metrics = write_results(config, result, folder, seconds=seconds)
    with recorded(tracker, params, "toy", name=params.preset) as record:
        for row in result.history:
            values = {
                f"{arm}/{seed}/{key}": row[key][index]
                for index, (arm, seed) in enumerate(config.members)
                for key in ("loss", "error")
            }
            record.metrics(values, step=row["step"])
        for row in metrics["arms"]:
            record.metrics({f"{row['arm']}/{name}": row[name]["mean"] for name in METRICS})
        record.artifact(folder)
    print((folder / "table.md").read_text())
