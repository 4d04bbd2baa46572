"""Where checkpoints go, and the newest whole one among those that Ray keeps beside each other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

train = pytest.importorskip("ray.train")

from orbitdiff.errors import BadInput
from orbitdiff.training import checkpoint as store
from pipelines.distributed.storage import STORAGE, checkpoint_place, newest_whole

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


def test_places_of_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STORAGE, raising=False)
    assert checkpoint_place(tmp_path) == (str(tmp_path), None)
    monkeypatch.setenv(STORAGE, f"file://{tmp_path}/elsewhere/")
    run = tmp_path / "run"
    run.mkdir()
    (run / "fingerprint.json").write_text("these numbers")
    place, filesystem = checkpoint_place(run)
    assert place.startswith(f"{tmp_path}/elsewhere/run-")
    assert checkpoint_place(run)[0] == place
    filesystem.create_dir(place)
    assert Path(place).is_dir()
    (run / "fingerprint.json").write_text("other numbers")
    assert checkpoint_place(run)[0] != place, "runs of one name with other numbers never meet"
    monkeypatch.setenv(STORAGE, "nothing://here")
    with pytest.raises(BadInput, match="nothing://here"):
        checkpoint_place(run)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket `orbitdiff` of an S3 server on loopback."""
    s3fs = pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    files = s3fs.S3FileSystem(skip_instance_cache=True)
    files.mkdir("orbitdiff")
    yield files
    server.stop()


@pytest.mark.integration
def test_checkpoints_of_a_bucket(
    bucket: Any, kept: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STORAGE, "s3://orbitdiff/runs")
    place, filesystem = checkpoint_place(tmp_path / "run")
    for folder in kept:
        bucket.put(str(folder), f"{place}/ray/{folder.name}", recursive=True)
    newest = train.Checkpoint(f"{place}/ray/{kept[2].name}", filesystem=filesystem)

    def found() -> tuple[int, str]:
        with newest_whole(newest) as (folder, name):
            assert folder is not None
            return int(store.load_trainer(folder)["step"]), name

    assert found() == (2, kept[2].name)
    with bucket.open(f"{place}/ray/{kept[2].name}/trainer.pt", "wb") as file:
        file.write(b"cut")
    assert found() == (1, kept[1].name)
