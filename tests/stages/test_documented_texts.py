"""docs/text_crystals.md says what the tables of Perov-5 and MP-20 say."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/text_crystals.md").read_text()
REPORTS = {"Perov-5": "cpu", "MP-20": "cpu_mp_20"}
COMPARED = ("match_rate", "rmse", "crmse", "spacegroup", "distance")
DRAWN = (
    "valid", "valid_unique_novel", "cov_r", "cov_p", "elements", "elements_shuffled",
    "spacegroup", "spacegroup_shuffled",
)  # fmt: skip


def shown(found: Mapping[str, Any] | None, *, sign: str = "") -> str:
    if found is None:
        return "–"
    error = found.get("standard_error") if sign else found.get("std")
    return f"{found['mean']:{sign}.3f}" + ("" if error is None else f" ± {error:.3f}")


def lines(name: str) -> Iterator[str]:
    """Yield the lines of the documented tables of a data set, in their order."""
    table = json.loads((ROOT / "reports/text_crystals" / REPORTS[name] / "table.json").read_text())
    given = [row for row in table["rows"] if row["types"] == "given"]
    for row in given:
        if "paired" in row:
            found = row["paired"]
            seeds = max(one["seeds"] for one in found.values())
            cells = [shown(found.get(figure), sign="+") for figure in COMPARED]
            arms = f"{row['text']} | {row['target']} - {row['against']}"
            yield f"| {arms} | {seeds} | {' | '.join(cells)} |"
    without = next(row for row in given if (row["text"], row["target"]) == ("none", "exact"))
    for row in given:
        if row["target"] == "exact" and row["text"] != "none":
            found = (row["spacegroup"], row["spacegroup_shuffled"], without["spacegroup"])
            own, other, none = (f"{one['mean']:.3f}" for one in found)
            yield f"| {row['text']} | {own} | {other} | {none} |"
    for row in table["rows"]:
        if row["types"] == "denoised":
            cells = [shown(row.get(figure)) for figure in DRAWN]
            yield f"| {row['text']} | {row['target']} | {len(row['seeds'])} | {' | '.join(cells)} |"
    for row in table["guidance"]:
        found = (shown(row.get(figure)) for figure in ("match_rate_all", "elements", "spacegroup"))
        yield f"| {row['estimator']} | {row['guidance']:g} | {' | '.join(found)} |"


@pytest.mark.parametrize("name", REPORTS)
def test_documented_tables(name: str) -> None:
    if not (ROOT / "reports/text_crystals" / REPORTS[name]).is_dir():
        pytest.skip(f"no report of {name} yet")
    section = PAGE.split(f"\n## {name}\n")[1].split("\n## ")[0]
    absent = [line for line in lines(name) if f"\n{line}\n" not in section]
    assert not absent
