import json

import pytest
import torch

from orbitdiff.errors import CheckpointError
from orbitdiff.training import checkpoint as store
from orbitdiff.training.worker import LocalWorker


def write(folder, value=1.0, **about):
    store.save(folder, {"w": torch.full((3,), value)}, about, trainer={"step": 7})


def test_round_trip(tmp_path):
    write(tmp_path / "model", task="crystals")
    weights, config = store.load_model(tmp_path / "model")
    assert torch.equal(weights["w"], torch.ones(3))
    assert config == {"task": "crystals"}
    assert store.load_trainer(tmp_path / "model") == {"step": 7}


def test_truncated_weights_are_refused(tmp_path):
    write(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="truncated"):
        store.load_model(tmp_path / "model")


def test_newer_format_is_refused(tmp_path):
    folder = tmp_path / "model"
    write(folder, format_version=99)
    with pytest.raises(CheckpointError, match="newer orbitdiff"):
        store.load_model(folder)


def test_missing_folder_names_the_cure(tmp_path):
    with pytest.raises(CheckpointError, match="--checkpoint"):
        store.load_model(tmp_path / "nothing")


def test_pickled_trainer_state_is_not_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"x": Evil()}, tmp_path / "trainer.pt")
    with pytest.raises(CheckpointError, match="cannot read"):
        store.load_trainer(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_worker_passes_over_a_broken_newest_checkpoint(tmp_path):
    worker = LocalWorker(tmp_path / "store")
    for step in (1, 2, 3):
        write(tmp_path / "new", float(step))
        worker.report({"step": step}, tmp_path / "new")
    assert [path.name for path in store.checkpoints(tmp_path / "store")] == [
        "step-000000002",
        "step-000000003",
    ]
    (tmp_path / "store" / "step-000000003" / "model.safetensors").write_bytes(b"half")
    with worker.restore() as found:
        assert found is not None
        assert found.name == "step-000000002"


def test_checksums_name_every_file(tmp_path):
    write(tmp_path / "model")
    sums = json.loads((tmp_path / "model" / "checksums.json").read_text())
    assert set(sums) == {"model.safetensors", "config.json", "trainer.pt"}
