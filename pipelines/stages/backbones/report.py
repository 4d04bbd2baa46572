"""The report of a preset: controls, base model and fine-tunes, figures, pages."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from orbitdiff.data.proteins import Backbone, ProteinDataset
from orbitdiff.errors import BadInput
from orbitdiff.export import read_json, write_atomically
from orbitdiff.tasks.backbones import build_network
from orbitdiff.viz.backbone_curves import ARMS, arm_label, errors_by_time, training_curves
from orbitdiff.viz.page import Figure, Headings, html_page, markdown_table
from pipelines.stages.backbones.baseline import held_out, noised
from pipelines.stages.backbones.evaluate import read_pdbs
from pipelines.stages.backbones.measure import spread_over
from pipelines.stages.backbones.report_rows import arm_rows, figures_of
from pipelines.stages.backbones.report_tables import (
    chain_table,
    describe,
    design_table,
    difference_table,
    error_table,
)
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.provenance import recorded
from pipelines.stages.results import read_runs

__all__ = ["run"]

BASE, TUNED = "plain", "tuned"
"""Arms that bases and fine-tunes are compared with."""

SHOWN = 5
"""Chains of a row of the picture."""
NO_SAMPLES = "samples are not on this machine (dvc pull brings them)"
HEADINGS = Headings(
    pictures="Generated and natural chains",
    view="Turn the chains",
    view_note="From the first residue (blue) to the last (red). Drag to turn, scroll to zoom, "
    "choose a chain in the menu.",
    curves="Training and errors of the network",
)


def control_rows(controls: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Rows of natural and noised chains."""
    if controls is None:
        return []
    names = {"natural": "natural, held out", "noised": f"natural + {controls['noise']:g} Å noise"}
    rows = []
    for name, title in names.items():
        known = {k: v for k, v in figures_of(controls[name]).items() if v is not None}
        figures = {key: {"mean": value, "std": None} for key, value in known.items()}
        rows.append({"estimator": name, "name": title, "seeds": [], **figures})
    return rows


def is_tuned(arm: str) -> bool:
    """Whether an arm starts from a finished run."""
    return arm.startswith(TUNED)


def panels(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, list[Any]]]:
    """Histories of bases and of fine-tunes, by arm; the start stands beside the fine-tunes."""
    found: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for run in runs.values():
        arm = run["metrics"]["run"]["estimator"]
        if run["history"]:
            found["fine-tuned" if is_tuned(arm) else "base"][arm].append(run["history"])
    ordered = [title for title in ("base", "fine-tuned") if title in found]
    return {title: {a: found[title][a] for a in (*ARMS, *found[title]) if a in found[title]}
            for title in ordered}  # fmt: skip


def draw_errors(runs: Mapping[str, Mapping[str, Any]], folder: Path) -> list[Figure]:
    """Training curves, and errors by time with the base beside the fine-tunes."""
    groups = panels(runs)
    if not groups:
        return []
    by_time = {title: dict(arms) for title, arms in groups.items()}
    if "fine-tuned" in by_time and BASE in groups.get("base", {}):
        by_time["fine-tuned"] = {BASE: groups["base"][BASE], **by_time["fine-tuned"]}
    return [
        Figure(
            training_curves(groups, folder / "training.png"),
            "Distance to the exact mean velocity and equivariance error on fixed noised validation "
            "chains during training; thin lines are seeds, thick lines their mean.",
            broad=True,
        ),
        Figure(
            errors_by_time(by_time, folder / "errors_by_time.png"),
            "The same at the end of training, by time; the base stands beside its fine-tunes. Bars "
            "reach from the lowest to the highest seed.",
            broad=True,
        ),
    ]


