"""Arms of an experiment side by side: mean and spread over seeds, paired differences to plain."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

__all__ = [
    "arm_rows",
    "by_arm",
    "distance_by_level",
    "last_validation",
    "last_validations",
    "mean_while_training",
    "paired",
    "spread",
    "steps_to_reach",
]

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


def last_validations(seeds: Mapping[int, Run]) -> list[Mapping[str, Any]]:
    """Last validation record of each seed that has one."""
    last = (last_validation(found["history"]) for found in seeds.values())
    return [record for record in last if record is not None]


def distance_by_level(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Spread over seeds of the distance at each noise level that all records have.

    Parameters
    ----------
    records : sequence of validation records
        At least one, one per seed.
    """
    return {
        level: spread([record["distance"][level] for record in records])
        for level in records[0].get("distance", {})
        if all(level in record["distance"] for record in records)
    }


def mean_while_training(seeds: Mapping[int, Run], key: str) -> float | None:
    """Mean of a figure of the training records over all seeds, None where no record has it."""
    train = [record for found in seeds.values() for record in of_kind(found["history"], "train")]
    known = [record[key] for record in train if key in record]
    return mean(known) if known else None


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


def by_arm(runs: Mapping[str, Run]) -> dict[str, dict[int, Run]]:
    """Runs of each estimator by seed.

    Parameters
    ----------
    runs : mapping of run name to {"metrics": ..., "history": ...}
        `metrics` names estimator and seed under `run`.
    """
    arms: dict[str, dict[int, Run]] = {}
    for found in runs.values():
        about = found["metrics"]["run"]
        arms.setdefault(about["estimator"], {})[about["seed"]] = found
    return arms


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
    arms = by_arm(runs)
    order = sorted(arms, key=lambda name: name != BASELINE)
    return [_row(name, arms[name], arms.get(BASELINE, {})) for name in order]


def _row(name: str, seeds: Mapping[int, Run], plain: Mapping[int, Run]) -> dict[str, Any]:
    row: dict[str, Any] = {"estimator": name, "seeds": sorted(seeds)}
    for metric in METRICS:
        values = [found["metrics"].get(metric) for found in seeds.values()]
        known = [value for value in values if value is not None]
        if known:
            row[metric] = spread(known)
    final = last_validations(seeds)
    if final:
        row["distance"] = spread([record["distance_mean"] for record in final])
        row["distance_by_sigma"] = distance_by_level(final)
    for target, source in (("step_seconds", "step_seconds"), ("ess", "ess_frac")):
        found = mean_while_training(seeds, source)
        if found is not None:
            row[target] = found
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
