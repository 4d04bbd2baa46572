"""Figures of the conformer report: a gallery of molecules, arms, training, sampler calls."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from orbitdiff.data.conformer_rows import canonical_smiles
from orbitdiff.data.ensembles import read_ensembles
from orbitdiff.data.molecules import MoleculeDataset
from orbitdiff.viz.conformer_curves import arm_label
from orbitdiff.viz.molecule_scene import Overlay, overlay
from orbitdiff.viz.page import Figure
from pipelines.stages.conformers.evaluate_files import molecule_pair
from pipelines.stages.conformers.report_rows import Scored
from pipelines.stages.conformers.sample import SAMPLES
from pipelines.stages.results import read_points

__all__ = ["TUNED", "draw_curves", "ranked_parts", "select_overlays", "show_molecules"]

TUNED = ("tuned", "tuned_exact")
"""Arms that start from a finished run."""
EACH = 4
"""Molecules of each kind in the gallery: best, median, worst."""

TRAINING = (
    "Loss (above) and distance of the network's velocity to the best known mean (below) during "
    "training, a column per coupling: thin lines are seeds, thick lines their mean. Losses and "
    "distances of different columns do not compare."
)
BY_TIME = (
    "Distance to the best known mean velocity at the end of training, by time; bars reach from "
    "the lowest to the highest seed."
)
BY_CALLS = "AMR against network calls per conformer, mean over the seeds that were measured."

Row = Mapping[str, Any]


def ranked_parts(scored: Scored, molecules: Collection[str], *, each: int) -> list[tuple[str, str]]:
    """Molecules with the lowest, middle and highest AMR-P, as (kind, SMILES).

    Parameters
    ----------
    scored : Scored
    molecules : collection of str
    each : int
        Of each kind at most, a third of the molecules where there are fewer.
    """
    known = [
        (score.coverage.amr_p, smiles)
        for smiles, score in scored.scores.items()
        if smiles in molecules and score.coverage.amr_p is not None
    ]
    ranked = [smiles for _, smiles in sorted(known)]
    num = min(each, len(ranked) // 3)
    if not num:
        return [("", smiles) for smiles in ranked]
    middle = (len(ranked) - num) // 2
    parts = {
        "best": ranked[:num],
        "median": ranked[middle : middle + num],
        "worst": ranked[len(ranked) - num :],
    }
    return [(kind, smiles) for kind, chosen in parts.items() for smiles in chosen]


def select_overlays(
    samples: Path, scored: Scored, molecules: Collection[str], data: Path, *, each: int = EACH
) -> list[Overlay]:
    """Show best, median and worst molecules of a run: typical conformer on nearest reference.

    Parameters
    ----------
    samples, data : Path
        Folders of the run's samples and of the prepared data.
    scored : Scored
        Values of the run.
    molecules : collection of str
        Those that may be shown.
    each : int
        Molecules of each kind.
    """
    references = {
        record.graph.smiles: record.ensemble
        for record in MoleculeDataset.load(data, "test").records
    }
    drawn = read_ensembles(samples / SAMPLES).ensembles
    shown = []
    for kind, smiles in ranked_parts(scored, molecules, each=each):
        made = drawn.get(canonical_smiles(smiles))
        if made is not None and smiles in references:
            pair = molecule_pair(references[smiles], made)
            precision = f"AMR-P {scored.scores[smiles].coverage.amr_p:.2f}"
            note = f"{kind}, {precision}" if kind else precision
            shown.append(overlay(smiles, pair.generated, pair.reference, note=note))
    return shown


def panels(
    params: Any, runs: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, list[list[dict[str, Any]]]]]:
    """Histories by coupling (arms that share a yardstick and a budget), then by arm."""
    found: dict[str, dict[str, list[list[dict[str, Any]]]]] = {}
    for run in runs.values():
        name = run["metrics"]["run"]["estimator"]
        arm = params.settings.estimators.get(name)
        if arm is None or not run["history"]:
            continue
        title = f"{arm.coupling} coupling" + (f", bridge {arm.bridge:g} Å" if arm.bridge else "")
        title = f"fine-tuned, {title}" if name in TUNED else title
        found.setdefault(title, {}).setdefault(name, []).append(run["history"])
    return found


def show_molecules(
    inputs: Mapping[str, Path],
    rows: Sequence[Row],
    runs: Mapping[str, Mapping[str, Any]],
    scored: Mapping[str, Scored],
    molecules: Collection[str],
    report: Path,
) -> tuple[list[Figure], str]:
    """Gallery of the best arm (lowest AMR-R) that has samples here, and its interactive view."""
    from orbitdiff.viz.conformer_view import overlay_fragment
    from orbitdiff.viz.conformers import draw_overlays

    def place(name: str) -> tuple[float, int]:
        about = runs[name]["metrics"]["run"]
        found = next(row for row in rows if row["estimator"] == about["estimator"])
        known = found.get("amr_r_mean")
        return (known["mean"] if known else float("inf"), about["seed"])

    there = [name for name in runs if (inputs["samples"] / name / SAMPLES).is_file()]
    if not there:
        return [], ""
    name = min(there, key=place)
    shown = select_overlays(inputs["samples"] / name, scored[name], molecules, inputs["data"])
    if not shown:
        return [], ""
    about = runs[name]["metrics"]["run"]
    caption = (
        f"{arm_label(about['estimator'])}, seed {about['seed']}: the molecules with the lowest, "
        f"middle and highest AMR-P of {len(molecules)}. Of each the typical conformer (median "
        "distance to its nearest reference), superposed through the symmetries of the graph; RMSD "
        "of heavy atoms."
    )
    path = draw_overlays(shown, report / "molecules.png")
    return [Figure(path, caption, wide=True)], overlay_fragment(shown)


def draw_curves(
    params: Any,
    inputs: Mapping[str, Path],
    runs: Mapping[str, Mapping[str, Any]],
    blocks: Sequence[Sequence[Row]],
    lines: Mapping[str, Mapping[str, float]],
    folder: Path,
) -> list[Figure]:
    """Write AMR by arm, training by coupling, distance by time, AMR by calls."""
    from orbitdiff.viz.conformer_curves import (
        amr_by_arm,
        amr_by_calls,
        distance_by_time,
        training_by_coupling,
    )

    seeds = [
        {
            row["estimator"]: {
                figure: [value for value in found.values() if value is not None]
                for figure, found in row["by_seed"].items()
            }
            for row in block
        }
        for block in blocks
    ]
    path = amr_by_arm(seeds, folder / "amr_by_arm.png", lines=lines)
    named = "; lines: " + ", ".join(lines) if lines else ""
    figures = [
        Figure(path, f"AMR of each arm: points are seeds, bars their mean{named}.", broad=True)
    ]
    histories = panels(params, runs)
    if histories:
        path = training_by_coupling(histories, folder / "training.png")
        figures.append(Figure(path, TRAINING, broad=True))
        path = distance_by_time(histories, folder / "distance_by_time.png")
        figures.append(Figure(path, BY_TIME, broad=True))
    points = read_points(inputs, "calls", runs)
    if points:
        path = amr_by_calls(points, folder / "amr_by_calls.png")
        figures.append(Figure(path, BY_CALLS, broad=True))
    return figures
