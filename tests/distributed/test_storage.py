"""The newest whole checkpoint among those that Ray keeps beside each other."""

from pathlib import Path

import pytest
import torch

train = pytest.importorskip("ray.train")

from orbitdiff.training import checkpoint as store
from pipelines.distributed.storage import newest_whole

NAMES = [
    "checkpoint_2026-11-25_03-00-00.1",
    "checkpoint_2026-11-25_03-00-09.2",
    "checkpoint_2026-11-25_03-01-00.3",
]


@pytest.fixture
def kept(tmp_path: Path) -> list[Path]:
    """Three checkpoints, and what else may stand beside them."""
    for number, name in enumerate(NAMES):
        store.save(
            tmp_path / name, {"x": torch.tensor([float(number)])}, {}, trainer={"step": number}
        )
    (tmp_path / "checkpoint_manager_snapshot.json").write_text("{}")
    return [tmp_path / name for name in NAMES]


def cut(folder: Path) -> None:
    content = (folder / "trainer.pt").read_bytes()
    (folder / "trainer.pt").write_bytes(content[: len(content) // 2])


def taken(newest: Path) -> int | None:
    with newest_whole(train.Checkpoint.from_directory(newest)) as (folder, name):
        assert name == (folder.name if folder else "")
        return None if folder is None else int(store.load_trainer(folder)["step"])


def test_a_whole_one_is_taken_as_it_is(kept: list[Path]) -> None:
    assert taken(kept[2]) == 2


def test_one_that_is_cut_is_passed_over_and_never_for_a_later_one(kept: list[Path]) -> None:
    assert taken(kept[1]) == 1, "the third was not committed"
    cut(kept[2])
    assert taken(kept[2]) == 1
    (kept[1] / "checksums.json").unlink()
    assert taken(kept[2]) == 0
    cut(kept[0])
    assert taken(kept[2]) is None
