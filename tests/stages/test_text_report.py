"""Rows of a text-guided table: order, pairs, controls, published figures beside their own row."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.stages.text_crystals.published import PUBLISHED
from pipelines.stages.text_crystals.report_rows import guidance_rows, text_rows
from pipelines.stages.text_crystals.report_tables import (
    describe,
    difference_table,
    generation_table,
    guidance_table,
    prediction_table,
)

OBEYED = {name: 0.5 for name in ("formula", "elements", "cell_system", "crystal_system",
                                 "spacegroup", "all_fields")}  # fmt: skip
OBEYED |= {"symprec": 0.2, "angle_tolerance": 5.0}


def run(
    arm: str, seed: int, rate: float | None, *, dataset: str = "perov_5", types: str = "given",
    shuffled: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    text = arm.removesuffix("_types").rpartition("_")[2]
    metrics: dict[str, Any] = {
        "run": {"dataset": dataset, "estimator": arm, "seed": seed, "text": text, "types": types},
        "text": OBEYED,
        "note": "reduced training set",
        "num_train": 3811,
        "num_test": 3785,
        "num_references": 500,
        "prompts": {"encoder": "minilm", "max_tokens": 256, "over_the_limit": {"long": 7},
                    "fallbacks": {"long": {"robocrys KeyError": 2}}},
        "sampler": {"sampler": "multistep", "steps": 50, "calls": 50, "guidance": 1.0},
    }  # fmt: skip
    if types == "given":
        metrics |= {"match_rate_all": rate, "match_rate_valid": rate, "rmse_all": 0.1}
    else:
        metrics |= {"valid": 0.9, "novel": 1.0}
    if shuffled is not None:
        metrics["shuffled"] = {"match_rate_all": shuffled, "text": {**OBEYED, "formula": 0.1}}
    return {"metrics": metrics, "history": []}


RUNS = {
    str(number): found
    for number, found in enumerate([
        run("exact_short", 0, 0.70, shuffled=0.2), run("exact_short", 1, 0.80, shuffled=0.4),
        run("plain_short", 0, 0.60), run("plain_short", 1, 0.74), run("plain_none", 0, 0.5),
        run("orbdiff_wn_long", 0, 0.9), run("exact_composition", 0, 0.55),
        run("plain_short", 0, 0.3, dataset="mp_20"),
        run("exact_short_types", 0, None, types="denoised", shuffled=None),
    ])
}  # fmt: skip


def test_rows_by_data_set_text_and_target() -> None:
    rows = text_rows(RUNS)
    keys = [(row["dataset"], row["text"], row["target"], row["types"]) for row in rows]
    assert keys == [
        ("mp_20", "short", "plain", "given"),
        ("perov_5", "none", "plain", "given"),
        ("perov_5", "composition", "exact", "given"),
        ("perov_5", "short", "plain", "given"),
        ("perov_5", "short", "exact", "given"),
        ("perov_5", "long", "orbdiff_wn", "given"),
        ("perov_5", "short", "exact", "denoised"),
    ]
    exact = rows[4]
    assert exact["match_rate"]["mean"] == pytest.approx(0.75)
    assert exact["match_rate_shuffled"]["mean"] == pytest.approx(0.3)
    assert exact["formula_shuffled"]["mean"] == pytest.approx(0.1)
    assert exact["against"] == "plain"
    assert exact["paired"]["match_rate"]["mean"] == pytest.approx((0.10 + 0.06) / 2)
    assert exact["paired"]["match_rate"]["standard_error"] == pytest.approx(0.02)
    assert "paired" not in rows[3]
    assert "paired" not in rows[2], "there is no plain arm of this kind"
    assert "match_rate" not in rows[6]
    assert rows[6]["valid"]["mean"] == 0.9


def test_permutations_are_compared_with_translations_alone() -> None:
    runs = {
        "a": run("permutations_short", 0, 0.5), "b": run("exact_short", 0, 0.6),
        "c": run("exact_short", 1, 0.9), "d": run("plain_short", 0, 0.1),
    }  # fmt: skip
    for name, end in {"a": 0.3, "b": 0.1, "c": 0.2}.items():
        runs[name]["history"] += [{"kind": "validation", "step": 1, "distance_mean": end}]
    plain, exact, permutations = text_rows(runs)
    assert "paired" not in plain
    assert exact["paired"].keys() >= {"match_rate", "rmse", "spacegroup"}
    assert "distance" not in exact["paired"], "plain did not measure it"
    assert permutations["against"] == "exact"
    found = permutations["paired"]
    assert found["match_rate"] == {
        "mean": pytest.approx(-0.1), "standard_error": None, "seeds": 1
    }  # fmt: skip
    assert found["distance"]["mean"] == pytest.approx(0.2)


def test_published_figures_stand_in_their_own_rows_alone() -> None:
    rows = {(row["dataset"], row["text"], row["target"], row["types"]): row
            for row in text_rows(RUNS)}  # fmt: skip
    found = rows["perov_5", "short", "plain", "given"]["published"]
    assert (found["match"], found["rmse"]) == (59.39, 0.066)
    assert rows["mp_20", "short", "plain", "given"]["published"]["match"] == 59.90
    assert rows["perov_5", "long", "orbdiff_wn", "given"]["published"]["match"] == 95.98
    without = [row for key, row in rows.items() if "exact" in key]
    assert without
    assert not any("published" in row for row in without)
    assert all(0 < row.match < 100 and row.source for row in PUBLISHED.values())


def test_tables_and_notes() -> None:
    rows = text_rows(RUNS)
    table = prediction_table([row for row in rows if row["types"] == "given"])
    assert all(len(line) == len(table.head) for line in table.rows)
    line = next(line for line in table.rows if line[:3] == ["perov_5", "short", "exact"])
    assert line[4] == "0.750 ± 0.071"
    compared = difference_table(rows)
    assert all(len(line) == len(compared.head) for line in compared.rows)
    (line,) = compared.rows
    assert line[:7] == [
        "perov_5", "composition", "short", "exact", "plain", "2", "+0.0800 ± 0.0200"
    ]  # fmt: skip
    generated = generation_table(rows[-1:])
    assert all(len(line) == len(generated.head) for line in generated.rows)
    point = {"guidance": 2.0, "match_rate_all": 0.4, "text": OBEYED}
    rows = guidance_rows({"exact_short": [[point], [{**point, "match_rate_all": 0.6}]]})
    swept = guidance_table(rows)
    assert swept.rows[0][:4] == ["exact_short", "2", "2", "0.500 ± 0.141"]
    assert len(swept.rows[0]) == len(swept.head)
    settings = SimpleNamespace(
        train=SimpleNamespace(steps=6000, batch_size=64),
        model=SimpleNamespace(text=SimpleNamespace(dropout=0.1)),
    )
    notes = "\n".join(
        describe(SimpleNamespace(settings=settings), RUNS, ["late"], num_parameters=1234567)
    )
    for part in ("7 long", "2 long", "1,234,567", "not there yet: late", "mp_20: reduced"):
        assert part in notes
