"""Tables and notes of a report, as text."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from orbitdiff.viz.page import NOTHING, Table, plus_minus
from orbitdiff.viz.style import arm_label

__all__ = ["describe", "level_table", "main_table"]


def main_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line per estimator."""
    head = [
        "estimator", "seeds", "match rate (rule: all)", "match rate (rule: valid)", "RMSE (all)",
        "METRe", "cRMSE (all)", "distance to exact target", "distance − plain (paired)",
        "match rate − plain (paired)", "steps to plain's final distance", "ms/step", "ESS",
    ]  # fmt: skip
    body = []
    for row in rows:
        reached = [
            str(step) if step is not None else "never" for step in row.get("steps_to_plain", [])
        ]
        body.append([
            arm_label(row["estimator"]),
            str(len(row["seeds"])),
            plus_minus(row.get("match_rate_all"), digits=3),
            plus_minus(row.get("match_rate_valid"), digits=3),
            plus_minus(row.get("rmse_all"), digits=3),
            plus_minus(row.get("metre"), digits=3),
            plus_minus(row.get("crmse_all"), digits=3),
            plus_minus(row.get("distance")),
            plus_minus(row.get("paired_distance"), "standard_error"),
            plus_minus(row.get("paired_match_rate"), "standard_error", 3),
            ", ".join(reached) or NOTHING,
            f"{1e3 * row['step_seconds']:.1f}" if "step_seconds" in row else NOTHING,
            f"{row['ess']:.1f}" if "ess" in row else NOTHING,
        ])  # fmt: skip
    return Table("Estimators compared", head, body)


def level_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Validation distance by noise level, one line per estimator."""
    levels = list(dict.fromkeys(lvl for row in rows for lvl in row.get("distance_by_sigma", {})))
    body = [
        [arm_label(row["estimator"])]
        + [plus_minus(row.get("distance_by_sigma", {}).get(level)) for level in levels]
        for row in rows
    ]
    head = ["estimator", *(f"σ = {level}" for level in levels)]
    return Table("Mean-square distance to the exact target at the end, by noise level", head, body)


def describe(
    params: Any, runs: Mapping[str, Mapping[str, Any]], missing: Sequence[str]
) -> list[str]:
    """Notes under the table: what was measured on what, what is not there."""
    first = next(iter(runs.values()))["metrics"]
    sampler = first.get("sampler", {})
    matcher = first.get("matcher", {})
    notes = [
        f"data set {params.dataset}: {first.get('note', '')}",
        f"evaluated on {first['num_references']} of {first.get('num_test', '?')} test crystals "
        f"(the first by sha256 of their id), {first['samples_per_crystal']} sample(s) each",
        f"sampler {sampler.get('sampler', '?')}, {sampler.get('steps', '?')} steps, "
        f"{sampler.get('calls', '?')} network calls per structure",
        "pymatgen StructureMatcher("
        + ", ".join(f"{name}={value:g}" for name, value in sorted(matcher.items()))
        + f"); validity rules: {first.get('validity_rules', '')}",
        "mean ± standard deviation over seeds; paired differences to plain of the same seed ± "
        "standard error over seeds; steps per seed, in order of seed",
        "distance: the network's score of the fractional coordinates against the exact "
        "translation × permutation target, in units of the plain target's mean square",
        f"ESS: effective number of group elements per target; {NOTHING}: closed form, none drawn",
    ]
    samplers = {
        json.dumps(found["metrics"].get("sampler", {}).get("calls")) for found in runs.values()
    }
    if len(samplers) > 1:
        notes.append("WARNING: the runs were sampled with different numbers of network calls")
    failures = sum(found["metrics"].get("failures", 0) for found in runs.values())
    if failures:
        notes.append(f"{failures} comparison(s) failed and count as no match")
    no_history = [name for name, found in runs.items() if not found["history"]]
    if no_history:
        notes.append(f"no training history: {', '.join(no_history)}")
    if missing:
        notes.append(f"not there yet: {', '.join(missing)}")
    return notes
