"""Files of a diagnosis: json with everything, csv with one line per estimator and level."""

import dataclasses
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from orbitdiff import __version__
from orbitdiff.diagnosis.measure import REPEATS, LevelResult
from orbitdiff.diagnosis.problem import Problem
from orbitdiff.diagnosis.recommend import CLOSE, MUCH, SOME, WORTH, Recommendation
from orbitdiff.export import write_atomically, write_csv

__all__ = ["content_of", "flat_rows", "table", "write_files"]

DEFINITIONS = {
    "share": "E|T_plain - T*|^2 / E|T_plain|^2, T* the exact mean over the group: the share of the "
    "target's power that is symmetry noise",
    "error": "rms |T - T*| / rms |T_plain| on the same noised samples; 0 for T* itself",
    "worse_than_plain": "share of samples that are further from T* than T_plain is",
    "ess": "1 / sum of squared weights, of the worst axis where axes are weighed on their own: "
    "median and 10 % quantile over samples",
    "microseconds": f"per sample, least of {REPEATS} repeats, all estimators in turn",
    "weight": "share of training steps near a level, t uniform between the first and the last",
}
ESTIMATORS = {
    "plain": "no average: the target at x_0",
    "exact": "exact mean over the group",
    "rotations_alone": "exact mean over rotations, without automorphisms",
    "haar": "K uniform elements, the true one among them (unbiased)",
    "haar_without_true": "K uniform elements without the true one (biased)",
    "isir": "K elements around the posterior, the true one among them (unbiased)",
}


COLUMNS = {
    "plain": "plain",
    "rotations_alone": "rotations",
    "haar": "Haar",
    "haar_without_true": "no true",
    "isir": "i-SIR",
}
"""Short names, in the order of the terminal's table."""


def machine() -> dict[str, Any]:
    """Processor, threads and load."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "device": "cpu",
    }


def flat_rows(levels: Sequence[LevelResult]) -> list[dict[str, Any]]:
    """One mapping per noise level, estimator and K."""
    return [
        {
            "noise": found.level.noise,
            "t": found.level.t,
            "weight": found.level.weight,
            "share": found.share,
            **dataclasses.asdict(row),
        }
        for found in levels
        for row in found.rows
    ]


def content_of(
    problem: Problem,
    levels: Sequence[LevelResult],
    advice: Recommendation,
    *,
    config: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what the json file holds.

    Parameters
    ----------
    problem : Problem
    levels : sequence of LevelResult
    advice : Recommendation
    config : mapping
        What the user asked for.
    """
    present = {row.estimator for found in levels for row in found.rows}
    return {
        "recommendation": dataclasses.asdict(advice),
        "rule": {"worth": WORTH, "some": SOME, "much": MUCH, "close": CLOSE},
        "config": {
            **config,
            "kernel": problem.kernel,
            "group": problem.arms.group,
            "parametrization": problem.arms.parametrization.value,
        },
        "data": {
            "structures": problem.num_structures,
            "samples_per_level": REPEATS * len(problem.x_0),
            "points_mean": float(problem.mask.sum(1).double().mean()),
            "points_largest": int(problem.mask.sum(1).max()),
            "notes": list(problem.notes),
            "skipped": [dataclasses.asdict(found) for found in problem.skipped],
        },
        "noise_is": problem.noise.label,
        "definitions": DEFINITIONS,
        "estimators": {name: text for name, text in ESTIMATORS.items() if name in present},
        "levels": [
            {
                "noise": found.level.noise,
                "t": found.level.t,
                "weight": found.level.weight,
                "share": found.share,
                "estimators": [dataclasses.asdict(row) for row in found.rows],
            }
            for found in levels
        ],
        "versions": {
            "orbitdiff": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "hardware": machine(),
    }


def write_files(
    content: Mapping[str, Any], levels: Sequence[LevelResult], folder: Path
) -> tuple[Path, Path]:
    """Write diagnosis.json and diagnosis.csv.

    Parameters
    ----------
    content : mapping
        From `content_of`.
    levels : sequence of LevelResult
    folder : Path
        Created if needed.

    Returns
    -------
    tuple of Path
    """
    folder.mkdir(parents=True, exist_ok=True)
    as_json, as_csv = folder / "diagnosis.json", folder / "diagnosis.csv"
    write_atomically(as_json, json.dumps(content, indent=2, allow_nan=False) + "\n")
    write_csv(flat_rows(levels), as_csv)
    return as_json, as_csv


def table(levels: Sequence[LevelResult], noise_label: str, *, num_samples: int = 256) -> str:
    """Lines for a terminal: share, errors and effective sample sizes by noise level.

    Parameters
    ----------
    levels : sequence of LevelResult
    noise_label : str
    num_samples : int
        K of the sampled estimators that are shown, or the largest one below.
    """
    counts = {row.num_samples for row in levels[0].rows if row.num_samples is not None}
    count = max((k for k in counts if k <= num_samples), default=min(counts))
    present = {row.estimator: row for row in levels[0].rows if row.num_samples in (None, count)}
    names = [name for name in COLUMNS if name in present]
    sampled = [name for name in ("haar", "isir") if name in present]
    head = ["noise", "removed", *(COLUMNS[name] for name in names), *(COLUMNS[n] for n in sampled)]
    over = [*[""] * 2, "error of:", *[""] * (len(names) - 1), "ESS of:", *[""] * (len(sampled) - 1)]
    lines = [f"{noise_label}; sampled estimators with K = {count}", _line(over), _line(head)]
    for found in levels:
        rows = {row.estimator: row for row in found.rows if row.num_samples in (None, count)}
        cells = [f"{found.level.noise:.3g}", f"{100 * found.share:.3g} %"]
        cells += [f"{rows[name].error:.2g}" for name in names]
        cells += [f"{rows[name].ess_median or 0:.3g}" for name in sampled]
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "".join(f"{cell:>11}" for cell in cells)
