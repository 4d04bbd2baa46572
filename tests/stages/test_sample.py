import json
import shutil
from pathlib import Path

from orbitdiff.inference import demo_checkpoint
from pipelines.assemble import run_stage
from pipelines.params import load

ROOT = Path(__file__).parents[2]


def test_another_model_stands_in_for_that_of_the_run(tmp_path, prepared, monkeypatch):
    params = load(ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORBITDIFF_EXECUTOR", "local")
    monkeypatch.setenv("ORBITDIFF_TRACKER", "none")
    shutil.copytree(prepared, "data/prepared/crystals/prototypes")
    run_stage(
        "sample", "crystals", params, preset="demo", dataset="prototypes", estimator="plain",
        seed=0, changes=["sample.num_test=2", "sample.sampler.steps=2"], root=Path("runs/x"),
        model=demo_checkpoint(),
    )  # fmt: skip
    folder = tmp_path / "runs/x/samples/demo-prototypes-plain-0"
    assert len(list((folder / "cif").glob("*.cif"))) == 2
    about = json.loads((folder / "sampling.json").read_text())
    shipped = json.loads((demo_checkpoint() / "config.json").read_text())
    assert about["model"]["data_manifest_sha256"] == shipped["data_manifest_sha256"]
    assert about["steps"] == 2
