"""Arms of an experiment side by side: mean and spread over seeds, paired differences to plain."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

__all__ = ["arm_rows", "last_validation", "paired", "spread", "steps_to_reach"]

Run = Mapping[str, Any]
"""{"metrics": content of metrics.json, "history": records of history.jsonl}."""

BASELINE = "plain"
METRICS = (
    "match_rate_all", "match_rate_valid", "rmse_all", "rmse_valid", "metre",
    "crmse_all", "crmse_valid", "valid_generated",
)  # fmt: skip


def of_kind(history: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    """Records of one kind, `train` or `validation`."""
    return [record for record in history if record.get("kind") == kind]


def last_validation(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the last validation record, None where there is none."""
    found = [record for record in of_kind(history, "validation") if "distance_mean" in record]
    return found[-1] if found else None


def steps_to_reach(history: Sequence[Mapping[str, Any]], level: float) -> int | None:
    """First validated step with a distance of at most `level`, None where it stays above.

    Parameters
    ----------
    history : sequence of records
    level : float
    """
    for record in of_kind(history, "validation"):
        if record.get("distance_mean", math.inf) <= level:
            return int(record["step"])
    return None


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation over seeds (None for one seed), number of seeds."""
    deviation = stdev(values) if len(values) > 1 else None
    return {"mean": mean(values), "std": deviation, "seeds": len(values)}


def paired(differences: Sequence[float]) -> dict[str, Any]:
    """Mean paired difference and its standard error over seeds (None for one seed).

    error = s / sqrt(n)

    Parameters
    ----------
    differences : sequence of float
        Arm minus baseline, one per seed that both have.
    """
    count = len(differences)
    error = stdev(differences) / math.sqrt(count) if count > 1 else None
    return {"mean": mean(differences), "standard_error": error, "seeds": count}


def arm_rows(runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    """One row per estimator; what no run of it has is left out of the row.

    Parameters
    ----------
    runs : mapping of run name to {"metrics": ..., "history": ...}

    Returns
    -------
    list of dict
        JSON types. `estimator`, `seeds`, metrics as `spread`, `distance`,
        `distance_by_sigma`, `step_seconds`, `ess`, and against plain of the same seed:
        `paired_distance`, `paired_match_rate`, `steps_to_plain`.
    """
    arms: dict[str, dict[int, Run]] = {}
    for found in runs.values():
        about = found["metrics"]["run"]
        arms.setdefault(about["estimator"], {})[about["seed"]] = found
    order = sorted(arms, key=lambda name: name != BASELINE)
    return [_row(name, arms[name], arms.get(BASELINE, {})) for name in order]


def _row(name: str, seeds: Mapping[int, Run], plain: Mapping[int, Run]) -> dict[str, Any]:
    row: dict[str, Any] = {"estimator": name, "seeds": sorted(seeds)}
    for metric in METRICS:
        values = [found["metrics"].get(metric) for found in seeds.values()]
        known = [value for value in values if value is not None]
        if known:
            row[metric] = spread(known)
    last = {seed: last_validation(found["history"]) for seed, found in seeds.items()}
    final = {seed: record for seed, record in last.items() if record is not None}
    if final:
        row["distance"] = spread([record["distance_mean"] for record in final.values()])
        levels = next(iter(final.values())).get("distance", {})
        row["distance_by_sigma"] = {
            level: spread([record["distance"][level] for record in final.values()])
            for level in levels
            if all(level in record["distance"] for record in final.values())
        }
    train = [record for found in seeds.values() for record in of_kind(found["history"], "train")]
    for target, source in (("step_seconds", "step_seconds"), ("ess", "ess_frac")):
        known = [record[source] for record in train if source in record]
        if known:
            row[target] = mean(known)
    if name != BASELINE:
        row.update(_against(seeds, plain))
    return row


def _against(seeds: Mapping[int, Run], plain: Mapping[int, Run]) -> dict[str, Any]:
    """Differences to plain over the seeds that both have."""
    out: dict[str, Any] = {}
    distances, rates, reached = [], [], []
    for seed in sorted(set(seeds) & set(plain)):
        mine, theirs = seeds[seed], plain[seed]
        ends = last_validation(mine["history"]), last_validation(theirs["history"])
        if ends[0] is not None and ends[1] is not None:
            distances.append(ends[0]["distance_mean"] - ends[1]["distance_mean"])
            reached.append(steps_to_reach(mine["history"], ends[1]["distance_mean"]))
        both = [run["metrics"].get("match_rate_all") for run in (mine, theirs)]
        if None not in both:
            rates.append(both[0] - both[1])
    if distances:
        out["paired_distance"] = paired(distances)
        out["steps_to_plain"] = reached
    if rates:
        out["paired_match_rate"] = paired(rates)
    return out
