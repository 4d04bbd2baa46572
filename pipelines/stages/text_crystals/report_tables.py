"""Tables and notes of a text-guided report: by kind of prompt and target, over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from orbitdiff.data.text_crystals import NONE
from orbitdiff.metrics.comparison import last_validation, paired, spread
from orbitdiff.tasks.text_crystals import DENOISED
from orbitdiff.viz.page import NOTHING, Table, plus_minus
from orbitdiff.viz.style import arm_label
from pipelines.stages.text_crystals.published import PUBLISHED

__all__ = [
    "describe",
    "generation_table",
    "guidance_table",
    "prediction_table",
    "target_of",
    "text_rows",
]

Run = Mapping[str, Any]
KINDS = (NONE, "composition", "short", "long")
TARGETS = ("plain", "orbdiff_u", "orbdiff_wn", "exact")
OBEYED = ("formula", "elements", "cell_system", "crystal_system", "spacegroup", "all_fields")
POINT = ("match_rate_all", "rmse_all", "valid_generated")
GENERATED = (
    "valid_structure", "valid_composition", "valid", "unique", "novel", "valid_unique_novel",
    "cov_r", "cov_p", "density_distance", "num_elements_distance",
)  # fmt: skip
FIGURES: dict[str, tuple[str, ...]] = {
    "match_rate": ("match_rate_all",),
    "match_rate_valid": ("match_rate_valid",),
    "rmse": ("rmse_all",),
    "match_rate_shuffled": ("shuffled", "match_rate_all"),
    **{name: ("text", name) for name in OBEYED},
    **{f"{name}_shuffled": ("shuffled", "text", name) for name in OBEYED},
    **{name: (name,) for name in GENERATED},
}
"""Figures of a row and where metrics.json has them."""


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
        `spread`, `distance`, `paired_match_rate` (to plain of the same prompt and seed) and
        `published`.
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
    ends = [last_validation(found["history"]) for found in seeds.values()]
    distances = [end["distance_mean"] for end in ends if end is not None]
    if distances:
        row["distance"] = spread(distances)
    plain = groups.get((dataset, types, text, "plain"), {})
    both = sorted(set(plain) & set(seeds)) if target != "plain" else []
    rates = [
        (seeds[seed]["metrics"].get("match_rate_all"), plain[seed]["metrics"].get("match_rate_all"))
        for seed in both
    ]
    differences = [mine - theirs for mine, theirs in rates if None not in (mine, theirs)]
    if differences:
        row["paired_match_rate"] = paired(differences)
    published = PUBLISHED.get((dataset, text, target))
    if published is not None and types != DENOISED:
        row["published"] = published._asdict()
    return row


def cells(row: Mapping[str, Any]) -> list[str]:
    """First cells of every table."""
    return [row["dataset"], row["text"], arm_label(row["target"]), str(len(row["seeds"]))]


def prediction_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Structure prediction given the composition, and a text where the row has one."""
    head = [
        "data set", "text", "target", "seeds", "match rate (all)", "match rate (valid)",
        "RMSE (all)", "match − plain (paired)", "match, shuffled texts", "cell obeyed",
        "shuffled", "crystal system obeyed", "shuffled", "space group obeyed", "shuffled",
        "distance to exact target",
        "published match % / RMSE", "source",
    ]  # fmt: skip
    body = []
    for row in rows:
        published = row.get("published")
        body.append([
            *cells(row),
            plus_minus(row.get("match_rate"), digits=3),
            plus_minus(row.get("match_rate_valid"), digits=3),
            plus_minus(row.get("rmse"), digits=3),
            plus_minus(row.get("paired_match_rate"), "standard_error", 3),
            plus_minus(row.get("match_rate_shuffled"), digits=3),
            plus_minus(row.get("cell_system"), digits=3),
            plus_minus(row.get("cell_system_shuffled"), digits=3),
            plus_minus(row.get("crystal_system"), digits=3),
            plus_minus(row.get("crystal_system_shuffled"), digits=3),
            plus_minus(row.get("spacegroup"), digits=3),
            plus_minus(row.get("spacegroup_shuffled"), digits=3),
            plus_minus(row.get("distance")),
            f"{published['match']:.2f} / {published['rmse']:.3f}" if published else NOTHING,
            published["source"] if published else NOTHING,
        ])  # fmt: skip
    return Table("Structure prediction given the composition", head, body)


