"""Which point of a sweep to take, at what cost, against the exact estimator."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["NEAR", "advise", "markdown"]

NEAR = 0.02
"""A cheaper point may have an error this much larger, as a share of the lowest."""
NOISE = 0.05
"""Times of a step that differ by less, as a share, are level: the lower error is chosen."""
LEVEL = 0.005
"""Differences to exact below this share of its error do not count, however certain."""
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""Standard errors of a paired difference to exact that count, 95 %, by degrees of freedom."""

Row = Mapping[str, Any]


def advise(rows: Sequence[Row]) -> dict[str, Any]:
    """Choose the cheapest point with an error near the lowest, and compare it with exact.

    Parameters
    ----------
    rows : sequence of dict
        From `point_rows`.

    Returns
    -------
    dict
        `text`, the chosen row's `point` (None where none is complete), that of the lowest error
        (`best`), `exact`, and `take`: exact, sampled or either.
    """
    usable = [row for row in rows if row["complete"] and row["validation_error"]]
    exact = min((row for row in usable if row["exact"]), key=error_of, default=None)
    sampled = [row for row in usable if not row["exact"]]
    if not sampled:
        return {"text": "No sampled point finished.", "point": None, "best": None,
                "exact": exact and exact["name"], "take": None}  # fmt: skip
    best = min(sampled, key=error_of)
    near = [row for row in sampled if error_of(row) <= error_of(best) * (1 + NEAR)]
    cheapest = min(map(cost_of, near))
    chosen = min((row for row in near if cost_of(row) <= cheapest * (1 + NOISE)), key=error_of)
    take, verdict = compare(chosen, exact)
    text = f"Sampled: {words(chosen)} has {said(chosen)}."
    if chosen is not best:
        text += f" The lowest error, {error_of(best):.4g}, is that of {words(best)}, at "
        text += f"{1e3 * cost_of(best):.3g} ms a step."
    if exact is not None:
        text += f" Exact: {said(exact)}."
    return {
        "text": f"{text} {verdict}",
        "point": chosen["name"],
        "best": best["name"],
        "exact": exact and exact["name"],
        "take": take,
    }


def error_of(row: Row) -> float:
    """Mean validation error."""
    return float(row["validation_error"]["mean"])


def cost_of(row: Row) -> float:
    """Seconds of a step."""
    return float(row["step_seconds"]["mean"])


def compare(chosen: Row, exact: Row | None) -> tuple[str | None, str]:
    """What to take, and why."""
    gap = chosen.get("minus_exact")
    if exact is None or gap is None:
        return None, "The exact estimator has no finished row to compare with."
    cost = chosen["step_seconds_ratio"]
    error = gap["standard_error"]
    seeds = f"{gap['seeds']} seed{'s' * (gap['seeds'] > 1)}"
    shown = number({"mean": gap["mean"], "std": error})
    facts = f"sampled minus exact {shown} over {seeds}, a step of it costs {cost:.3g} times as much"
    certain = STUDENT[min(max(gap["seeds"] - 2, 0), len(STUDENT) - 1)]
    small = LEVEL * error_of(exact)
    if error is None or abs(gap["mean"]) <= max(certain * error, small):
        cheaper = "exact" if cost >= 1 else "sampled"
        why = "one seed cannot tell the errors apart" if error is None else "errors are level"
        return "either", f"Take either, {cheaper} is cheaper: {why} ({facts})."
    if gap["mean"] > 0:
        return "exact", f"Take the exact estimator ({facts})."
    return "sampled", f"Take the sampled one ({facts})."


def words(row: Row) -> str:
    """Values of a point as a sentence has them."""
    names = {"num_samples": "K"}
    pairs = [(names.get(axis, axis), value) for axis, value in row["values"].items()]
    return ", ".join(f"{name} = {value}" for name, value in pairs if value is not None)


def said(row: Row) -> str:
    """Figures of a point."""
    parts = [f"validation error {number(row['validation_error'])}"]
    if row["gradient_variance"]:
        parts.append(f"gradient variance {number(row['gradient_variance'])}")
    if row["ess"]:
        parts.append(f"ESS {row['ess']['mean']:.3g}")
    parts.append(f"{1e3 * cost_of(row):.3g} ms a step")
    return ", ".join(parts)


def number(value: Row | None, unit: float = 1.0) -> str:
    """Mean ± standard deviation over seeds."""
    if value is None or not math.isfinite(value["mean"]):
        return "–"
    mean = digits(value["mean"] * unit, 4)
    return mean if value["std"] is None else f"{mean} ± {digits(value['std'] * unit, 2)}"


def digits(value: float, count: int) -> str:
    """Significant digits, powers of ten for very small and large numbers alone."""
    return f"{float(f'{value:.{count}g}'):.6g}"


def markdown(rows: Sequence[Row], advice: Mapping[str, Any], *, title: str) -> str:
    """Advice and a line per point, exact first.

    Parameters
    ----------
    rows : sequence of dict
        From `point_rows`.
    advice : dict
        From `advise`.
    title : str
    """
    axes = list(rows[0]["values"])
    head = [*axes, "seeds", "validation error", "− exact", "gradient variance", "ESS", "ms / step"]
    lines = [
        f"# {title}", "", advice["text"], "",
        "Mean ± standard deviation over seeds; differences to exact are paired by seed, ± standard "
        "error. Gradient variance: trace of the covariance over single samples, on the network "
        "that the exact estimator trained.", "",
        "| " + " | ".join(["point", *head]) + " |", "|" + "---|" * (len(head) + 1),
    ]  # fmt: skip
    for row in sorted(rows, key=lambda row: not row["exact"]):
        label = "**exact**" if row["exact"] else mark(row, advice)
        gap = row.get("minus_exact")
        ended = [status for status in row["statuses"].values() if status == "finished"]
        cells = [
            label,
            *("–" if row["values"][axis] is None else str(row["values"][axis]) for axis in axes),
            f"{len(ended)} of {len(row['statuses'])}" if not row["complete"] else str(len(ended)),
            number(row["validation_error"]),
            "–" if gap is None else number({"mean": gap["mean"], "std": gap["standard_error"]}),
            number(row["gradient_variance"]),
            number(row["ess"]),
            number(row["step_seconds"], 1e3),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def mark(row: Row, advice: Mapping[str, Any]) -> str:
    """What the advice says of a point."""
    named = [word for word, key in (("chosen", "point"), ("lowest", "best"))
             if advice[key] == row["name"]]  # fmt: skip
    return ", ".join(named)
