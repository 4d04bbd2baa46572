"""Tables and notes of the conformer report, as text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orbitdiff.viz.conformer_curves import arm_label
from orbitdiff.viz.page import NOTHING, Table, plus_minus

__all__ = [
    "Line", "arm_table", "describe", "detail_table", "meaning_table", "outside_table",
]  # fmt: skip

MAIN = {
    "cov_r_0.5_mean": "COV-R 0.5 Å", "cov_r_0.1_mean": "COV-R 0.1 Å",
    "cov_p_0.5_mean": "COV-P 0.5 Å", "cov_p_0.1_mean": "COV-P 0.1 Å",
    "amr_r_mean": "AMR-R (Å)", "amr_p_mean": "AMR-P (Å)",
}  # fmt: skip
DETAILS = {
    "cov_r_0.05_mean": "COV-R 0.05 Å", "cov_p_0.05_mean": "COV-P 0.05 Å",
    "cov_r_0.75_mean": "COV-R 0.75 Å", "cov_p_0.75_mean": "COV-P 0.75 Å",
    "cov_r_0.1_median": "COV-R 0.1 Å, median", "cov_p_0.1_median": "COV-P 0.1 Å, median",
    "amr_r_median": "AMR-R, median (Å)", "amr_p_median": "AMR-P, median (Å)",
    "stereo_elements_right": "stereo elements right",
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A line of the table of figures from elsewhere: name, data, figures, source."""

    name: str
    data: str
    source: str
    figures: Mapping[str, Any] = field(default_factory=dict)


def arm_table(caption: str, rows: Sequence[Mapping[str, Any]], *, reference: str) -> Table:
    """One line per arm: means over molecules, spread over seeds, differences to the reference.

    Parameters
    ----------
    caption : str
    rows : sequence of rows of `arm_row`
        A row's `name` stands in for the label of its arm.
    reference : str
        Arm of the paired differences.
    """
    against = arm_label(reference)
    head = [
        "arm", "seeds", *MAIN.values(), "stereo right", "PoseBusters valid",
        "molecules without conformer", f"AMR-R − {against} (paired)",
        f"AMR-P − {against} (paired)", "ms/step",
    ]  # fmt: skip
    body = [
        [
            _name(row),
            str(len(row["seeds"])) if row["seeds"] else NOTHING,
            *(plus_minus(row.get(figure), digits=3) for figure in MAIN),
            plus_minus(row.get("stereo_conformers_right"), digits=3),
            plus_minus(row.get("posebusters_valid"), digits=3),
            ", ".join(map(str, row["molecules_without_conformer"])) or NOTHING,
            _paired(row, "amr_r_mean"),
            _paired(row, "amr_p_mean"),
            f"{1e3 * row['step_seconds']:.0f}" if "step_seconds" in row else NOTHING,
        ]
        for row in rows
    ]
    return Table(caption, head, body)


def _name(row: Mapping[str, Any]) -> str:
    return str(row.get("name") or arm_label(row["estimator"]))


def _paired(row: Mapping[str, Any], figure: str) -> str:
    found = row.get("paired", {}).get(figure)
    if found is None:
        return NOTHING
    return f"{plus_minus(found, 'standard_error', 4)} ({found['better']} of {found['seeds']})"


def detail_table(rows: Sequence[Mapping[str, Any]], *, num: int) -> Table:
    """Other thresholds and medians over the same molecules.

    Parameters
    ----------
    rows : sequence of rows of `arm_row`
    num : int
        Molecules.
    """
    body = [
        [_name(row), *(plus_minus(row.get(figure), digits=3) for figure in DETAILS)] for row in rows
    ]
    caption = f"Other thresholds, medians over molecules, the same {num} molecules"
    return Table(caption, ["arm", *DETAILS.values()], body)


def outside_table(lines: Sequence[Line]) -> Table:
    """Baselines and figures of others, each with its data and source."""
    medians = {"amr_r_median": DETAILS["amr_r_median"], "amr_p_median": DETAILS["amr_p_median"]}
    shown = {**MAIN, **medians}
    body = [
        [line.name, line.data, *(_plain(line.figures.get(figure)) for figure in shown), line.source]
        for line in lines
    ]
    head = ["model", "data", *shown.values(), "source"]
    return Table("Baselines, whole test set, figures of others", head, body)


