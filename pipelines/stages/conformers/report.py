"""The report of a preset: all arms over the same molecules, baselines, figures, pages."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from orbitdiff.errors import BadInput
from orbitdiff.export import read_json, write_atomically
from orbitdiff.tasks.conformers import build_network
from orbitdiff.viz.conformer_curves import ARMS, arm_label
from orbitdiff.viz.page import Headings, Table, html_page, markdown_table
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.conformers.published import MEASURED, PUBLISHED
from pipelines.stages.conformers.report_figures import TUNED, draw_curves, show_molecules
from pipelines.stages.conformers.report_rows import (
    Scored,
    arm_row,
    arm_rows,
    common_molecules,
    read_scores,
)
from pipelines.stages.conformers.report_tables import (
    Line,
    arm_table,
    describe,
    detail_table,
    meaning_table,
    outside_table,
)
from pipelines.stages.provenance import recorded
from pipelines.stages.results import read_runs

__all__ = ["run"]

REFERENCE = "et_flow"
"""Arm that the others are compared with."""
TUNED_REFERENCE = "tuned"
START = "independent"
"""Arm whose finished runs the fine-tunes start from."""

BASELINE = "baseline"
RDKIT = "RDKit ETKDGv3"
NO_SAMPLES = "samples are not on this machine (dvc pull brings them)"
HEADINGS = Headings(
    pictures="Generated conformers on their nearest references",
    view="Turn the molecules",
    view_note="Blue: nearest reference; elements in colour: generated. Drag to turn, scroll to "
    "zoom, choose a molecule in the menu.",
    curves="Arms, training and sampling",
)
Row = Mapping[str, Any]


def read_baseline(folder: Path) -> tuple[Scored, dict[str, Any]] | None:
    """Values and figures of RDKit's row, None where the stage has not run."""
    if not (folder / "metrics.json").is_file():
        return None
    metrics = read_json(folder / "metrics.json", cure="run the baseline stage again")
    return read_scores(folder / "per_sample.csv"), metrics


def baseline_row(
    found: tuple[Scored, Mapping[str, Any]] | None, molecules: Collection[str]
) -> dict[str, Any]:
    """RDKit's row over the molecules of the arms."""
    if found is None:
        return {"name": f"{RDKIT}: not measured", "seeds": [], "molecules_without_conformer": []}
    scored, metrics = found
    there = set(molecules) & set(scored.scores)
    if not there:
        raise BadInput("the baseline has no molecule of the runs; run the baseline stage again")
    run = {"metrics": metrics, "history": [], "figures": scored.figures(there)}
    part = "" if len(there) == len(molecules) else f" ({len(there)} of the molecules)"
    return {**arm_row("rdkit", {0: run}), "name": RDKIT + part, "seeds": []}


def other_lines(
    dataset: str,
    whole: Mapping[str, Path],
    runs: Mapping[str, Mapping[str, Any]],
    baseline: tuple[Scored, Mapping[str, Any]] | None,
) -> list[Line]:
    """Runs on the whole test set, RDKit, others' figures."""
    lines = []
    for name, folder in whole.items():
        if name in runs:
            about = runs[name]["metrics"]["run"]
            title = f"{arm_label(about['estimator'])}, seed {about['seed']}"
            path = folder / "per_sample.csv"
            if path.is_file():
                lines.append(_measured(title, read_scores(path)))
            else:
                lines.append(Line(title, "this test file, whole", "not measured"))
    if baseline is None:
        lines.append(Line(RDKIT, "this test file", "not measured"))
    else:
        lines.append(_measured(RDKIT, baseline[0]))
    if dataset in MEASURED:
        lines.append(_quoted(MEASURED[dataset]))
    return lines + [_quoted(row) for row in PUBLISHED.get(dataset, ())]


def _measured(name: str, found: Scored) -> Line:
    figures = found.figures()
    without = figures["molecules_without_conformer"]
    data = f"this test file, {len(found.scores)} molecules"
    return Line(name, data + (f" ({without} failed)" if without else ""), "measured", figures)


def _quoted(row: Any) -> Line:
    return Line(row.name, row.data, row.source, row.figures())


