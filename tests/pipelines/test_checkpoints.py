import json
import os
import shutil

import pytest

from orbitdiff.errors import CheckpointError
from orbitdiff.inference import CrystalModel, demo_checkpoint
from pipelines.checkpoints import find_checkpoint


@pytest.fixture
def bare(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def find(name=""):
    return find_checkpoint(name, "crystals", demo=demo_checkpoint())


def model(folder, *, age=0.0):
    shutil.copytree(demo_checkpoint(), folder)
    moment = os.stat(folder / "config.json").st_mtime - age
    os.utime(folder / "config.json", (moment, moment))
    return folder


def test_nothing_trained_gives_the_demo_model_and_says_so(bare):
    found = find()
    assert found.folder == demo_checkpoint()
    assert "demo model that ships" in str(found)


def test_the_newest_whole_folder_of_the_task_comes_first(bare):
    model(bare / "models" / "old", age=100)
    newer = model(bare / "models" / "new", age=50)
    broken = model(bare / "models" / "broken")
    (broken / "model.safetensors").write_bytes(b"cut")
    other = model(bare / "models" / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "task": "conformers"}))
    assert find().folder.resolve() == newer


def test_a_named_folder_is_taken_as_it_is(bare):
    assert find("some/where").folder.as_posix() == "some/where"
    with pytest.raises(CheckpointError, match="some/where"):
        CrystalModel.load(find("some/where").folder)
