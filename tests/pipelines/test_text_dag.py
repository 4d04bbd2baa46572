"""Text-guided runs in the DAG: texts between prepare and train, two data sets in one report."""

import shutil
from pathlib import Path

import pytest
import yaml

from pipelines.cli import dataset_of
from pipelines.dag import prepared_stage, stages_of
from pipelines.params import Params, load

ROOT = Path(__file__).parents[2]
RUNS = {
    f"cpu-{dataset}-{arm}-0": {"task": "text_crystals", "preset": "cpu", "dataset": dataset,
                               "estimator": arm, "seed": 0}
    for dataset in ("perov_5", "prototypes")
    for arm in ("plain_none", "exact_short")
}  # fmt: skip
CURVE = "cpu-perov_5-exact_short-0"


@pytest.fixture(scope="module")
def raw() -> dict:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["builds"] = RUNS
    raw["guidance"] = {CURVE: RUNS[CURVE]}
    raw["texts"] = {
        name: {"task": "text_crystals", "preset": "cpu"} for name in ("perov_5", "prototypes")
    }
    raw["reports"] = {
        name: {} for name in raw["reports"]
    } | {"text_crystals": {"cpu": {"dataset": "perov_5", "runs": list(RUNS)}}}  # fmt: skip
    for section in ("finetunes", "steps", "calls", "whole", "baselines"):
        raw[section] = {}
    return raw


@pytest.fixture(scope="module")
def flow(raw: dict) -> dict[str, set[str]]:
    return {name: set(needs) for name, needs in stages_of(Params(raw), "text_crystals", "cpu")}


def test_texts_stand_between_prepare_and_train(flow: dict[str, set[str]]) -> None:
    for dataset in ("perov_5", "prototypes"):
        texts = f"texts@{dataset}"
        assert flow[texts] == {f"fetch@{dataset}", f"prepare@{dataset}"}
        assert flow[f"train@cpu-{dataset}-plain_none-0"] == {texts}
    assert flow[f"guidance@{CURVE}"] == {"texts@perov_5", f"train@{CURVE}"}
    report = flow["report_text_crystals@cpu"]
    assert report == {"texts@perov_5", f"guidance@{CURVE}", *(f"evaluate@{run}" for run in RUNS)}


def test_flow_graph_equals_dvc_graph(
    raw: dict, flow: dict[str, set[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    repo = pytest.importorskip("dvc.repo").Repo
    repo.init(str(tmp_path), no_scm=True).close()
    shutil.copy(ROOT / "dvc.yaml", tmp_path / "dvc.yaml")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    found = repo(str(tmp_path))
    graph = found.index.graph
    edges = {one.addressing: {n.addressing for n in graph.successors(one)} for one in graph}
    found.close()
    assert {name: edges[name] for name in flow} == flow


def test_which_folder_a_task_trains_on(raw: dict) -> None:
    params = Params(raw)
    assert prepared_stage(params, "text_crystals", "perov_5") == "texts@perov_5"
    assert prepared_stage(params, "crystals", "perov_5") == "prepare@perov_5"
    assert dataset_of(params, "text_crystals", "cpu") == "perov_5"
    assert dataset_of(params, "text_crystals", "demo") == "prototypes"


def test_every_arm_is_named_after_target_and_text() -> None:
    params = load(ROOT / "params.yaml")
    for preset in params.presets("text_crystals"):
        for name, arm in params.settings("text_crystals", preset).estimators.items():
            assert name.removesuffix("_types").endswith(f"_{arm.text}")
            assert name.endswith("_types") == (arm.types == "denoised")
