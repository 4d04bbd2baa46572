import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from orbitdiff.errors import BadInput
from orbitdiff.export import write_samples
from pipelines.params import load
from pipelines.stages.base import LocalExecutor, NullTracker
from pipelines.stages.crystals import report


class Sources(HTMLParser):
    """Every address that a page would load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        wanted = {"src", "href", "data", "srcset", "action"}
        self.found += [value for name, value in attributes if name in wanted and value]


def addresses(path):
    parser = Sources()
    parser.feed(path.read_text())
    return parser.found


def write_run(root, crystals, arm, seed, *, rate, history, sampled=True, ess=False):
    name = f"cpu-perov_5-{arm}-{seed}"
    results = root / "results" / name
    results.mkdir(parents=True)
    metrics = {
        "run": {"estimator": arm, "seed": seed, "dataset": "perov_5", "preset": "cpu"},
        "match_rate_all": rate, "match_rate_valid": rate / 2, "rmse_all": 0.1 if rate else None,
        "metre": rate, "crmse_all": 0.3, "num_references": 8, "num_test": 3785,
        "samples_per_crystal": 1, "failures": 0, "note": "reduced training set",
        "sampler": {"sampler": "multistep", "steps": 50, "calls": 50},
        "matcher": {"stol": 0.5, "ltol": 0.3, "angle_tol": 10.0}, "validity_rules": "all: every",
    }  # fmt: skip
    (results / "metrics.json").write_text(json.dumps(metrics))
    lines = ["id,k,rmse,valid_generated,valid_reference,failure"]
    lines += [f"{c.id},0,{0.1 if i % 2 else ''},True,True," for i, c in enumerate(crystals)]
    (results / "per_sample.csv").write_text("\n".join(lines) + "\n")
    if history:
        lines = []
        for step in (100, 200, 300):
            train = {"kind": "train", "step": step, "step_seconds": 0.02}
            lines.append({**train, **({"ess_frac": 12.5} if ess else {})})
            mean = history * 0.9 ** (step / 100)
            lines.append({"kind": "validation", "step": step, "distance_mean": mean,
                          "distance": {"0.05": mean, "0.5": mean / 2}})  # fmt: skip
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (results / "history.jsonl").write_text(text)
    if sampled:
        folder = root / "samples" / name
        folder.mkdir(parents=True)
        drawn = [(c.id, 0, dataclasses.replace(c, frac=(c.frac + 0.2) % 1)) for c in crystals]
        write_samples(drawn, folder / "samples.parquet")
    return {f"run:{name}": results}


@pytest.fixture
def inputs(tmp_path, prepared):
    (tmp_path / "results").mkdir()
    return {
        "results": tmp_path / "results", "data": prepared, "samples": tmp_path / "samples",
    }  # fmt: skip


@pytest.fixture
def make(tmp_path):
    params = load().select("crystals", "cpu", dataset="perov_5", estimator="plain", seed=0)

    def run(inputs):
        out = tmp_path / "report"
        report.run(
            params, inputs, {"report": out}, executor=LocalExecutor(), tracker=NullTracker()
        )  # fmt: skip
        return out

    return run


def test_a_whole_report(tmp_path, crystals, inputs, make, capsys, monkeypatch):
    monkeypatch.setattr(report, "SHOWN", 2)
    for arm, rate, start in (("plain", 0.5, 1.0), ("isir", 0.6, 0.9), ("exact", 0.7, 0.8)):
        for seed in range(2):
            inputs |= write_run(tmp_path, crystals, arm, seed, rate=rate + 0.1 * seed,
                                history=start, ess=arm == "isir")  # fmt: skip
    inputs["calls:cpu-perov_5-exact-0"] = tmp_path / "calls.json"
    inputs["steps:cpu-perov_5-exact-0"] = tmp_path / "steps.json"
    points = [{"sampler": "multistep", "calls": c, "match_rate_all": c / 200} for c in (10, 100)]
    (tmp_path / "calls.json").write_text(json.dumps({"points": points}))
    points = [{"step": step, "match_rate_all": step / 1000} for step in (100, 600)]
    (tmp_path / "steps.json").write_text(json.dumps({"points": points}))
    out = make(inputs)
    names = {"cells.png", "distance_by_level.png", "ess_by_level.png", "learning_curves.png",
             "match_rate_by_calls.png", "match_rate_by_steps.png", "report.html", "structures.html", "table.json",
             "table.md"}  # fmt: skip
    assert {path.name for path in out.iterdir()} == names
    table = (out / "table.md").read_text()
    exact = next(line for line in table.splitlines() if line.startswith("| exact"))
    cells = [cell.strip() for cell in exact.strip("|").split("|")]
    assert cells[2] == "0.750 ± 0.071"
    assert cells[9] == "+0.200 ± 0.000"
    assert cells[8] == f"{-0.2 * 0.9**3:.4f} ± 0.0000"
    assert cells[10] == "100, 100"
    assert "rule: valid" in table
    assert "reduced training set" in table
    assert "8 of 3785 test crystals" in table
    rows = json.loads((out / "table.json").read_text(), parse_constant=pytest.fail)["rows"]
    assert [row["estimator"] for row in rows] == ["plain", "isir", "exact"]
    assert "report:" in capsys.readouterr().out
    page = (out / "report.html").read_text()
    assert page.count("<img alt=") == 6
    assert page.count("<figcaption>") == 6
    for name in ("report.html", "structures.html"):
        assert [a for a in addresses(out / name) if not a.startswith("data:")] == []
        assert not re.search(r"@import|url\(\s*['\"]?https?:", report_style(out / name))
        assert "Plotly.newPlot" in (out / name).read_text()
    picture = np.asarray(Image.open(out / "cells.png").convert("RGB"))
    assert picture.shape[1] > 1000
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1000


def report_style(path):
    found = re.search(r"<style>(.*?)</style>", path.read_text(), re.DOTALL)
    return found.group(1) if found else ""


def test_arms_seeds_samples_and_histories_may_be_missing(tmp_path, crystals, inputs, make):
    inputs |= write_run(tmp_path, crystals, "exact", 3, rate=0.0, history=None, sampled=False)
    inputs["run:cpu-perov_5-plain-0"] = tmp_path / "results" / "nowhere"
    out = make(inputs)
    table = (out / "table.md").read_text()
    assert "not there yet: cpu-perov_5-plain-0" in table
    assert "no training history: cpu-perov_5-exact-3" in table
    assert "nan" not in table.lower()
    assert "None" not in table
    assert (out / "cells.png").is_file()
    assert "not on this machine" in (out / "structures.html").read_text()


def test_a_cut_history_counts_up_to_the_cut(tmp_path, crystals, inputs):
    found = write_run(tmp_path, crystals, "plain", 0, rate=0.5, history=1.0)
    path = next(iter(found.values())) / "history.jsonl"
    path.write_text(path.read_text()[:-30])
    assert len(report.read_history(path)) == 5


def test_no_results_at_all(tmp_path, inputs, make):
    inputs["run:x"] = tmp_path / "none"
    with pytest.raises(BadInput, match="evaluate"):
        make(inputs)


def test_a_broken_result_is_named(tmp_path, crystals, inputs, make):
    found = write_run(tmp_path, crystals, "plain", 0, rate=0.5, history=1.0)
    path = next(iter(found.values())) / "metrics.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(BadInput, match=r"metrics\.json"):
        make(inputs | found)


def test_both_outcomes_are_shown(tmp_path, crystals, inputs):
    found = write_run(tmp_path, crystals, "exact", 0, rate=0.5, history=1.0)
    pairs = report.select_comparisons(
        tmp_path / "samples" / "cpu-perov_5-exact-0" / "samples.parquet",
        next(iter(found.values())),
        inputs["data"],
        num=4,
    )
    assert [pair.rmse for pair in pairs] == [0.1, 0.1, None, None]
    assert [pair.id for pair in pairs] == ["p1", "p3", "p0", "p2"]
