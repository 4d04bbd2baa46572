"""Parquet shards and folders that appear whole or not at all."""

import os
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from orbitdiff.data.store import fresh_directory, read_shards, row_schema, write_shards
from orbitdiff.errors import BadInput

SCHEMA = row_schema("things", 1, {"id": pa.string(), "values": pa.list_(pa.float64())})
ROWS = [{"id": str(index), "values": [0.5] * index} for index in range(5)]


def test_round_trip_and_shard_sizes(tmp_path: Path) -> None:
    paths = write_shards(iter(ROWS), tmp_path, schema=SCHEMA, name="train", rows_per_shard=2)
    assert [pq.read_metadata(path).num_rows for path in paths] == [2, 2, 1]
    assert read_shards(paths, schema=SCHEMA).to_pylist() == ROWS
    exact = write_shards(ROWS[:4], tmp_path, schema=SCHEMA, name="even", rows_per_shard=2)
    assert len(exact) == 2


def test_no_rows_give_one_empty_shard(tmp_path: Path) -> None:
    paths = write_shards([], tmp_path, schema=SCHEMA, name="val")
    assert len(paths) == 1
    assert read_shards(paths, schema=SCHEMA).num_rows == 0


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="at least one"):
        read_shards([])
    with pytest.raises(BadInput, match="found none"):
        read_shards([tmp_path / "missing.parquet"])
    (path,) = write_shards(ROWS, tmp_path, schema=SCHEMA, name="train")
    newer = row_schema("things", 2, {"id": pa.string(), "values": pa.list_(pa.float64())})
    with pytest.raises(BadInput, match="version 2"):
        read_shards([path], schema=newer)
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"id": ["a"]}), foreign)
    with pytest.raises(BadInput, match="schema version"):
        read_shards([foreign])
    for size in (0, 4, path.stat().st_size // 2, path.stat().st_size - 1):
        cut = tmp_path / "cut.parquet"
        cut.write_bytes(path.read_bytes()[:size])
        with pytest.raises(BadInput, match="truncated"):
            read_shards([cut], schema=SCHEMA)


def test_full_disk_leaves_the_earlier_folder(tmp_path: Path) -> None:
    target = tmp_path / "data"
    with fresh_directory(target) as folder:
        (folder / "a").write_text("first")

    def fill_the_disk() -> None:
        with fresh_directory(target) as folder:
            (folder / "a").write_text("second")
            raise OSError(28, "No space left on device")

    with pytest.raises(BadInput, match="No space left"):
        fill_the_disk()
    assert (target / "a").read_text() == "first"
    assert os.listdir(tmp_path) == ["data"]
    with fresh_directory(target) as folder:
        (folder / "b").write_text("third")
    assert os.listdir(target) == ["b"]
    assert os.listdir(tmp_path) == ["data"]


def test_other_errors_pass_and_leave_the_earlier_folder(tmp_path: Path) -> None:
    target = tmp_path / "data"
    with fresh_directory(target) as folder:
        (folder / "a").write_text("first")
    with pytest.raises(RuntimeError), fresh_directory(target):
        raise RuntimeError
    assert (target / "a").read_text() == "first"
    assert os.listdir(tmp_path) == ["data"]


def test_full_disk_while_writing_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(table: object, path: Path) -> None:
        Path(path).write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(BadInput, match="free some space"):
        write_shards(ROWS, tmp_path, schema=SCHEMA, name="train")
    assert os.listdir(tmp_path) == []
