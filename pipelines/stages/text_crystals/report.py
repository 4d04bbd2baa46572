"""The report of a text-guided preset: tables, nine models on the same crystals, curves, a page."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from orbitdiff.data.crystals import CrystalDataset
from orbitdiff.data.text_crystals import NONE
from orbitdiff.errors import BadInput
from orbitdiff.export import read_samples, write_atomically
from orbitdiff.metrics.comparison import last_validation
from orbitdiff.tasks.crystals import build_network
from orbitdiff.tasks.text_crystals import DENOISED
from orbitdiff.viz.page import Figure, html_page, markdown_table
from orbitdiff.viz.style import arm_label
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.crystals.report import select_comparisons
from pipelines.stages.provenance import recorded
from pipelines.stages.results import read_points, read_runs
from pipelines.stages.text_crystals.evaluate import PICTURED
from pipelines.stages.text_crystals.published import PROTOCOL
from pipelines.stages.text_crystals.report_rows import guidance_rows, target_of, text_rows
from pipelines.stages.text_crystals.report_tables import (
    describe,
    difference_table,
    generation_table,
    guidance_table,
    prediction_table,
)

__all__ = ["run"]

SHOWN, TURNED = 6, 24
COLUMNS = 9
ORDER = (
    (NONE, "plain"), (NONE, "orbdiff_u"), (NONE, "exact"), ("composition", "exact"),
    ("short", "plain"), ("short", "orbdiff_u"), ("short", "exact"),
    ("long", "plain"), ("long", "exact"),
)  # fmt: skip
"""Columns of the picture where there are runs for them, the best known arms first."""

NO_PICTURES = f"no run has a {PICTURED} to draw crystals from; run the evaluate stage again"


def run(
    params: Any,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    executor: Executor,
    tracker: Tracker,
) -> None:
    """Write tables and figures, and a page that works offline.

    Parameters
    ----------
    params : RunParams
    inputs : mapping
        `run:NAME` results folders, `guidance:NAME` curves (may be absent), `data:NAME` folders of
        data sets, `data`.
    outputs : mapping
        `report`: table.md, table.json, PNG figures; `pages`: report.html, structures.html.
    executor, tracker
        The record of the report.

    Raises
    ------
    BadInput
        No run has results.
    """
    from orbitdiff.viz.interactive import write_view

    folders = {key[4:]: path for key, path in inputs.items() if key.startswith("run:")}
    runs, missing = read_runs(folders)
    if not runs:
        raise BadInput(f"no results for preset {params.preset}: run the evaluate stage first")
    rows = text_rows(runs)
    predicted = [row for row in rows if row["types"] != DENOISED]
    drawn = [row for row in rows if row["types"] == DENOISED]
    curves = read_points(inputs, "guidance", runs)
    tables = [prediction_table(predicted)] if predicted else []
    tables += [generation_table(drawn)] if drawn else []
    tables += [difference_table(rows)] if any(row.get("paired") for row in rows) else []
    swept = guidance_rows(curves)
    tables += [guidance_table(swept)] if swept else []
    network = build_network(
        params.settings.model.network, generator=torch.Generator().manual_seed(0)
    )
    count = sum(weight.numel() for weight in network.parameters())
    notes = [*describe(params, runs, missing, num_parameters=count), *PROTOCOL]
    report, pages = outputs["report"], outputs["pages"]
    for folder in (report, pages):
        folder.mkdir(parents=True, exist_ok=True)
    figures, view = pictures(params, inputs, runs, report)
    if not figures:
        notes.append(NO_PICTURES)
    figures += draw_curves(runs, curves, report)
    title = f"Text-guided crystals, preset {params.preset}"
    lead = f"{len(runs)} of {len(runs) + len(missing)} runs"
    page = html_page(title, lead, tables=tables, notes=notes, figures=figures, view=view)
    text = "\n".join(map(markdown_table, tables)) + "\n" + "".join(f"- {n}\n" for n in notes)
    content = {"rows": rows, "guidance": swept, "notes": notes}
    write_atomically(report / "table.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
    write_atomically(report / "table.md", text)
    write_atomically(pages / "report.html", page)
    write_view(view or NO_PICTURES, pages / "structures.html", title=title)
    with recorded(tracker, params, "report", data=inputs["data"], name=params.preset) as tracked:
        tracked.artifact(report)
        tracked.artifact(pages)
        print(text)
        print(f"report: {pages / 'report.html'}")
        if tracked.id:
            print(f"MLflow run: {tracked.id}")


def pictures(
    params: Any,
    inputs: Mapping[str, Path],
    runs: Mapping[str, Mapping[str, Any]],
    report: Path,
) -> tuple[list[Figure], str]:
    """Draw the same test crystals under up to nine models; return the turning view of one."""
    from orbitdiff.viz.crystal_grid import draw_grid
    from orbitdiff.viz.interactive import interactive_fragment

    columns = choose_columns(params.dataset, inputs, runs)
    if not columns or not list(inputs["data"].glob("test-*.parquet")):
        return [], ""
    test = CrystalDataset.load(inputs["data"], "test")
    models = {
        f"{text}\n{arm_label(target)}": read_drawn(inputs, name)
        for (text, target), name in columns.items()
    }
    ids = set.intersection(*(set(found) for found in models.values()))
    order = [row for row in test.first_k_by_hash(len(test)).tolist() if test.ids[row] in ids]
    truth = [test.crystals[row] for row in order[:SHOWN]]
    path = draw_grid(truth, models, report / "cells.png")
    seeds = sorted({runs[name]["metrics"]["run"]["seed"] for name in columns.values()})
    caption = (
        f"The first {len(truth)} test crystals of {params.dataset} by hash, ground truth beside "
        f"{len(models)} models (text, target); under each cell the RMSE of its match; seed "
        f"{', '.join(map(str, seeds))}. Matches are drawn in the true cell's setting, cells "
        "larger than the true one at a smaller scale."
    )
    name = list(columns.values())[-1]
    folder = inputs[f"run:{name}"]
    pairs = select_comparisons(folder / PICTURED, folder, inputs["data"], num=TURNED)
    return [Figure(path, caption, wide=True)], interactive_fragment(pairs)


def choose_columns(
    dataset: str, inputs: Mapping[str, Path], runs: Mapping[str, Mapping[str, Any]]
) -> dict[tuple[str, str], str]:
    """Runs of the picture: of each arm of `ORDER` the lowest seed with crystals to draw."""
    there: dict[tuple[str, str], str] = {}
    seeds = sorted(runs, key=lambda name: runs[name]["metrics"]["run"]["seed"])
    for name in seeds:
        about = runs[name]["metrics"]["run"]
        key = (about["text"], target_of(about))
        folder = inputs[f"run:{name}"]
        same = about["dataset"] == dataset and about["types"] != DENOISED
        if same and (folder / PICTURED).is_file() and (folder / "per_sample.csv").is_file():
            there.setdefault(key, name)
    return {key: there[key] for key in ORDER if key in there}


def read_drawn(inputs: Mapping[str, Path], name: str) -> dict[str, Any]:
    """Crystals that a run drew, with the RMSE of their match."""
    from orbitdiff.viz.crystal_grid import Drawn

    with (inputs[f"run:{name}"] / "per_sample.csv").open(newline="") as file:
        rmse = {row["id"]: row["rmse"] for row in csv.DictReader(file) if row["k"] == "0"}
    return {
        id: Drawn(crystal, float(rmse[id]) if rmse[id] else None)
        for id, _, crystal in read_samples(inputs[f"run:{name}"] / PICTURED)
        if id in rmse
    }


def draw_curves(
    runs: Mapping[str, Mapping[str, Any]],
    curves: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    report: Path,
) -> list[Figure]:
    """Draw quality against guidance weight, and the validation distance of each arm."""
    from orbitdiff.viz.guidance import guidance_curve
    from orbitdiff.viz.learning_panels import learning_panels

    figures = []
    if curves:
        path = guidance_curve(curves, report / "guidance.png")
        figures.append(Figure(path, "Obedience to the text and match rate against the guidance "
                              "weight; 0 ignores the text.", broad=len(curves) > 1))  # fmt: skip
    datasets = sorted({found["metrics"]["run"]["dataset"] for found in runs.values()})
    for dataset in datasets:
        groups: dict[str, dict[str, list[Any]]] = {}
        for found in runs.values():
            about = found["metrics"]["run"]
            if about["dataset"] == dataset and last_validation(found["history"]) is not None:
                group = groups.setdefault(group_of(about), {})
                group.setdefault(target_of(about), []).append(found["history"])
        path = learning_panels(groups, report / f"learning_curves_{dataset}.png")
        caption = (
            f"Validation distance during training, {dataset}: thin lines are seeds, thick lines "
            "their mean."
        )
        figures.append(Figure(path, caption, broad=len(groups) > 1))
    return figures


def group_of(about: Mapping[str, Any]) -> str:
    """Title of a run's panel: the kind of its text, and whether elements are drawn too."""
    text = "no text" if about["text"] == NONE else f"{about['text']} text"
    return f"{text}, elements drawn" if about["types"] == DENOISED else text
