"""Trials and points of a sweep as rows, and the files that hold them."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orbitdiff.export import write_atomically, write_csv
from orbitdiff.metrics.comparison import paired, spread
from pipelines.stages.sweeps.gradient import gradient_variance
from pipelines.stages.sweeps.settings import used_settings
from pipelines.stages.sweeps.space import Point, Trial
from pipelines.stages.sweeps.trial import figures, outcome

__all__ = ["FIGURES", "point_rows", "trial_row", "write_tables"]

FIGURES = ("validation_error", "gradient_variance", "ess", "step_seconds")
SETTINGS = ("kind", "num_samples", "temperature", "proposal")

Row = dict[str, Any]


def trial_row(trial: Trial, root: Path, *, failed: bool = False) -> Row:
    """All that is known of a trial.

    Parameters
    ----------
    trial : Trial
    root : Path
        Running state of the sweep.
    failed : bool
        It broke off without a result of its own.

    Returns
    -------
    dict
        JSON types; `status` is finished, diverged, stopped (by the scheduler) or failed.
    """
    spec, used = trial.arm.target, used_settings(trial.arm.target)
    ended = outcome(trial.folder(root)) or {"status": "failed" if failed else "stopped"}
    return {
        "trial": trial.name,
        "exact": trial.exact,
        "estimator": trial.estimator,
        **{name: getattr(spec, name) if name in used else None for name in SETTINGS},
        **trial.values,
        "seed": trial.seed,
        "status": ended["status"],
        "reason": ended.get("reason", ""),
        **figures(trial, root),
        "gradient_variance": gradient_variance(trial, root),
    }


def point_rows(points: Sequence[Point], rows: Mapping[str, Row]) -> list[Row]:
    """Mean and spread over seeds of each point, and the paired difference to the exact row.

    Parameters
    ----------
    points : sequence of Point
        Exact ones and others.
    rows : mapping of trial name to row
        Points of which no trial was tried are left out.

    Returns
    -------
    list of dict
        `name`, `values`, `exact`, `seeds`, `statuses`, `complete` (all seeds finished), each of
        FIGURES as {mean, std, seeds} or None, `minus_exact` and, relative to the exact row,
        `gradient_variance_ratio` and `step_seconds_ratio`.
    """
    found = []
    for point in points:
        mine = {trial.seed: rows[trial.name] for trial in point.trials if trial.name in rows}
        if not mine:
            continue
        row: Row = {
            "name": point.name,
            "values": dict(point.values),
            "exact": point.exact,
            "settings": {name: next(iter(mine.values()))[name] for name in SETTINGS},
            "seeds": sorted(mine),
            "statuses": {str(seed): each["status"] for seed, each in mine.items()},
            "complete": len(mine) == len(point.trials)
            and all(each["status"] == "finished" for each in mine.values()),
            **{figure: over_seeds(list(mine.values()), figure) for figure in FIGURES},
        }
        references = [trial.reference for trial in point.trials if trial.reference is not None]
        theirs = {each.seed: rows[each.name] for each in references if each.name in rows}
        if theirs:
            row.update(against(mine, theirs))
        found.append(row)
    return found


def over_seeds(rows: Sequence[Row], figure: str) -> dict[str, Any] | None:
    """Mean and standard deviation of the seeds that have the figure."""
    known = [row[figure] for row in rows if row[figure] is not None]
    return spread(known) if known else None


def against(mine: Mapping[int, Row], theirs: Mapping[int, Row]) -> Row:
    """Difference and ratios to the exact row, over the seeds that both finished."""
    both = [
        (mine[seed], theirs[seed])
        for seed in sorted(set(mine) & set(theirs))
        if mine[seed]["status"] == theirs[seed]["status"] == "finished"
    ]
    out: Row = {}
    pairs = [(a["validation_error"], b["validation_error"]) for a, b in both]
    if pairs and all(None not in pair for pair in pairs):
        out["minus_exact"] = paired([a - b for a, b in pairs])
    for figure in ("gradient_variance", "step_seconds"):
        known = [(a[figure], b[figure]) for a, b in both if a[figure] and b[figure]]
        if known:
            ratios = [a / b for a, b in known]
            out[f"{figure}_ratio"] = sum(ratios) / len(ratios)
    return out


def write_tables(rows: Sequence[Row], folder: Path) -> None:
    """Write trials.parquet, trials.csv and trials.json.

    Parameters
    ----------
    rows : sequence of dict
        From `trial_row`, at least one.
    folder : Path
        Created if needed; files are replaced one by one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".trials.parquet.partial"
    try:
        pq.write_table(pa.Table.from_pylist(list(rows)), partial)
        os.replace(partial, folder / "trials.parquet")
    finally:
        partial.unlink(missing_ok=True)
    write_csv(rows, folder / "trials.csv")
    write_atomically(folder / "trials.json", json.dumps(list(rows), indent=1) + "\n")