def generation_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Crystals drawn from a text alone."""
    names = {
        "valid_structure": "valid structure", "valid_composition": "valid composition",
        "unique": "unique", "novel": "novel", "valid_unique_novel": "valid, unique, novel",
        "cov_r": "COV-R", "cov_p": "COV-P", "density_distance": "density distance (g/cm³)",
        "num_elements_distance": "number of elements distance", "formula": "formula obeyed",
        "formula_shuffled": "shuffled", "elements": "elements obeyed",
        "elements_shuffled": "shuffled", "cell_system": "cell obeyed",
        "cell_system_shuffled": "shuffled", "crystal_system": "crystal system obeyed",
        "crystal_system_shuffled": "shuffled", "spacegroup": "space group obeyed",
        "spacegroup_shuffled": "shuffled",
    }  # fmt: skip
    body = [[*cells(row), *(plus_minus(row.get(name), digits=3) for name in names)] for row in rows]
    head = ["data set", "text", "target", "seeds", *names.values()]
    return Table("Generation given the text alone", head, body)


def guidance_table(points: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> Table:
    """Figures against the guidance weight, mean over seeds of each arm.

    Parameters
    ----------
    points : mapping of estimator to points of each seed
    """
    body = []
    for name, seeds in points.items():
        for weight in [point["guidance"] for point in seeds[0]]:
            same = [point for seed in seeds for point in seed if point["guidance"] == weight]
            columns = [
                *([point.get(key) for point in same] for key in POINT),
                *([point["text"][key] for point in same] for key in OBEYED[:-1]),
            ]
            known = [[float(one) for one in column if one is not None] for column in columns]
            body.append([
                name, f"{weight:g}", str(len(same)),
                *(plus_minus(spread(one) if one else None, digits=3) for one in known),
            ])  # fmt: skip
    head = [
        "arm", "guidance weight", "seeds", "match rate (all)", "RMSE (all)", "valid", "formula",
        "elements", "cell", "crystal system", "space group",
    ]  # fmt: skip
    return Table("Guidance: weight 0 ignores the text, 1 is the network as trained", head, body)


def describe(
    params: Any, runs: Mapping[str, Run], missing: Sequence[str], *, num_parameters: int
) -> list[str]:
    """Notes under the tables: what was measured on what, what is not there."""
    notes = []
    for dataset in sorted({found["metrics"]["run"]["dataset"] for found in runs.values()}):
        first = next(
            found["metrics"] for found in runs.values()
            if found["metrics"]["run"]["dataset"] == dataset
        )  # fmt: skip
        prompts = first["prompts"]
        number = first.get("num_references", first.get("num_samples", "?"))
        fallen = ", ".join(
            f"{sum(found.values())} {kind}" for kind, found in prompts["fallbacks"].items()
            if found
        )  # fmt: skip
        cut = ", ".join(
            f"{count} {kind}" for kind, count in prompts["over_the_limit"].items() if count
        )
        notes += [
            f"{dataset}: {first['note']}, {first['num_train']} training crystals; {number} of "
            f"{first['num_test']} test crystals (the first by sha256 of their id)",
            f"{dataset}: texts by {prompts['encoder']}, {prompts['max_tokens']} tokens at most, "
            f"longer ones cut: {cut or 'none'}; long prompts that robocrys could not write and "
            f"that are short ones instead: {fallen or 'none'}",
        ]
    first = next(iter(runs.values()))["metrics"]
    text = first["text"]
    notes += [
        f"network of {num_parameters:,} parameters without text, {params.settings.train.steps} "
        f"steps of {params.settings.train.batch_size} crystals, the same for every arm; vectors "
        "are standardised by the training texts, "
        f"{params.settings.model.text.dropout:.0%} of texts left out in training",
        *samplers_of(runs),
        "obeyed: a drawn crystal has what its text's crystal has; symmetry of both by pymatgen's "
        f"SpacegroupAnalyzer at {text['symprec']:g} angstrom and {text['angle_tolerance']:g} "
        "degrees (texts state it at 0.01 angstrom); cell: the bare cell has at least the symmetry "
        "of that system. Rows without text show how often that happens by itself",
        "shuffled: each crystal was drawn with the text of the next test crystal by hash, and "
        "measured against its own",
        "mean ± standard deviation over seeds; paired differences to plain of the same text and "
        "seed ± standard error over seeds",
    ]
    failures = sum(found["metrics"].get("failures", 0) for found in runs.values())
    if failures:
        notes.append(f"{failures} comparison(s) failed and count as no match")
    if missing:
        notes.append(f"not there yet: {', '.join(missing)}")
    return notes


def samplers_of(runs: Mapping[str, Run]) -> list[str]:
    """Say how structures were drawn, a line for each way."""
    lines = []
    for found in runs.values():
        about, types = found["metrics"]["sampler"], found["metrics"]["run"]["types"]
        what = "generation" if types == DENOISED else "structure prediction"
        lines.append(
            f"{what}: sampler {about['sampler']}, {about['steps']} steps, {about['calls']} network "
            f"calls per structure, guidance weight {about['guidance']:g}"
        )
    return list(dict.fromkeys(lines))