def draw_chains(
    params: Any,
    inputs: Mapping[str, Path],
    runs: Mapping[str, Mapping[str, Any]],
    folder: Path,
) -> tuple[list[Figure], str]:
    """Traces and dihedrals of generated beside natural chains, and the interactive view."""
    from orbitdiff.viz.backbones import backbones_fragment, draw_dihedrals, draw_traces

    drawn: dict[str, list[Backbone]] = {}
    for name, run in runs.items():
        place = inputs["samples"] / name / "pdb"
        if place.is_dir():
            arm = run["metrics"]["run"]["estimator"]
            drawn.setdefault(arm, []).extend(read_pdbs(place))
    if not drawn:
        return [], ""
    arms = [arm for arm in (*ARMS, *drawn) if arm in drawn]
    arms = list(dict.fromkeys(arms))
    natural = held_out(inputs["data"], params.settings.evaluate.natural)
    shown, labels = spread_over(natural, SHOWN), [f"natural, {chain.id}" for chain in
                                                  spread_over(natural, SHOWN)]  # fmt: skip
    for arm in arms:
        some = spread_over(drawn[arm], SHOWN)
        shown = [*shown, *some]
        labels += [f"{arm_label(arm)}, {len(chain)}" for chain in some]
    training = ProteinDataset.load(inputs["data"], "train").backbones
    sets: dict[str, Sequence[Backbone]] = {
        "held out": natural,
        f"+ {params.settings.evaluate.noise:g} Å noise": noised(
            natural, params.settings.evaluate.noise
        ),
        **{arm_label(arm): drawn[arm] for arm in arms},
    }
    sets = {name: [chain for chain in group if len(chain) > 3] for name, group in sets.items()}
    figures = [
        Figure(
            draw_traces(shown, folder / "chains.png", labels=labels),
            f"First row: held-out natural chains; then {SHOWN} of each arm, at even distances "
            "through its list, not chosen by quality.",
            wide=True,
        ),
        Figure(
            draw_dihedrals(sets, training, folder / "dihedrals.png"),
            "Law of CA angle and dihedral: training chains (natural), controls, and each arm with "
            "all its seeds.",
            wide=True,
        ),
    ]
    return figures, backbones_fragment(shown, labels=labels)


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
        `run:NAME` results folders, `results` (its folder `baseline` may be absent), `data`,
        `samples` (folder of sample folders, may be absent).
    outputs : mapping
        `report`: table.md, table.json, PNG figures; `pages`: report.html, chains.html.
    executor, tracker
        The record of the report.

    Raises
    ------
    BadInput
        No run has results, a damaged file.
    """
    from orbitdiff.viz.interactive import write_view

    runs, missing = read_runs({k[4:]: path for k, path in inputs.items() if k.startswith("run:")})
    if not runs:
        raise BadInput(f"no results for preset {params.preset}: run the evaluate stage first")
    path = inputs["results"] / "baseline" / "metrics.json"
    controls = read_json(path, cure="run the baseline stage again") if path.is_file() else None
    tuned = {n: r for n, r in runs.items() if is_tuned(r["metrics"]["run"]["estimator"])}
    bases = {name: run for name, run in runs.items() if name not in tuned}
    rows = arm_rows(bases, order=list(ARMS), reference=BASE)
    rows += arm_rows(tuned, order=list(ARMS), reference=TUNED)
    beside = control_rows(controls)
    tables = [chain_table([*beside, *rows]), design_table([*beside, *rows])]
    for reference in (BASE, TUNED):
        table = difference_table(
            [row for row in rows if is_tuned(row["estimator"]) == is_tuned(reference)],
            reference=reference,
        )
        tables += [table] if table.rows else []
    tables += [error_table(rows, error) for error in ("distance", "equivariance")]
    network = build_network(params.settings.model, generator=torch.Generator().manual_seed(0))
    notes = describe(
        params, runs, controls, missing,
        num_parameters=sum(weight.numel() for weight in network.parameters()),
    )  # fmt: skip
    report, pages = outputs["report"], outputs["pages"]
    for folder in (report, pages):
        folder.mkdir(parents=True, exist_ok=True)
    figures, view = draw_chains(params, inputs, runs, report)
    if not figures:
        notes.append(NO_SAMPLES)
    figures += draw_errors(runs, report)
    write_report(
        params, rows, beside, tables, notes, figures, view,
        lead=f"{len(runs)} of {len(runs) + len(missing)} runs", report=report, pages=pages,
    )  # fmt: skip
    title = f"{params.task.capitalize()}, preset {params.preset}, {params.dataset}"
    write_view(view or NO_SAMPLES, pages / "chains.html", title=title)
    with recorded(tracker, params, "report", data=inputs["data"], name=params.preset) as tracked:
        tracked.artifact(report)
        tracked.artifact(pages)
        print((report / "table.md").read_text())
        print(f"report: {pages / 'report.html'}")
        if tracked.id:
            print(f"MLflow run: {tracked.id}")


def write_report(
    params: Any,
    rows: Sequence[Mapping[str, Any]],
    controls: Sequence[Mapping[str, Any]],
    tables: Sequence[Any],
    notes: Sequence[str],
    figures: Sequence[Figure],
    view: str,
    *,
    lead: str,
    report: Path,
    pages: Path,
) -> None:
    """Write table.md, table.json and report.html."""
    title = f"{params.task.capitalize()}, preset {params.preset}, {params.dataset}"
    page = html_page(
        title, lead, tables=tables, notes=notes, figures=figures, view=view, headings=HEADINGS
    )
    content = {"rows": rows, "controls": controls, "notes": notes}
    text = "\n".join(map(markdown_table, tables)) + "\n" + "".join(f"- {n}\n" for n in notes)
    write_atomically(report / "table.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
    write_atomically(report / "table.md", text)
    write_atomically(pages / "report.html", page)
