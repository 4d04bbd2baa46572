"""Stage prepare: accepted and rejected rows, manifest, atomic output, own data."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("pymatgen")
pytest.importorskip("pyarrow")

from pymatgen.core import Lattice, Structure

from orbitdiff.data.crystals import CrystalDataset
from orbitdiff.data.splits import RULES, Part, SplitRule, hash_split
from orbitdiff.errors import BadInput
from orbitdiff.tasks.crystals import DataConfig
from pipelines.params import load
from pipelines.stages import fetch
from pipelines.stages.base import LocalExecutor, NullTracker
from pipelines.stages.crystals import prepare
from pipelines.stages.prepared import parse_chunk


def cif(length: float, element: str = "Ca") -> str:
    lattice = Lattice.cubic(length)
    return Structure(lattice, [element, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to(fmt="cif")


def write_table(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["material_id", "cif"])
        writer.writerows(rows)
    return path


def rejected(folder: Path) -> list[dict[str, str]]:
    with (folder / "rejected.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def own(source: Path, out: Path) -> None:
    prepare.prepare_own(source, out, max_atoms=20, seed=0, executor=LocalExecutor())


def ids_of(split: str, count: int) -> list[str]:
    """Ids that the hash sends to a split."""
    return [id for id in (f"own-{n}" for n in range(999)) if hash_split(id) == split][:count]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    ids = [*ids_of("train", 3), *ids_of("val", 2), *ids_of("test", 2)]
    good = [(id, cif(4 + 0.1 * index)) for index, id in enumerate(ids)]
    return write_table(tmp_path / "own.csv", good)


def test_own_table(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    own(table, out)
    for split, count in (("train", 3), ("val", 2), ("test", 2)):
        assert CrystalDataset.load(out, split).ids == ids_of(split, count)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["counts"] == {"train": 3, "val": 2, "test": 2}
    assert str(tmp_path) not in (out / "manifest.json").read_text()
    assert rejected(out) == []
    assert "rejected 0" in capsys.readouterr().out
    first = {name: (out / name).read_bytes() for name in os.listdir(out)}
    own(table, out)
    assert first == {name: (out / name).read_bytes() for name in os.listdir(out)}


def test_rejected_rows_are_listed_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = ids_of("train", 5), ids_of("test", 1)
    rows = [
        (train[0], cif(4.0)),
        (train[1], "nonsense"),
        (train[2], cif(0.5)),
        (train[0], cif(4.1)),
        (train[3], cif(4.3).replace("\n", "\r\n")),
        (test[0], cif(4.3)),
        (train[4], cif(4.4).replace("O  O1", "Qq  O1")),
    ]
    own(write_table(tmp_path / "own.csv", rows), tmp_path / "out")
    found = {(row["id"], row["split"], row["reason"]) for row in rejected(tmp_path / "out")}
    assert found == {
        (train[0], "train", "duplicate id"),
        (train[1], "train", "broken CIF"),
        (train[2], "train", "overlapping atoms"),
        (train[3], "train", "duplicate structure"),
        (train[4], "train", "unknown element"),
    }
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert sum(manifest["rejected"].values()) == 5
    assert manifest["counts"] == {"train": 1, "val": 0, "test": 1}
    assert "rejected 5" in capsys.readouterr().out


def test_folder_of_files(tmp_path: Path) -> None:
    folder = tmp_path / "cifs"
    folder.mkdir()
    (folder / "one.cif").write_text(cif(4.0))
    (folder / "two.cif").write_bytes(b"\xff\xfe broken")
    own(folder, tmp_path / "out")
    assert [row["id"] for row in rejected(tmp_path / "out")] == ["two"]


def test_no_accepted_row_leaves_the_earlier_output(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    own(table, out)
    before = (out / "manifest.json").read_text()
    bad = write_table(tmp_path / "bad.csv", [("a", "x"), ("b", "y")])
    with pytest.raises(BadInput, match="no row was accepted"):
        own(bad, out)
    assert (out / "manifest.json").read_text() == before


def test_full_disk_leaves_the_earlier_output(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    out = tmp_path / "out"
    own(table, out)
    before = {name: (out / name).read_bytes() for name in os.listdir(out)}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(BadInput, match="No space left"):
        own(table, out)
    assert before == {name: (out / name).read_bytes() for name in os.listdir(out)}
    assert sorted(os.listdir(tmp_path)) == ["out", "own.csv"]


def test_a_parser_that_raises_rejects_its_row() -> None:
    def parse(row: tuple[str, str]) -> object:
        raise RuntimeError("boom")

    (found,) = parse_chunk([("train", ("a", "x"))], parse=parse, broken="broken CIF")  # type: ignore[arg-type]
    assert found.id == "a"
    assert "boom" in found.detail  # type: ignore[union-attr]


def stage(dataset: str, raw: Path, out: Path) -> None:
    chosen = load().select("crystals", "demo", dataset=dataset, estimator="plain", seed=0)
    data = DataConfig(prototypes=40, max_atoms=8)
    params = replace(chosen, settings=replace(chosen.settings, data=data))
    tools = {"executor": LocalExecutor(), "tracker": NullTracker()}
    if dataset == "prototypes":
        fetch.run(params, {}, {"raw": raw}, **tools)
    prepare.run(params, {"raw": raw}, {"data": out}, **tools)


def test_registered_rule_takes_the_rows_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(f"m-{index}", cif(4 + 0.1 * index)) for index in range(6)]
    write_table(tmp_path / "val.csv", rows)
    parts = {"train": (Part("val.csv", 0, 3),), "val": (Part("val.csv", -2),), "test": ()}
    counts = {"train": 3, "val": 2, "test": 0}
    monkeypatch.setitem(RULES, "perov_5", SplitRule(parts, counts, "a rule"))
    stage("perov_5", tmp_path, tmp_path / "out")
    assert CrystalDataset.load(tmp_path / "out", "train").ids == ["m-0", "m-1", "m-2"]
    assert CrystalDataset.load(tmp_path / "out", "val").ids == ["m-4", "m-5"]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["note"] == "reduced training set"
    assert set(manifest["sources"]) == {"val.csv"}
    monkeypatch.setitem(RULES, "perov_5", SplitRule(parts, {"train": 4}, "a rule"))
    with pytest.raises(BadInput, match="expected 4 rows"):
        stage("perov_5", tmp_path, tmp_path / "out")


def test_missing_raw_files(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="found none"):
        stage("perov_5", tmp_path / "nothing", tmp_path / "out")


def test_prototypes_are_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        stage("prototypes", tmp_path / "raw", tmp_path / name)
    files = os.listdir(tmp_path / "one")
    assert all(
        (tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files
    )
    everything: set[str] = set()
    for split in ("train", "val", "test"):
        ids = CrystalDataset.load(tmp_path / "one", split).ids
        assert not everything & set(ids)
        everything |= set(ids)
    assert len(everything) >= 35
