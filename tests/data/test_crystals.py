"""CrystalDataset and permutations of like atoms."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("pyarrow")

from orbitdiff.data.crystals import (
    Crystal,
    CrystalDataset,
    crystal_schema,
    crystal_to_row,
    rows_to_crystals,
)
from orbitdiff.data.store import read_shards, write_shards
from orbitdiff.errors import BadInput


def crystals(count: int = 7) -> list[Crystal]:
    rng = np.random.default_rng(0)
    sizes = [2 + index % 4 for index in range(count)]
    return [
        Crystal(
            f"id-{index}",
            rng.integers(1, 90, size),
            rng.random((size, 3)),
            np.eye(3) * 4 + rng.random((3, 3)),
        )
        for index, size in enumerate(sizes)
    ]


def prepared(folder: Path, rows: list[Crystal]) -> Path:
    for split in ("train", "val", "test"):
        write_shards(
            map(crystal_to_row, rows), folder, schema=crystal_schema(), name=split, rows_per_shard=3
        )
    (folder / "manifest.json").write_text(
        json.dumps({"counts": dict.fromkeys(("train", "val", "test"), len(rows))})
    )
    return folder


def test_rows_survive_the_disk(tmp_path: Path) -> None:
    rows = crystals()
    paths = write_shards(
        map(crystal_to_row, rows), tmp_path, schema=crystal_schema(), name="train", rows_per_shard=3
    )
    assert [path.name for path in paths] == [f"train-0000{index}.parquet" for index in range(3)]
    for old, new in zip(rows, rows_to_crystals(read_shards(paths)), strict=True):
        assert old.id == new.id
        for name in ("atom_types", "frac", "lattice"):
            np.testing.assert_array_equal(getattr(old, name), getattr(new, name))


def test_batch_holds_the_rows_asked_for_and_no_more_padding_than_needed(tmp_path: Path) -> None:
    rows = crystals()
    dataset = CrystalDataset.load(prepared(tmp_path, rows), "val")
    assert dataset.ids == [row.id for row in rows]
    chosen = [4, 0, 1]
    batch = dataset.batch(torch.tensor(chosen))
    assert batch.mask.shape == (3, 3)
    assert batch.ids.tolist() == chosen
    for place, index in enumerate(chosen):
        row, size = rows[index], len(rows[index].atom_types)
        assert batch.mask[place].tolist() == [True] * size + [False] * (3 - size)
        assert batch.cond["atom_types"][place].tolist() == row.atom_types.tolist() + [0] * (
            3 - size
        )
        np.testing.assert_allclose(batch.state["frac"][place, :size], row.frac, atol=1e-6)
        assert (batch.state["frac"][place, size:] == 0).all()
        np.testing.assert_allclose(batch.state["lattice"][place], row.lattice, atol=1e-5)
    assert batch.state["frac"].dtype == batch.state["lattice"].dtype == torch.float32
    assert batch.cond["atom_types"].dtype == torch.int64


def test_float32_coordinates_stay_below_one() -> None:
    edge = Crystal("x", np.array([1]), np.array([[1 - 1e-12, 0.5, 0.0]]), np.eye(3) * 4)
    assert float(CrystalDataset([edge]).batch([0]).state["frac"].max()) < 1


def test_first_k_by_hash_is_a_prefix_by_sha256() -> None:
    dataset = CrystalDataset(crystals())
    chosen = [dataset.ids[row] for row in dataset.first_k_by_hash(3).tolist()]
    assert chosen == sorted(dataset.ids, key=lambda id: sha256(id.encode()).hexdigest())[:3]
    assert len(dataset.first_k_by_hash(100)) == len(dataset)
    with pytest.raises(BadInput, match="k"):
        dataset.first_k_by_hash(0)


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="prepare"):
        CrystalDataset.load(tmp_path, "train")
    folder = prepared(tmp_path, crystals())
    with pytest.raises(BadInput, match="split"):
        CrystalDataset.load(folder, "valid")
    (folder / "train-00002.parquet").unlink()
    with pytest.raises(BadInput, match="expected 7 crystals"):
        CrystalDataset.load(folder, "train")
    shard = folder / "val-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:200])
    with pytest.raises(BadInput, match="truncated"):
        CrystalDataset.load(folder, "val")
    with pytest.raises(BadInput, match="empty"):
        CrystalDataset([])