def _plain(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def meaning_table(arms: Mapping[str, Any], names: Sequence[str]) -> Table:
    """What each arm is.

    Parameters
    ----------
    arms : mapping of name to ConformerArm
    names : sequence of str
        Those that are shown.
    """
    body = []
    for name in names:
        arm = arms.get(name)
        if arm is None:
            continue
        mean = f"{arm.target.kind}" + (f", {arm.conformers} conformers" if arm.conformers else "")
        bridge = f"{arm.bridge:g}" if arm.bridge else "none"
        body.append([arm_label(name), name, arm.coupling, bridge, mean, arm.loss])
    head = ["arm", "name in params.yaml", "coupling", "bridge σ (Å)", "target averaged by", "loss"]
    return Table("What the arms are", head, body)


def describe(
    params: Any,
    runs: Mapping[str, Mapping[str, Any]],
    missing: Sequence[str],
    *,
    num_common: int,
    num_parameters: int,
) -> list[str]:
    """Notes under the tables: what was measured on what, what is not there.

    Parameters
    ----------
    params : RunParams
    runs : mapping of run name to {"metrics", "history", "figures"}
    missing : sequence of str
        Runs without results.
    num_common : int
        Molecules that all runs have.
    num_parameters : int
        Of the network.
    """
    first = next(iter(runs.values()))["metrics"]
    sampler = first.get("sampler", {})
    figures = next(iter(runs.values()))["figures"]
    solver = {1: "Euler", 2: "Heun"}.get(sampler.get("order"), "?")
    settings = params.settings
    training = f"{settings.train.steps} steps x {settings.train.batch_size} molecules"
    if settings.finetune is not None:
        tuning = settings.finetune
        training += f"; fine-tuned for {tuning.steps} steps x {tuning.batch_size} more"
    notes = [
        f"data set {params.dataset}: {first.get('note', '')}",
        f"arms and the first row of RDKit: the {num_common} of {first.get('num_test', '?')} test "
        f"molecules that every run has, {figures['num_references']} reference conformers; twice "
        "as many are generated as there are references",
        str(figures["protocol"]),
        f"sampler: {solver}, {sampler.get('sampler', '?')} grid, {sampler.get('steps', '?')} "
        f"steps, {sampler.get('calls', '?')} network calls per conformer",
        f"stereo right: share of the conformers with every labelled centre and double bond right, "
        f"over the {figures['molecules_with_stereo']} molecules that have any",
        f"PoseBusters valid: on a fixed sample of {_range(runs, 'posebusters_checked')} conformers "
        "of all molecules of a run",
        f"network of {num_parameters:,} parameters; trained for {training}",
        "mean ± standard deviation over seeds; paired differences: same seed, mean ± standard "
        "error over seeds, in brackets the seed pairs in which the arm has the lower value",
        "ms/step: measured while training, so it depends on what else the machine did",
        "distance to the best known mean velocity: each coupling has a yardstick of its own, so "
        "panels do not compare; with a bridge it is the plain velocity, whose noise stays in it",
    ]
    settings_of = {json.dumps(run["metrics"].get("sampler"), sort_keys=True)
                   for run in map(_without_seconds, runs.values())}  # fmt: skip
    if len(settings_of) > 1:
        notes.append("WARNING: the runs were sampled with different samplers")
    for key, text in (
        ("failures", "comparison(s) failed and count as not covered"),
        ("num_not_finite", "generated conformer(s) were not finite and are left out"),
    ):
        total = sum(run["metrics"].get(key, 0) for run in runs.values())
        if total:
            notes.append(f"{total} {text}")
    no_history = [name for name, run in runs.items() if not run["history"]]
    if no_history:
        notes.append(f"no training history: {', '.join(no_history)}")
    if missing:
        notes.append(f"not there yet: {', '.join(missing)}")
    return notes


def _range(runs: Mapping[str, Mapping[str, Any]], key: str) -> str:
    found = sorted({run["metrics"].get(key, 0) for run in runs.values()})
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def _without_seconds(run: Mapping[str, Any]) -> dict[str, Any]:
    sampler = {k: v for k, v in run["metrics"].get("sampler", {}).items() if k != "seconds"}
    return {"metrics": {"sampler": sampler}}
