"""docs/conformers.md says what the result files say."""

import json
import re
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = " ".join((ROOT / "docs/conformers.md").read_text().split())
RESULTS = ROOT / "results/conformers/cpu"
TABLE = json.loads((ROOT / "reports/conformers/cpu/table.json").read_text())
ROWS = {row["estimator"]: row for row in [*TABLE["rows"], *TABLE["finetuned"]]}
FIGURES = ("amr_r_mean", "amr_p_mean")


def shown(found: dict[str, Any]) -> str:
    return f"{found['mean']:+.4f} ± {found['standard_error']:.4f}"


@pytest.mark.parametrize(
    "arm", ["aligned", "aligned_permutations", "published", "independent_exact", "independent"]
)
def test_paired_differences(arm: str) -> None:
    found = [ROWS[arm]["paired"][figure] for figure in FIGURES]
    cells = [*map(shown, found), ", ".join(str(each["better"]) for each in found)]
    assert f"| `{arm}` | {' | '.join(cells)} |" in PAGE
    assert all(each["seeds"] == 3 for each in found)


def test_fine_tunes() -> None:
    for figure in FIGURES:
        assert shown(ROWS["tuned_exact"]["paired"][figure]) in PAGE


def whole(run: str) -> dict[str, float]:
    found = json.loads((RESULTS / "whole" / f"cpu-geom_qm9-{run}" / "metrics.json").read_text())
    assert found["num_molecules"] == 500
    return found


def test_whole_test_set() -> None:
    ours, theirs = whole("aligned_permutations-1"), whole("et_flow-1")
    pairs = [f"{ours[figure]:.4f} against {theirs[figure]:.4f}" for figure in FIGURES]
    assert f"{pairs[1]}, AMR-R {pairs[0]}" in PAGE
    best = whole("aligned_permutations-0")
    assert f"AMR-R {whole('aligned-0')['amr_r_mean']:.3f} (`aligned`, seed 0)" in PAGE
    assert f"AMR-P {best['amr_p_mean']:.3f} (`aligned_permutations`)" in PAGE
    assert f"higher than ours ({best['cov_p_0.5_mean']:.3f})" in PAGE


def last_distance(arm: str, time: str) -> float:
    values = []
    for path in sorted(RESULTS.glob(f"cpu-geom_qm9-{arm}-[0-9]/history.jsonl")):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        values.append([r["distance"][time] for r in records if "distance" in r][-1])
    assert len(values) == 3
    return mean(values)


def test_distances_of_the_networks() -> None:
    independent = [f"{last_distance('independent_exact', time):.3f}" for time in ("0.2", "0.4")]
    aligned = [f"{last_distance('aligned_permutations', time):.3f}" for time in ("0.2", "0.4")]
    assert f"{' and '.join(independent)} angstrom² with the independent coupling" in PAGE
    assert f"{' and '.join(aligned)} with the aligned one" in PAGE
    assert last_distance("independent_exact", "0.8") < 0.055


def test_calls_change_little() -> None:
    fall = re.search(r"100 Euler calls AMR-R falls by (\d\.\d+) with either coupling", PAGE)
    assert fall
    for arm in ("aligned-0", "independent_exact-0"):
        path = RESULTS / "curves" / f"cpu-geom_qm9-{arm}-calls.json"
        points = json.loads(path.read_text())["points"]
        euler = {p["calls"]: p["amr_r_mean"] for p in points if p["sampler"] == "Euler"}
        assert f"{euler[20] - euler[100]:.3f}" == fall[1]


def test_network_without_symmetry() -> None:
    table = json.loads((ROOT / "reports/conformers/dit/table.json").read_text())
    rows = {row["estimator"]: row for row in table["rows"]}

    def value(arm: str, figure: str) -> str:
        return f"{rows[arm][figure]['mean']:.3f}"

    plain, exact = "independent", "independent_exact"
    changes = [f"{value(plain, figure)} to {value(exact, figure)}" for figure in FIGURES]
    assert f"AMR-R {changes[0]}, AMR-P {changes[1]}" in PAGE
    aligned = [value("aligned", figure) for figure in FIGURES]
    assert f"`aligned` has {aligned[0]} and {aligned[1]}" in PAGE
    assert all(row["seeds"] == [0] for row in rows.values())
