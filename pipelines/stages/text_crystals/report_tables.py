"""Tables and notes of a text-guided report: by kind of prompt and target, over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from orbitdiff.tasks.text_crystals import DENOISED
from orbitdiff.viz.page import NOTHING, Table, plus_minus
from orbitdiff.viz.style import arm_label
from pipelines.stages.text_crystals.report_rows import COMPARED, Run

__all__ = [
    "describe",
    "difference_table",
    "generation_table",
    "guidance_table",
    "prediction_table",
]


def cells(row: Mapping[str, Any]) -> list[str]:
    """First cells of every table."""
    return [row["dataset"], row["text"], arm_label(row["target"]), str(len(row["seeds"]))]


def prediction_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Structure prediction given the composition, and a text where the row has one."""
    head = [
        "data set", "text", "target", "seeds", "match rate (all)", "match rate (valid)",
        "RMSE (all)", "cRMSE (all)", "match, shuffled texts", "cell obeyed",
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
            plus_minus(row.get("crmse"), digits=3),
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


def difference_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Differences to plain of the same text, paired by seed; permutations to translations alone."""
    names = {
        "match_rate": "match rate", "rmse": "RMSE", "crmse": "cRMSE",
        "valid_unique_novel": "valid, unique, novel", "elements": "elements obeyed",
        "crystal_system": "crystal system obeyed", "spacegroup": "space group obeyed",
        "distance": "distance to exact target",
    }  # fmt: skip
    body = [
        [
            row["dataset"], "text alone" if row["types"] == DENOISED else "composition",
            row["text"], arm_label(row["target"]), arm_label(row["against"]),
            str(max(found["seeds"] for found in row["paired"].values())),
            *(plus_minus(row["paired"].get(name), "standard_error", 4) for name in COMPARED),
        ]
        for row in rows if row.get("paired")
    ]  # fmt: skip
    head = ["data set", "given", "text", "target", "minus", "seeds"]
    head += [names[name] for name in COMPARED]
    return Table("Differences, paired by seed (± standard error)", head, body)


def guidance_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Figures against the guidance weight, mean over seeds of each arm."""
    names = {
        "match_rate_all": "match rate (all)", "rmse_all": "RMSE (all)",
        "valid_generated": "valid", "formula": "formula", "elements": "elements",
        "cell_system": "cell", "crystal_system": "crystal system", "spacegroup": "space group",
    }  # fmt: skip
    body = [
        [
            row["estimator"], f"{row['guidance']:g}", str(row["seeds"]),
            *(plus_minus(row.get(name), digits=3) for name in names),
        ]
        for row in rows
    ]  # fmt: skip
    head = ["arm", "guidance weight", "seeds", *names.values()]
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
        "mean ± standard deviation over seeds; RMSE is that of the matches, cRMSE counts every "
        "crystal, one without a match as the matcher's tolerance (0.5)",
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
