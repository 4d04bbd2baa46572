"""The report of a preset: tables, figures and one HTML page that works offline."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orbitdiff.data.crystals import CrystalDataset
from orbitdiff.errors import BadInput
from orbitdiff.export import read_samples, write_atomically
from orbitdiff.metrics.comparison import arm_rows
from orbitdiff.viz.page import Figure, html_page, markdown_table
from orbitdiff.viz.scene import Comparison
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.crystals.diagnostics import ess_of_estimators
from pipelines.stages.crystals.report_tables import describe, level_table, main_table
from pipelines.stages.provenance import recorded
from pipelines.stages.results import read_history, read_points, read_runs

__all__ = ["arm_rows", "read_history", "read_points", "read_runs", "run", "select_comparisons"]

SHOWN = 8
TURNED = 24
NO_SAMPLES = "samples are not on this machine (dvc pull brings them)"
ESS_CAPTION = (
    "Effective sample size of the sampled estimators by noise level, mean over validation "
    "crystals. The closed form needs none."
)


def select_comparisons(samples: Path, results: Path, data: Path, *, num: int) -> list[Comparison]:
    """Pairs to show: matches and misses in turn, each in the order of the test set's hash.

    Parameters
    ----------
    samples : Path
        Parquet file of the samples.
    results, data : Path
        Folders of the run's results and of the prepared data.
    num : int
        At most this many; no more of one kind than needed.
    """
    test = CrystalDataset.load(data, "test")
    references = dict(zip(test.ids, test.crystals, strict=True))
    with (results / "per_sample.csv").open(newline="") as file:
        rmse = {(row["id"], int(row["k"])): row["rmse"] for row in csv.DictReader(file)}
    pairs = []
    for name, k, crystal in read_samples(samples):
        if k == 0 and name in references:
            found = rmse.get((name, k)) or None
            score = float(found) if found else None
            pairs.append(Comparison(name, k, crystal, references[name], score))
    return mixed(pairs, num)


def mixed(pairs: Sequence[Comparison], num: int) -> list[Comparison]:
    """First matches, then first misses, half each where there are enough of both."""
    matched = [pair for pair in pairs if pair.rmse is not None]
    missed = [pair for pair in pairs if pair.rmse is None]
    matches = min(len(matched), max(num - num // 2, num - len(missed)))
    return matched[:matches] + missed[: num - matches]


def draw(
    params: Any,
    inputs: Mapping[str, Path],
    runs: Mapping[str, Mapping[str, Any]],
    curves: Mapping[str, Mapping[str, Any]],
    folder: Path,
) -> tuple[list[Figure], str]:
    """Write all figures, `curves` by kind among them; return them and the interactive part."""
    from orbitdiff.viz.crystals import draw_comparisons, draw_message
    from orbitdiff.viz.curves import (
        calls_curve,
        distance_by_level,
        ess_by_level,
        learning_curves,
        match_rate_by_steps,
    )
    from orbitdiff.viz.interactive import interactive_fragment, write_view

    arms: dict[str, list[list[dict[str, Any]]]] = {}
    for found in runs.values():
        arms.setdefault(found["metrics"]["run"]["estimator"], []).append(found["history"])
    figures, view = [], ""
    there = [name for name in runs if (inputs["samples"] / name / "samples.parquet").is_file()]
    there = [name for name in there if (inputs[f"run:{name}"] / "per_sample.csv").is_file()]
    there.sort(key=lambda name: runs[name]["metrics"]["run"]["estimator"] != "exact")
    cells = folder / "cells.png"
    if there:
        name = there[0]
        samples = inputs["samples"] / name / "samples.parquet"
        pairs = select_comparisons(samples, inputs[f"run:{name}"], inputs["data"], num=TURNED)
        shown = mixed(pairs, SHOWN)
        matches = sum(pair.rmse is not None for pair in shown)
        draw_comparisons(shown, cells)
        view = interactive_fragment(pairs)
        title = f"Generated against true cells: {name}"
        write_view(view, folder / "structures.html", title=title)
        rate = runs[name]["metrics"]["match_rate_all"]
        caption = (
            f"Run {name}: the first {matches} test crystals by hash that match and the first "
            f"{len(shown) - matches} that do not, so not in proportion: the match "
            f"rate is {rate:.1%}. Matches are drawn in the true cell's setting."
        )
        figures.append(Figure(cells, caption, wide=True))
    else:
        draw_message(NO_SAMPLES, cells)
        write_view(NO_SAMPLES, folder / "structures.html", title=params.preset)
    learning, levels = folder / "learning_curves.png", folder / "distance_by_level.png"
    rates = folder / "match_rate_by_steps.png"
    learning_curves(arms, learning)
    distance_by_level(arms, levels)
    match_rate_by_steps(curves["steps"], rates)
    figures += [
        Figure(learning, "Validation distance during training: thin lines are seeds, thick lines "
               "their mean. One yardstick for all arms."),
        Figure(levels, "Validation distance at the end of training, by noise level; bars reach "
               "from the lowest to the highest seed."),
        Figure(rates, "Match rate during training, averaged weights of the step; thin lines are "
               "seeds, thick lines their mean."),
    ]  # fmt: skip
    specs = {name: spec for name, spec in params.settings.estimators.items() if name in arms}
    ess = ess_of_estimators(params.settings, specs, inputs["data"])
    if ess:
        path = ess_by_level(ess, folder / "ess_by_level.png")
        figures.append(Figure(path, ESS_CAPTION))
    points = [
        {**point, "estimator": name}
        for name, seeds in curves["calls"].items()
        for seed in seeds
        for point in seed
    ]
    if points:
        path = calls_curve(points, folder / "match_rate_by_calls.png")
        figures.append(Figure(path, "Match rate against network calls per structure."))
    return figures, view


def run(
    params: Any,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    executor: Executor,
    tracker: Tracker,
) -> None:
    """Write table.md, table.json, figures, structures.html and report.html.

    Parameters
    ----------
    params : RunParams
    inputs : mapping
        `run:NAME` results folders, `steps:NAME` and `calls:NAME` curves (may be absent),
        `data`, `samples` (folder of sample folders, may be absent).
    outputs : mapping
        `report`.
    executor, tracker
        The record of the report.

    Raises
    ------
    BadInput
        No run has results.
    """
    folders = {key[4:]: path for key, path in inputs.items() if key.startswith("run:")}
    runs, missing = read_runs(folders)
    if not runs:
        raise BadInput(f"no results for preset {params.preset}: run the evaluate stage first")
    curves = {kind: read_points(inputs, kind, runs) for kind in ("steps", "calls")}
    rows = arm_rows(runs)
    tables, notes = [main_table(rows)], describe(params, runs, missing)
    levels = level_table(rows)
    if len(levels.head) > 1:
        tables.append(levels)
    folder = outputs["report"]
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(markdown_table(table) for table in tables)
    text += "\n" + "".join(f"- {note}\n" for note in notes)
    figures, view = draw(params, inputs, runs, curves, folder)
    title = f"{params.task.capitalize()}, preset {params.preset}, {params.dataset}"
    lead = f"{len(runs)} of {len(runs) + len(missing)} runs"
    page = html_page(title, lead, tables=tables, notes=notes, figures=figures, view=view)
    content = json.dumps({"rows": rows, "notes": notes}, indent=2, allow_nan=False) + "\n"
    write_atomically(folder / "table.json", content)
    write_atomically(folder / "table.md", text)
    write_atomically(folder / "report.html", page)
    with recorded(tracker, params, "report", data=inputs["data"], name=params.preset) as tracked:
        tracked.artifact(folder)
        print(text)
        print(f"report: {folder / 'report.html'}")
        if tracked.id:
            print(f"MLflow run: {tracked.id}")
