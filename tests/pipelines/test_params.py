"""params.yaml: what it holds is valid, what is wrong is refused with the names that exist."""

from pathlib import Path

import pytest
import yaml

from orbitdiff.errors import BadInput
from orbitdiff.tasks.base import CONFIGS
from pipelines.params import Params, load

ROOT = Path(__file__).parents[2]
RUN = {"dataset": "perov_5", "estimator": "exact", "seed": 0}


@pytest.fixture(scope="module")
def params() -> Params:
    return load(ROOT / "params.yaml")


def test_every_preset_and_estimator_is_valid(params: Params) -> None:
    count = 0
    for task in set(CONFIGS) & set(params.raw):
        for preset in params.presets(task):
            for estimator in params.raw[task][preset]["estimators"]:
                params.select(task, preset, dataset="x", estimator=estimator, seed=0)
                count += 1
    assert count >= 10


def test_builds_are_named_after_their_runs(params: Params) -> None:
    for name, build in params.builds.items():
        numbers = {key: build[key] for key in ("dataset", "estimator", "seed")}
        found = params.select(build["task"], build["preset"], **numbers)
        assert found.run_name == name
        assert build.get("start", name) in params.builds


def test_reports_name_builds_of_their_preset(params: Params) -> None:
    for task, reports in params.raw["reports"].items():
        for preset, report in reports.items():
            for run in report["runs"]:
                assert params.builds[run]["task"] == task
                assert params.builds[run]["preset"] == preset
                assert params.builds[run]["dataset"] == report["dataset"]


def test_a_report_without_runs_is_refused() -> None:
    for runs in ([], None):
        raw = {"reports": {"crystals": {"cpu": {"dataset": "x", "runs": runs}}}}
        with pytest.raises(BadInput, match=r"runs in `reports\.crystals\.cpu\.runs`.*got none"):
            Params(raw).report("crystals", "cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.nosuch=1", r"nosuch.*expected among .*'steps'"),
        ("sample.sampler.nosuch=1", r"nosuch.*expected among .*'name'"),
        ("estimators.exact.nosuch=1", r"nosuch.*expected among .*'temperature'"),
        ("nosuch=1", r"no key 'nosuch'; expected among .*'train'"),
        ("nosuch.steps=1", r"no section 'nosuch'; expected among .*'train'"),
        ("train.steps.x=1", r"no section 'steps'"),
        ("train.steps=many", r"crystals\.cpu\.train\.steps.*integer.*'many'"),
        ("train.steps=1.5", r"crystals\.cpu\.train\.steps"),
        ("train.steps=0", r"train\.steps must be at least 1"),
        ("train=3", r"crystals\.cpu\.train"),
        ("train.steps=[", r"not a YAML value"),
        ("train.steps", r"expected --set key=value"),
        ("estimators.exact.num_samples=0", r"num_samples must be at least 1, got 0"),
        ("estimators.exact.temperature=0", r"temperature must be positive, got 0"),
        ("estimators.exact.temperature=-1", r"temperature must be positive, got -1"),
        ("estimators.exact.temperature=.nan", r"temperature must be positive"),
        ("estimators.exact.kind=magic", r"kind among .*'torus'.*got 'magic'"),
    ],
)
def test_bad_changes_are_refused(params: Params, change: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        params.select("crystals", "cpu", **RUN, changes=[change])


def test_changes_are_typed_and_leave_the_file_alone(params: Params) -> None:
    changes = ["train.steps=7", "train.learning_rate=1e-2", "validation.sigmas=[0.1, 0.2]"]
    before = yaml.safe_dump(params.raw)
    settings = params.select("crystals", "cpu", **RUN, changes=changes).settings
    assert settings.train.steps == 7
    assert settings.train.learning_rate == 0.01
    assert settings.validation.sigmas == (0.1, 0.2)
    assert yaml.safe_dump(params.raw) == before


@pytest.mark.parametrize(
    ("task", "preset", "estimator", "message"),
    [
        ("crystals", "huge", "exact", r"among \['cpu', 'demo', 'paper'\], got 'huge'"),
        ("crystal", "cpu", "exact", r"expected a task .*'crystals'.*got 'crystal'"),
        ("crystals", "cpu", "magic", r"among .*'exact'.*got 'magic'"),
    ],
)
def test_unknown_names_are_refused(
    params: Params, task: str, preset: str, estimator: str, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        params.select(task, preset, dataset="x", estimator=estimator, seed=0)


def test_flat_names_every_number(params: Params) -> None:
    flat = params.select("crystals", "cpu", **RUN).flat()
    assert flat["estimator"] == "exact"
    assert flat["train.steps"] == params.raw["crystals"]["cpu"]["train"]["steps"]
    assert not [name for name, value in flat.items() if isinstance(value, dict)]


@pytest.mark.parametrize(
    ("text", "message"),
    [("crystals: [", "not valid YAML"), ("3", "named sections"), ("nosuch: {}", "nosuch")],
)
def test_broken_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        load(path)


def test_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="repository root"):
        load(tmp_path / "params.yaml")
