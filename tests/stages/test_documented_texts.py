"""docs/text_crystals.md says what the table of Perov-5 says."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/text_crystals.md").read_text()
TABLE = json.loads((ROOT / "reports/text_crystals/cpu/table.json").read_text())
ROWS = {
    (row["text"], row["target"]): row
    for row in TABLE["rows"]
    if (row["dataset"], row["types"]) == ("perov_5", "given")
}
COMPARED = ("match_rate", "rmse", "crmse", "spacegroup", "distance")


def shown(found: dict[str, Any]) -> str:
    error = "" if found["standard_error"] is None else f" ± {found['standard_error']:.3f}"
    return f"{found['mean']:+.3f}{error}"


@pytest.mark.parametrize("text", sorted({text for text, target in ROWS if target == "exact"}))
def test_exact_minus_plain(text: str) -> None:
    found = ROWS[text, "exact"]["paired"]
    assert ROWS[text, "exact"]["against"] == "plain"
    cells = [shown(found[name]) for name in COMPARED]
    seeds = max(each["seeds"] for each in found.values())
    assert f"| {text} | {seeds} | {' | '.join(cells)} |\n" in PAGE


@pytest.mark.parametrize("text", sorted({text for text, _ in ROWS if text != "none"}))
def test_obeyed(text: str) -> None:
    row = ROWS[text, "exact"]
    own, other, without = row["spacegroup"], row["spacegroup_shuffled"], ROWS["none", "exact"]
    line = f"| {text} | {own['mean']:.3f} | {other['mean']:.3f} | {without['spacegroup']['mean']:.3f} |\n"
    assert line in PAGE
