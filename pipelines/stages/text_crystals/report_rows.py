"""Rows of a text-guided report: figures over seeds by data set, task, kind of prompt and target."""

from collections.abc import Mapping, Sequence
from typing import Any

from orbitdiff.data.text_crystals import NONE
from orbitdiff.metrics.comparison import last_validation, paired, spread
from orbitdiff.tasks.text_crystals import DENOISED
from pipelines.stages.text_crystals.published import PUBLISHED

__all__ = ["COMPARED", "Run", "guidance_rows", "target_of", "text_rows"]

Run = Mapping[str, Any]
KINDS = (NONE, "composition", "short", "long")
TARGETS = ("plain", "orbdiff_u", "orbdiff_wn", "exact")
OBEYED = ("formula", "elements", "cell_system", "crystal_system", "spacegroup", "all_fields")
GENERATED = (
    "valid_structure", "valid_composition", "valid", "unique", "novel", "valid_unique_novel",
    "cov_r", "cov_p", "density_distance", "num_elements_distance",
)  # fmt: skip
FIGURES: dict[str, tuple[str, ...]] = {
    "match_rate": ("match_rate_all",),
    "match_rate_valid": ("match_rate_valid",),
    "rmse": ("rmse_all",),
    "crmse": ("crmse_all",),
    "match_rate_shuffled": ("shuffled", "match_rate_all"),
    **{name: ("text", name) for name in OBEYED},
    **{f"{name}_shuffled": ("shuffled", "text", name) for name in OBEYED},
    **{name: (name,) for name in GENERATED},
}
"""Figures of a row and where metrics.json has them."""
COMPARED = (
    "match_rate", "rmse", "crmse", "valid_unique_novel", "elements", "crystal_system",
    "spacegroup", "distance",
)  # fmt: skip
"""Figures whose differences are paired by seed."""
REFERENCES = {"permutations": "exact"}
"""Target that another one is compared with; `plain` where it is not named here."""


def figure(metrics: Mapping[str, Any], name: str) -> float | None:
    """Return a figure of `FIGURES`, None where the metrics do not have it."""
    found: Any = metrics
    for key in FIGURES[name]:
        found = found.get(key)
        if found is None:
            return None
    return float(found)


def target_of(about: Mapping[str, Any]) -> str:
    """Name of an arm's target: the arm's name less its text and types."""
    name: str = about["estimator"]
    return name.removesuffix("_types").removesuffix(f"_{about['text']}")


def text_rows(runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    """One row per data set, task, kind of prompt and target, in this order.

    Parameters
    ----------
    runs : mapping of run name to {"metrics": ..., "history": ...}

    Returns
    -------
    list of dict
        JSON types: `dataset`, `types`, `text`, `target`, `estimator`, `seeds`, figures as
        `spread`, `distance`, `against` and `paired` (differences to that target of the same
        prompt and seed) and `published`.
    """
    groups: dict[tuple[str, str, str, str], dict[int, Run]] = {}
    for found in runs.values():
        about = found["metrics"]["run"]
        key = (about["dataset"], about["types"], about["text"], target_of(about))
        groups.setdefault(key, {})[about["seed"]] = found

    def order(key: tuple[str, str, str, str]) -> tuple[Any, ...]:
        dataset, types, text, target = key
        place = TARGETS.index(target) if target in TARGETS else len(TARGETS)
        return dataset, types == DENOISED, KINDS.index(text), place, target

    return [_row(key, groups) for key in sorted(groups, key=order)]


def _row(
    key: tuple[str, str, str, str], groups: Mapping[tuple[str, str, str, str], Mapping[int, Run]]
) -> dict[str, Any]:
    dataset, types, text, target = key
    seeds = groups[key]
    any_seed = next(iter(seeds.values()))["metrics"]
    row: dict[str, Any] = {
        "dataset": dataset,
        "types": types,
        "text": text,
        "target": target,
        "estimator": any_seed["run"]["estimator"],
        "seeds": sorted(seeds),
    }
    for name in FIGURES:
        values = [figure(found["metrics"], name) for found in seeds.values()]
        known = [value for value in values if value is not None]
        if known:
            row[name] = spread(known)
    distances = [value for run in seeds.values() if (value := distance(run)) is not None]
    if distances:
        row["distance"] = spread(distances)
    reference = REFERENCES.get(target, "plain")
    if target != reference and (others := groups.get((dataset, types, text, reference))):
        row["against"] = reference
        row["paired"] = differences(seeds, others)
    published = PUBLISHED.get((dataset, text, target))
    if published is not None and types != DENOISED:
        row["published"] = published._asdict()
    return row


def distance(run: Run) -> float | None:
    """Distance to the exact target that training ended with, None where it was not measured."""
    end = last_validation(run["history"])
    return None if end is None else float(end["distance_mean"])


def differences(seeds: Mapping[int, Run], others: Mapping[int, Run]) -> dict[str, Any]:
    """Differences of an arm to another one, paired by seed, of each figure that both have."""
    found: dict[str, Any] = {}
    for name in COMPARED:
        known = []
        for seed in sorted({*seeds} & {*others}):
            mine, theirs = compared(seeds[seed], name), compared(others[seed], name)
            if mine is not None and theirs is not None:
                known.append(mine - theirs)
        if known:
            found[name] = paired(known)
    return found


def compared(run: Run, name: str) -> float | None:
    """Return a figure of `COMPARED`, None where the run does not have it."""
    return distance(run) if name == "distance" else figure(run["metrics"], name)


def guidance_rows(
    points: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
) -> list[dict[str, Any]]:
    """One row per arm and guidance weight: figures over seeds.

    Parameters
    ----------
    points : mapping of estimator to the points of each seed

    Returns
    -------
    list of dict
        JSON types: `estimator`, `guidance`, `seeds`, and figures as `spread`.
    """
    rows = []
    for name, seeds in points.items():
        for weight in [point["guidance"] for point in seeds[0]]:
            same = [point for seed in seeds for point in seed if point["guidance"] == weight]
            row: dict[str, Any] = {"estimator": name, "guidance": weight, "seeds": len(same)}
            for figure in ("match_rate_all", "rmse_all", "valid_generated"):
                known = [point[figure] for point in same if point.get(figure) is not None]
                if known:
                    row[figure] = spread(known)
            row |= {figure: spread([point["text"][figure] for point in same]) for figure in OBEYED}
            rows.append(row)
    return rows