def run(
    params: Any,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    executor: Executor,
    tracker: Tracker,
) -> None:
    """Write tables and figures, and pages that work offline.

    Parameters
    ----------
    params : RunParams
    inputs : mapping
        `run:NAME` results folders, `calls:NAME` curves and `whole:NAME` results on the whole test
        set (may be absent), `results` (its folder
        `baseline` may be absent), `data`, `samples` (folder of sample folders, may be absent).
    outputs : mapping
        `report`: table.md, table.json, PNG figures; `pages`: report.html, molecules.html.
    executor, tracker
        The record of the report.

    Raises
    ------
    BadInput
        No run has results, runs without a molecule in common, a damaged file.
    """
    from orbitdiff.viz.interactive import write_view

    folders = {key[4:]: path for key, path in inputs.items() if key.startswith("run:")}
    runs, missing = read_runs(folders)
    if not runs:
        raise BadInput(f"no results for preset {params.preset}: run the evaluate stage first")
    scored = {name: read_scores(folders[name] / "per_sample.csv") for name in runs}
    molecules = common_molecules(scored)
    for name, found in runs.items():
        found["figures"] = scored[name].figures(set(molecules))
    baseline = read_baseline(inputs["results"] / BASELINE)
    rdkit = baseline_row(baseline, molecules)
    first = {n: r for n, r in runs.items() if r["metrics"]["run"]["estimator"] not in TUNED}
    second = {n: r for n, r in runs.items() if n not in first}
    rows = arm_rows(first, order=list(ARMS), reference=REFERENCE)
    tuned = arm_rows(second, order=list(ARMS), reference=TUNED_REFERENCE)
    num = len(molecules)
    tables = [arm_table(f"Arms on the same {num} molecules", [*rows, rdkit], reference=REFERENCE)]
    if tuned:
        tables.append(tuned_table(rows, tuned, num))
    tables.append(detail_table([*rows, *tuned, rdkit], num=num))
    whole = {key[6:]: path for key, path in inputs.items() if key.startswith("whole:")}
    lines = other_lines(params.dataset, whole, runs, baseline)
    tables.append(outside_table(lines))
    names = [row["estimator"] for row in (*rows, *tuned)]
    tables.append(meaning_table(params.settings.estimators, names))
    network = build_network(params.settings.model, generator=torch.Generator().manual_seed(0))
    notes = describe(
        params, runs, missing, num_common=num,
        num_parameters=sum(weight.numel() for weight in network.parameters()),
    )  # fmt: skip
    report, pages = outputs["report"], outputs["pages"]
    for folder in (report, pages):
        folder.mkdir(parents=True, exist_ok=True)
    pictures, view = show_molecules(inputs, [*rows, *tuned], runs, scored, molecules, report)
    if not pictures:
        notes.append(NO_SAMPLES)
    marks = {}
    if baseline is not None:
        marks[RDKIT] = {key: rdkit[key]["mean"] for key in rdkit["by_seed"] if key in rdkit}
    if params.dataset in MEASURED:
        known = MEASURED[params.dataset]
        marks["GeoMol, 500 molecules"] = {"amr_r_mean": known.amr_r, "amr_p_mean": known.amr_p}
    figures = pictures + draw_curves(params, inputs, runs, (rows, tuned), marks, report)
    title = f"{params.task.capitalize()}, preset {params.preset}, {params.dataset}"
    page = html_page(
        title, f"{len(runs)} of {len(runs) + len(missing)} runs", tables=tables, notes=notes,
        figures=figures, view=view, headings=HEADINGS,
    )  # fmt: skip
    content = {
        "molecules": num, "rows": rows, "finetuned": tuned, "baseline": rdkit,
        "elsewhere": [vars(line) for line in lines], "notes": notes,
    }  # fmt: skip
    text = "\n".join(map(markdown_table, tables)) + "\n" + "".join(f"- {n}\n" for n in notes)
    write_atomically(report / "table.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
    write_atomically(report / "table.md", text)
    write_atomically(pages / "report.html", page)
    write_view(view or NO_SAMPLES, pages / "molecules.html", title=title)
    with recorded(tracker, params, "report", data=inputs["data"], name=params.preset) as tracked:
        tracked.artifact(report)
        tracked.artifact(pages)
        print(text)
        print(f"report: {pages / 'report.html'}")
        if tracked.id:
            print(f"MLflow run: {tracked.id}")


def tuned_table(rows: Sequence[Row], tuned: Sequence[Row], num: int) -> Table:
    """Fine-tunes below the arm that they started from."""
    start = [
        {**{key: value for key, value in row.items() if key != "paired"},
         "name": f"{arm_label(START)} (the start)"}
        for row in rows
        if row["estimator"] == START
    ]  # fmt: skip
    caption = f"Fine-tuned, the same {num} molecules"
    return arm_table(caption, [*start, *tuned], reference=TUNED_REFERENCE)
