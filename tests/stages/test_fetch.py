"""Stage fetch: copies with checked SHA-256, and a recipe for the built-in data."""

import gzip
import json
import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

from orbitdiff.data import sources
from orbitdiff.data.sources import SOURCES, Source
from orbitdiff.errors import BadInput
from orbitdiff.tasks.crystals import DataConfig
from pipelines.params import load
from pipelines.stages import fetch
from pipelines.stages.base import LocalExecutor, NullTracker

CONTENT = b"material_id,cif\n1,a\n"


def run(dataset: str, out: Path) -> None:
    chosen = load().select("crystals", "demo", dataset=dataset, estimator="plain", seed=0)
    data = DataConfig(prototypes=30, max_atoms=8)
    params = replace(chosen, settings=replace(chosen.settings, data=data))
    fetch.run(params, {}, {"raw": out}, executor=LocalExecutor(), tracker=NullTracker())


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    digest = sha256(CONTENT).hexdigest()
    monkeypatch.setitem(
        SOURCES, "perov_5", (Source("val.csv", "crystals/val.csv.gz", digest, "MIT", "here"),)
    )
    root = tmp_path / "shared"
    (root / "crystals").mkdir(parents=True)
    (root / "crystals" / "val.csv.gz").write_bytes(gzip.compress(CONTENT))
    monkeypatch.setenv(sources.DATA_VARIABLE, str(root))
    return root


def test_copies_unpacked_files(local: Path, tmp_path: Path) -> None:
    run("perov_5", tmp_path / "raw" / "perov_5")
    assert os.listdir(tmp_path / "raw") == ["perov_5"]
    assert (tmp_path / "raw" / "perov_5" / "val.csv").read_bytes() == CONTENT


def test_damaged_source_leaves_the_earlier_copy(local: Path, tmp_path: Path) -> None:
    out = tmp_path / "raw"
    run("perov_5", out)
    (local / "crystals" / "val.csv.gz").write_bytes(gzip.compress(b"material_id,cif\n1,b\n"))
    with pytest.raises(BadInput, match="sha256"):
        run("perov_5", out)
    assert (out / "val.csv").read_bytes() == CONTENT


def test_prototypes_need_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pymatgen")
    monkeypatch.setenv(sources.DATA_VARIABLE, str(tmp_path))
    run("prototypes", tmp_path / "raw")
    recipe = json.loads((tmp_path / "raw" / fetch.RECIPE).read_text())
    assert (recipe["count"], recipe["max_atoms"]) == (30, 8)


def test_unknown_data_set(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="perov_5"):
        run("perov_6", tmp_path / "raw")


@pytest.mark.parametrize("dataset", ["perov_5", "mp_20"])
def test_real_files_have_the_registered_sha256(dataset: str, tmp_path: Path) -> None:
    if sources.data_root() is None:
        pytest.skip("needs ORBITDIFF_DATA")
    run(dataset, tmp_path / "raw")
    assert sorted(os.listdir(tmp_path / "raw")) == sorted(one.name for one in SOURCES[dataset])
