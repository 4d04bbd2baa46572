"""The rule, on measured problems and on made-up numbers."""

import csv
import json
import math

import pytest

from orbitdiff.diagnosis import LevelResult, Row, measure_level, recommend
from orbitdiff.diagnosis.arms import RotationArms
from orbitdiff.diagnosis.noise import Level
from orbitdiff.diagnosis.report import content_of, flat_rows, table, write_files
from orbitdiff.viz.diagnosis import diagnosis_figure

from .conftest import clouds, posed


def made_up(shares, *, isir=(0.2, 0.04), without=0.3):
    """Levels 1, 2, .. with given shares; error of i-SIR at K = 16 and 64, of Haar without."""
    levels = []
    for index, share in enumerate(shares):
        plain = math.sqrt(share)
        rows = [Row("exact", None, 10, 0.0, 0.0, None, None, 5.0)]
        rows.append(Row("plain", None, 10, plain, 0.0, None, None, 0.5))
        for count, error in zip((16, 64), isir, strict=True):
            rows.append(Row("haar", count, 10, plain, 0.1, 1.0, 1.0, 2.0 * count))
            rows.append(Row("haar_without_true", count, 10, without, 0.1, 1.0, 1.0, 2.0 * count))
            rows.append(Row("isir", count, 10, error, 0.1, 1.0, 1.0, 3.0 * count))
        level = Level(float(index + 1), (index + 1) / len(shares), 1 / len(shares))
        levels.append(LevelResult(level, share, tuple(rows)))
    return levels


def test_little_is_not_worth_it():
    advice = recommend(made_up([0.001, 0.009]), RotationArms(), unit=" Å")
    assert not advice.worth_it
    assert advice.estimator == "plain"
    assert advice.text.startswith("Not worth it here")
    assert "at most 0.9 %" in advice.text


def test_exact_otherwise_with_its_numbers():
    advice = recommend(made_up([0.01, 0.25, 0.64]), RotationArms(), unit=" Å")
    assert advice.worth_it
    assert advice.estimator == "rotation"
    assert advice.mean_share == pytest.approx(0.3)
    assert advice.close_samples == 64
    for part in (
        "removes 30 % of the target's power",
        "up to 64 %",
        "more than 10 % from 2 Å on",
        "more than 50 % from 3 Å on",
        "costs 5.00 µs per sample, the plain target 0.500",
        "K = 64, at 192 µs per sample, 38.4 times the exact mean",
        "(K = 64) are worse than no average at 1 of 3 levels, by up to 3.00 times",
    ):
        assert part in advice.text, advice.text


def test_sampled_estimators_that_never_come_close():
    advice = recommend(made_up([0.6, 0.2, 0.7], isir=(0.3, 0.2)), RotationArms(), unit=" Å")
    assert advice.close_samples is None
    assert "does not come within 5 % of it with up to K = 64: the error is 20 %" in advice.text
    assert "more than 50 % at 1, 3 Å" in advice.text
    assert "at none of these levels worse" in advice.text


@pytest.mark.usefixtures("few_elements")
def test_measured_rotations(tmp_path):
    tiny = posed(clouds(), 0.001, 0.01, samples=32)
    advice = recommend([measure_level(tiny, i) for i in (0, 1)], tiny.arms, unit=" Å")
    assert not advice.worth_it
    problem = posed(clouds(), 0.05, 20.0, samples=32)
    levels = [measure_level(problem, i) for i in (0, 1)]
    advice = recommend(levels, problem.arms, unit=" Å")
    assert advice.estimator == "rotation"
    assert "never train on them" in advice.text

    content = content_of(problem, levels, advice, config={"data": "clouds", "seed": 0})
    as_json, as_csv = write_files(content, levels, tmp_path / "out")
    read = json.loads(as_json.read_text(), parse_constant=lambda text: pytest.fail(text))
    assert read["config"] == {
        "data": "clouds", "seed": 0, "kernel": "gaussian", "group": "rotation",
        "parametrization": "data",
    }  # fmt: skip
    assert read["versions"]["torch"]
    assert read["hardware"]["cores"] >= 1
    assert read["data"]["structures"] == 5
    assert [level["share"] for level in read["levels"]] == [level.share for level in levels]
    with as_csv.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(flat_rows(levels)) == 2 * (2 + 2 * 3)
    assert float(rows[1]["error"]) == pytest.approx(math.sqrt(levels[0].share))
    lines = table(levels, problem.noise.label).splitlines()
    assert len(lines) == 5
    assert "20" in lines[-1]
    figure = diagnosis_figure(
        flat_rows(levels), tmp_path / "out" / "f.png", title="clouds", noise_label="noise (Å)"
    )
    assert figure.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
