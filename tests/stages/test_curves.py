import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from orbitdiff.errors import BadInput
from orbitdiff.inference import demo_checkpoint
from orbitdiff.samplers.config import SamplerConfig
from pipelines.params import load
from pipelines.stages.base import LocalExecutor, NullTracker
from pipelines.stages.crystals import calls, evaluate, sample, steps
from pipelines.stages.crystals.report import read_points

FEW = SamplerConfig("multistep", 4)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The shipped model, with two snapshots: itself at different steps."""
    folder = tmp_path / "model"
    shutil.copytree(demo_checkpoint(), folder)
    (folder / "history.jsonl").touch()
    for step in (400, 1200):
        shutil.copytree(demo_checkpoint(), folder / "snapshots" / f"{step:07d}")
    return folder


@pytest.fixture
def params():
    chosen = load().select("crystals", "demo", dataset="prototypes", estimator="plain", seed=0)
    settings = chosen.settings
    settings = replace(
        settings,
        sample=replace(settings.sample, num_test=8, sampler=FEW),
        curves=replace(settings.curves, num_test=8, samplers=(FEW, replace(FEW, steps=6))),
    )
    return replace(chosen, settings=settings)


def run(stage, params, prepared, model, **outputs):
    inputs = {"data": prepared, "model": model, **outputs.pop("inputs", {})}
    stage.run(params, inputs, outputs, executor=LocalExecutor(), tracker=NullTracker())


def test_a_snapshot_scores_what_the_sample_and_evaluate_stages_say(
    tmp_path, prepared, model, params
):
    samples, results = tmp_path / "samples", tmp_path / "results"
    run(sample, params, prepared, model, samples=samples)
    run(evaluate, params, prepared, model, inputs={"samples": samples}, results=results)
    metrics = json.loads((results / "metrics.json").read_text())
    run(steps, params, prepared, model, curve=tmp_path / "curves" / "steps.json")
    found = json.loads((tmp_path / "curves" / "steps.json").read_text())
    assert [point["step"] for point in found["points"]] == [400, 1200]
    for point in found["points"]:
        assert point["match_rate_all"] == metrics["match_rate_all"]
        assert point["rmse_all"] == metrics["rmse_all"]
        assert point["num_references"] == 8
    assert found["run"]["estimator"] == "plain"


def test_every_sampler_is_a_point_that_the_report_reads(tmp_path, prepared, model, params):
    path = tmp_path / "calls.json"
    run(calls, params, prepared, model, curve=path)
    runs = {"some-run": {"metrics": {"run": {"estimator": "plain"}}}}
    points = read_points({"calls:some-run": path}, "calls", runs)["plain"][0]
    assert [(point["sampler"], point["calls"]) for point in points] == [
        ("multistep", 4),
        ("multistep", 6),
    ]


def test_no_snapshot_and_no_sampler_are_named(tmp_path, prepared, model, params):
    shutil.rmtree(model / "snapshots")
    with pytest.raises(BadInput, match="snapshot_every"):
        run(steps, params, prepared, model, curve=tmp_path / "steps.json")
    bare = replace(params.settings, curves=replace(params.settings.curves, samplers=()))
    with pytest.raises(BadInput, match=r"curves\.samplers"):
        run(calls, replace(params, settings=bare), prepared, model, curve=tmp_path / "c.json")


def test_a_broken_curve_is_named(tmp_path):
    path = tmp_path / "calls.json"
    path.write_text('{"points": [')
    runs = {"some-run": {"metrics": {"run": {"estimator": "plain"}}}}
    with pytest.raises(BadInput, match=r"calls\.json"):
        read_points({"calls:some-run": path}, "calls", runs)
