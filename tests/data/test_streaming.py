"""Splits that stay on the disk: same batches, few shards in memory, a cap that the whole set breaks."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("pyarrow")
pytest.importorskip("pymatgen")

from orbitdiff.data.crystals import Crystal, CrystalDataset, crystal_schema, crystal_to_row
from orbitdiff.data.proteins import Backbone, ProteinDataset, backbone_schema, backbone_to_row
from orbitdiff.data.store import read_shard, write_shards
from orbitdiff.errors import BadInput
from orbitdiff.tasks.base import build_task
from orbitdiff.training.rows import RowOrder

ROWS = 23
PER_SHARD = 4
ROOT = Path(__file__).parents[2]


def crystal(number: int, draw: np.random.Generator) -> Crystal:
    num = 1 + number % 5
    types = draw.integers(1, 90, num)
    return Crystal(f"c{number}", types, draw.random((num, 3)), 4 * np.eye(3) + draw.random((3, 3)))


def chain(number: int, draw: np.random.Generator) -> Backbone:
    num = 3 + number % 4
    return Backbone(f"p{number}", draw.random((num, 3)).astype(np.float32), "A" * num, "x", "y")


@pytest.fixture
def crystals(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    rows = [crystal_to_row(crystal(number, draw)) for number in range(ROWS)]
    for split in ("train", "val"):
        write_shards(rows, tmp_path, schema=crystal_schema(), name=split, rows_per_shard=PER_SHARD)
    (tmp_path / "manifest.json").write_text(json.dumps({"counts": {"train": ROWS, "val": ROWS}}))
    return tmp_path


@pytest.fixture
def chains(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    rows = [backbone_to_row(chain(number, draw)) for number in range(ROWS)]
    write_shards(rows, tmp_path, schema=backbone_schema(), name="train", rows_per_shard=PER_SHARD)
    (tmp_path / "manifest.json").write_text(json.dumps({"counts": {"train": ROWS}}))
    return tmp_path


def same(one: Any, other: Any) -> None:
    assert torch.equal(one.ids, other.ids)
    assert torch.equal(one.mask, other.mask)
    assert one.state.keys() == other.state.keys()
    assert one.cond.keys() == other.cond.keys()
    for name, value in {**one.state, **one.cond}.items():
        assert torch.equal(value, {**other.state, **other.cond}[name]), name


def test_batches_are_those_of_the_set_in_memory(crystals: Path) -> None:
    memory, disk = (
        CrystalDataset.load(crystals, "train"),
        CrystalDataset.streamed(crystals, "train"),
    )
    assert disk.sizes.tolist() == memory.num_atoms.tolist()
    assert disk.shards.tolist() == [4, 4, 4, 4, 4, 3]
    assert torch.equal(disk.first_k_by_hash(7), memory.first_k_by_hash(7))
    rows = torch.tensor([22, 0, 9, 8, 9, 3, 15])
    same(disk.batch(rows), memory.batch(rows))


def test_batches_of_chains_are_those_of_the_set_in_memory(chains: Path) -> None:
    memory, disk = ProteinDataset.load(chains, "train"), ProteinDataset.streamed(chains, "train")
    assert disk.sizes.tolist() == memory.lengths.tolist()
    rows = torch.tensor([5, 22, 0, 0, 11])
    same(disk.batch(rows), memory.batch(rows))


@pytest.mark.parametrize(("window", "bucket"), [(1, 0), (2, 0), (3, 2), (9, 0)])
@pytest.mark.parametrize("start", [0, 7])
def test_steps_find_their_rows_while_few_shards_are_read(
    crystals: Path, window: int, bucket: int, start: int
) -> None:
    memory, disk = (
        CrystalDataset.load(crystals, "train"),
        CrystalDataset.streamed(crystals, "train"),
    )
    order = RowOrder(disk.sizes, 3, 5, bucket, shards=disk.shards, window=window)
    seen: list[Path] = []

    def read(files: Iterable[Path]) -> Iterator[Any]:
        for path in files:
            seen.append(path)
            yield read_shard(path, None)

    disk.open(order.windows(start=start), read)
    rows = order.of_worker(rank=0, world_size=1, start=start)
    drawn, batches = [], 14  # three epochs
    for _ in range(batches):
        step = next(rows)
        same(disk.batch(step), memory.batch(step))
        assert sum(map(len, disk.loaded)) <= 3 * window
        drawn += step.tolist()
    first = (start * 5) % ROWS
    second_epoch = drawn[ROWS - first if first else 0 :][:ROWS]
    assert sorted(second_epoch) == list(range(ROWS))
    assert len(seen) <= 6 * (batches * 5 / ROWS + 1) + window


def test_tasks_that_need_more_than_batches_refuse(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="train.window = 0 for conformers"):
        build_task("conformers", None, None, tmp_path, streamed=True)


def test_folders_that_cannot_be_streamed_are_refused(crystals: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="shards of split test"):
        CrystalDataset.streamed(crystals, "test")
    with pytest.raises(BadInput, match="expected rows backbones"):
        ProteinDataset.streamed(crystals, "train")
    shard = crystals / "train-00002.parquet"
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(BadInput, match="train-00002.parquet is truncated"):
        CrystalDataset.streamed(crystals, "train")
    shard.unlink()
    with pytest.raises(BadInput, match="expected 23 rows .* got 19"):
        CrystalDataset.streamed(crystals, "train")


ATOMS = 60
BIG_SHARDS, BIG_ROWS = 140, 500
CAP = 32 * 2**20
"""Bytes that a process may take after it has started: a third of the coordinates alone."""
CAPPED = """
import resource, sys
from pathlib import Path
import numpy, pyarrow, pyarrow.parquet, torch
from orbitdiff.data.crystals import CrystalDataset
from orbitdiff.data.store import read_shard
from orbitdiff.training.rows import RowOrder

