"""The report of a preset: tables, figures and one standalone HTML page."""

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from orbitdiff.data.crystals import CrystalDataset
from orbitdiff.errors import BadInput
from orbitdiff.export import read_samples, write_atomically
from pipelines.stages.base import Executor, Tracker

__all__ = ["arm_rows", "run"]

SHOWN = 4


def read_history(path: Path) -> list[dict[str, Any]]:
    """Records of a training run."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def steps_to_reach(history: Sequence[Mapping[str, Any]], level: float) -> int | None:
    """First validated step with a distance of at most `level`."""
    for row in history:
        if row["kind"] == "validation" and row["distance_mean"] <= level:
            return int(row["step"])
    return None


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard deviation over seeds (None for one seed)."""
    return {"mean": mean(values), "std": stdev(values) if len(values) > 1 else None}


def arm_rows(runs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per estimator: figures over seeds and paired differences to plain.

    Parameters
    ----------
    runs : mapping of run name to {"metrics": ..., "history": ...}
    """
    arms: dict[str, dict[int, Mapping[str, Any]]] = {}
    for found in runs.values():
        about = found["metrics"]["run"]
        arms.setdefault(about["estimator"], {})[about["seed"]] = found
    rows = []
    for name, seeds in arms.items():
        last = {
            seed: [row for row in found["history"] if row["kind"] == "validation"][-1]
            for seed, found in seeds.items()
        }
        row: dict[str, Any] = {"estimator": name, "seeds": sorted(seeds)}
        for metric in ("match_rate_all", "match_rate_valid", "rmse_all", "metre", "crmse_all"):
            values = [found["metrics"][metric] for found in seeds.values()]
            if all(value is not None for value in values):
                row[metric] = spread(values)
        row["distance"] = spread([found["distance_mean"] for found in last.values()])
        row["distance_by_sigma"] = {
            level: spread([found["distance"][level] for found in last.values()])
            for level in next(iter(last.values()))["distance"]
        }
        train = [
            record
            for found in seeds.values()
            for record in found["history"]
            if record["kind"] == "train"
        ]
        row["step_seconds"] = mean(record["step_seconds"] for record in train)
        if "ess_frac" in train[-1]:
            row["ess"] = mean(record["ess_frac"] for record in train)
        plain = arms.get("plain", {})
        shared = sorted(set(plain) & set(seeds))
        if name != "plain" and shared:
            finals = {
                seed: [r for r in plain[seed]["history"] if r["kind"] == "validation"][-1]
                for seed in shared
            }
            row["paired_distance"] = paired(
                [last[seed]["distance_mean"] - finals[seed]["distance_mean"] for seed in shared]
            )
            row["paired_match_rate"] = paired(
                [
                    seeds[seed]["metrics"]["match_rate_all"]
                    - plain[seed]["metrics"]["match_rate_all"]
                    for seed in shared
                ]
            )
            reached = [
                steps_to_reach(seeds[seed]["history"], finals[seed]["distance_mean"])
                for seed in shared
            ]
            row["steps_to_plain"] = reached
        rows.append(row)
    return rows


def paired(differences: Sequence[float]) -> dict[str, float | None]:
    """Mean paired difference and its standard error over seeds."""
    error = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else None
    return {"mean": mean(differences), "standard_error": error}


def _pm(value: Mapping[str, Any] | None, key: str = "std", digits: int = 4) -> str:
    if value is None:
        return "-"
    error = "" if value[key] is None else f" ± {value[key]:.{digits}f}"
    return f"{value['mean']:.{digits}f}{error}"


def markdown(rows: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> str:
    """The table as markdown, its notes below."""
    head = [
        "estimator", "seeds", "match rate (all)", "match rate (valid)", "RMSE", "METRe", "cRMSE",
        "distance to exact target", "difference to plain (paired)", "match rate, paired difference",
        "steps to plain's final", "ms/step", "ESS",
    ]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = [
            row["estimator"],
            str(len(row["seeds"])),
            _pm(row.get("match_rate_all"), digits=3),
            _pm(row.get("match_rate_valid"), digits=3),
            _pm(row.get("rmse_all"), digits=3),
            _pm(row.get("metre"), digits=3),
            _pm(row.get("crmse_all"), digits=3),
            _pm(row["distance"]),
            _pm(row.get("paired_distance"), "standard_error"),
            _pm(row.get("paired_match_rate"), "standard_error", 3),
            ", ".join(str(step) for step in row.get("steps_to_plain", [])) or "-",
            f"{1e3 * row['step_seconds']:.1f}",
            f"{row['ess']:.1f}" if "ess" in row else "closed form",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes), ""])


def run(
    params: Any,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    executor: Executor,
    tracker: Tracker,
) -> None:
    """Write table.md, table.json, figures and report.html.

    Parameters
    ----------
    params : RunParams
    inputs : mapping
        `run:NAME` results folders, `data`, `samples` (folder of sample folders, may be absent).
    outputs : mapping
        `report`.
    executor, tracker
        The record of the report.
    """
    from orbitdiff.viz.curves import distance_by_level, learning_curves

    runs, missing = {}, []
    for key, folder in inputs.items():
        if not key.startswith("run:"):
            continue
        if not (folder / "metrics.json").is_file():
            missing.append(key[4:])
            continue
        runs[key[4:]] = {
            "metrics": json.loads((folder / "metrics.json").read_text()),
            "history": read_history(folder / "history.jsonl"),
        }
    if not runs:
        raise BadInput(f"no results for preset {params.preset}: run the evaluate stage first")
    rows = arm_rows(runs)
    first = next(iter(runs.values()))["metrics"]
    sampler = first["sampler"]
    notes = [
        f"data set {params.dataset}; {first['note']}",
        f"evaluated on {first['num_references']} of {first['num_test']} test crystals, the first "
        f"by sha256 of their id, {first['samples_per_crystal']} sample(s) each",
        f"sampler {sampler['sampler']}, {sampler['steps']} steps, {sampler['calls']} network calls",
        f"matcher {first['matcher']}; validity {first['validity_rules']}",
        "mean ± standard deviation over seeds; paired differences ± standard error over seeds",
    ]
    if missing:
        notes.append(f"not there yet: {', '.join(missing)}")
    folder = outputs["report"]
    folder.mkdir(parents=True, exist_ok=True)
    table = markdown(rows, notes)
    write_atomically(folder / "table.md", table)
    content = json.dumps({"rows": rows, "notes": notes}, indent=2, allow_nan=False) + "\n"
    write_atomically(folder / "table.json", content)
    arms: dict[str, list[list[dict[str, Any]]]] = {}
    for found in runs.values():
        arms.setdefault(found["metrics"]["run"]["estimator"], []).append(found["history"])
    learning_curves(arms, folder / "learning_curves.png")
    distance_by_level(arms, folder / "distance_by_level.png")
    view = cells(inputs, list(runs), folder)
    write_atomically(folder / "report.html", page(params.preset, rows, notes, folder, view))
    with tracker.run(
        f"report {params.preset}", experiment=params.task, params={"preset": params.preset}, tags={}
    ) as tracked:
        tracked.artifact(folder)
        print(table)
        print(f"report: {folder / 'report.html'}")
        if tracked.id:
            print(f"MLflow run: {tracked.id}")


def cells(inputs: Mapping[str, Path], names: Sequence[str], folder: Path) -> str:
    """Draw generated beside true cells of the last run whose samples are there."""
    from orbitdiff.viz.cells import cells_figure, cells_html

    there = [name for name in names if (inputs["samples"] / name / "samples.parquet").is_file()]
    if not there:
        return ""
    test = CrystalDataset.load(inputs["data"], "test")
    references = dict(zip(test.ids, test.crystals, strict=True))
    samples = read_samples(inputs["samples"] / there[-1] / "samples.parquet")[:SHOWN]
    pairs = [(name, references[name], crystal) for name, _, crystal in samples]
    cells_figure(pairs, folder / "cells.png")
    return cells_html(pairs)


def page(
    preset: str,
    rows: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
    folder: Path,
    view: str,
) -> str:
    """The report as one HTML page that needs nothing else."""
    lines = markdown(rows, []).strip().splitlines()
    table = "".join(
        "<tr>"
        + "".join(
            f"<{tag}>{html.escape(cell.strip())}</{tag}>" for cell in line.strip("| ").split(" | ")
        )
        + "</tr>"
        for index, line in enumerate(lines)
        if index != 1
        for tag in ("th" if index == 0 else "td",)
    )
    captions = {
        "learning_curves.png": "Distance to the exact translation × permutation target on "
        "validation crystals, one line per seed.",
        "distance_by_level.png": "The same after training, by noise level.",
        "cells.png": "Reference cells above, generated cells below.",
    }
    figures = "".join(
        f'<figure><img alt="{caption}" src="data:image/png;base64,'
        f'{base64.b64encode((folder / name).read_bytes()).decode()}">'
        f"<figcaption>{caption}</figcaption></figure>"
        for name, caption in captions.items()
        if (folder / name).is_file()
    )
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;"
        "color:#222}table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}"
        "th,td{border-bottom:1px solid #ddd;padding:.35rem .6rem;text-align:left}"
        "th{background:#f5f5f7}figure{margin:1.5rem 0}img{max-width:100%}"
        "figcaption{color:#555;font-size:13px}"
    )
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>orbitdiff: {preset}'
        f"</title><style>{style}</style></head><body><h1>Crystals, preset {preset}</h1>"
        f"<table>{table}</table><ul>{items}</ul>{figures}"
        + (f"<h2>Generated against true cells</h2>{view}" if view else "")
        + "</body></html>\n"
    )