torch.set_num_threads(1)
# threads of Arrow keep memory of their own, more or less as the machine is busy
pyarrow.set_cpu_count(1)
pyarrow.set_io_thread_count(1)
folder, kind, cap = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
CrystalDataset.streamed(folder / "warm", "train").batch(torch.arange(8))
taken = next(line for line in open("/proc/self/status") if line.startswith("VmData"))
limit = 1024 * int(taken.split()[1]) + cap
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
if kind == "whole":
    CrystalDataset.load(folder, "train")
else:
    found = CrystalDataset.streamed(folder, "train")
    order = RowOrder(found.sizes, 0, 100, shards=found.shards, window=2)
    found.open(order.windows(start=0), lambda files: (read_shard(path, None) for path in files))
    rows, seen = order.of_worker(rank=0, world_size=1, start=0), []
    for _ in range(len(found) // 100):
        batch = found.batch(next(rows))
        assert batch.state["frac"].shape == (100, 60, 3)
        seen += batch.ids.tolist()
    assert sorted(seen) == list(range(len(found)))
print("done")
"""


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70,000 cells of 60 atoms: 101 MB of coordinates and 8 MB of types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("big")
    (folder / "warm").mkdir()
    draw = np.random.default_rng(0)
    width = {"atom_types": ATOMS, "frac": 3 * ATOMS, "lattice": 9}
    for number in range(BIG_SHARDS):
        columns = {"id": pa.array([f"{number}-{row}" for row in range(BIG_ROWS)])}
        for name, count in width.items():
            values = draw.random(BIG_ROWS * count) * (80 if name == "atom_types" else 1) + 1
            kind = crystal_schema().field(name).type
            offsets = pa.array(np.arange(0, BIG_ROWS * count + 1, count), pa.int32())
            flat = pa.array(values).cast(kind.value_type, safe=False)
            columns[name] = pa.ListArray.from_arrays(offsets, flat)
        table = pa.table(columns, schema=crystal_schema())
        pq.write_table(table, folder / f"train-{number:05d}.parquet", compression="none")
        if not number:
            pq.write_table(table, folder / "warm/train-00000.parquet")
    for place, rows in ((folder, BIG_SHARDS * BIG_ROWS), (folder / "warm", BIG_ROWS)):
        (place / "manifest.json").write_text(json.dumps({"counts": {"train": rows}}))
    return folder


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the cap is one of Linux")
@pytest.mark.parametrize(("kind", "fits"), [("whole", False), ("streamed", True)])
def test_a_set_of_several_times_the_cap_is_streamed_alone(big: Path, kind: str, fits: bool) -> None:
    size = sum(path.stat().st_size for path in big.glob("train-*.parquet"))
    assert size > 3 * CAP
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ARROW_DEFAULT_MEMORY_POOL": "system"}
    environment |= {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CAPPED, str(big), kind, str(CAP)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ("done" in done.stdout) == fits, done.stderr[-2000:]
    if not fits:
        assert any(words in done.stderr for words in ("MemoryError", "malloc", "allocate"))
