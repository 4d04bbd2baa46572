"""Building ensembles: files, resume, kill, molecules that hang or crash."""

import csv
import ctypes
import gzip
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rdkit")

from rdkit import Chem

from orbitdiff.data.conformer_search import Found, SearchSettings, search
from orbitdiff.data.ensembles import read_ensembles
from orbitdiff.errors import BadInput
from pipelines.stages.base import LocalExecutor
from pipelines.stages.conformers import build
from pipelines.stages.conformers.build import PRELOAD, build_ensembles, read_smiles
from pipelines.stages.isolated import Ended, Isolated

QUICK = SearchSettings(seeds=4, most_seeds=8, keep=4)
SMILES = ["CCO", "C[C@H](F)CO", "CCC", "C1CC", "CCN", "C/C=C/F", "CO.O", "CCCO"]


class Counting:
    """Runs here, and keeps what it was asked for; after `most` items it is killed."""

    def __init__(self, most: int = 99) -> None:
        self.most, self.items = most, []

    def map(
        self, function: Callable[[Any], Any], items: Sequence[Any], *, description: str
    ) -> list[Any]:
        results = []
        for item in items:
            if len(self.items) == self.most:
                raise KeyboardInterrupt
            results.append(function(item))
            self.items.append(item)
        return results

    def fit(self, *_: object, **__: object) -> dict[str, Any]:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "CHUNK", 3)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "list.smi"
    path.write_text("".join(f"{smiles} name{k}\n\n" for k, smiles in enumerate([*SMILES, "CCO"])))
    return path


def make(source: Path, out: Path, executor: Any = None, **options: Any) -> dict[str, Any]:
    chosen = {"level": "mmff", "seed": 5, "settings": QUICK, **options}
    return build_ensembles(source, out, executor=executor or LocalExecutor(), **chosen)


def rows_of(out: Path) -> list[dict[str, Any]]:
    with gzip.open(out / "ensembles.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def test_files_of_a_build(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    manifest = make(source, out)
    rows = {row["smiles"]: row for row in rows_of(out)}
    assert list(rows) == ["CCO", "C[C@H](F)CO", "CCC", "CCN", "C/C=C/F", "CCCO"]
    for smiles, row in rows.items():
        found = search(smiles, level="mmff", seed=5, settings=QUICK)
        assert isinstance(found, Found)
        assert row["atomic_numbers"] == found.ensemble.atomic_numbers.tolist()
        np.testing.assert_allclose(row["coords"], found.ensemble.coords, atol=6e-5)
        np.testing.assert_allclose(row["energies_kcal"], found.ensemble.energies, atol=6e-5)
        np.testing.assert_allclose(row["weights"], found.ensemble.weights, atol=1e-6)
        assert row["seconds"] >= 0
    with (out / "failures.csv").open(newline="") as file:
        failures = {row["smiles"]: row for row in csv.DictReader(file)}
    assert set(failures) == {"C1CC", "CO.O"}
    assert "several fragments" in failures["CO.O"]["detail"]
    assert manifest == json.loads((out / "manifest.json").read_text())
    conformers = sum(len(row["coords"]) for row in rows.values())
    assert manifest["counts"] == {
        "rows": 9,
        "molecules": 8,
        "ensembles": 6,
        "conformers": conformers,
        "failures": 2,
    }
    assert manifest["failures"] == {"unusable SMILES": 2}
    assert manifest["settings"]["seeds"] == 4
    assert (manifest["level"], manifest["seed"]) == ("mmff", 5)
    assert "rdkit" in manifest["software"]
    assert len(manifest["sources"]["list.smi"]) == 64
    assert str(tmp_path) not in (out / "manifest.json").read_text()
    assert f"{conformers} conformers of 6 molecules; failed 2" in capsys.readouterr().out
    read = read_ensembles(out / "ensembles.jsonl.gz")
    assert not read.rejected
    assert len(read.ensembles) == 6


def test_a_second_run_does_only_what_is_missing(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed = Counting(most=1)
    with pytest.raises(KeyboardInterrupt):
        make(source, out, killed)
    assert len(list((out / "parts").iterdir())) == 1
    assert not (out / "manifest.json").exists()
    rest = Counting()
    make(source, out, rest)
    assert killed.items + rest.items == [tuple(SMILES[:3]), tuple(SMILES[3:6]), tuple(SMILES[6:])]
    before = {name: (out / name).read_bytes() for name in os.listdir(out) if name != "parts"}
    nothing = Counting()
    make(source, out, nothing)
    assert nothing.items == []
    assert before == {name: (out / name).read_bytes() for name in before}


def test_a_longer_list_keeps_what_is_done(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(source, out)
    source.write_text("\n".join([*SMILES, "CCCN"]))
    more = Counting()
    manifest = make(source, out, more)
    assert more.items == [("CO.O", "CCCO", "CCCN")]
    assert manifest["counts"]["ensembles"] == 7


SCRIPT = """
import sys
from pathlib import Path
from orbitdiff.data.conformer_search import SearchSettings
from pipelines.stages.base import LocalExecutor
from pipelines.stages.conformers import build
if __name__ == "__main__":
    build.CHUNK = 3
    build.build_ensembles(Path(sys.argv[1]), Path(sys.argv[2]), level="mmff", seed=5,
        settings=SearchSettings(seeds=4, most_seeds=8, keep=4), executor=LocalExecutor())
"""


def test_a_killed_run_loses_nothing_that_was_finished(source: Path, tmp_path: Path) -> None:
    """A real process, SIGKILL after its first chunk; its children end with it."""
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(SCRIPT)
    source.write_text("\n".join(["C" * n for n in range(2, 40)]))
    command = [sys.executable, str(script), str(source), str(out)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(out.glob("parts/*.jsonl.gz")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = {path.name: path.read_bytes() for path in out.glob("parts/*.jsonl.gz")}
    assert 0 < len(finished) < 13
    for path in out.glob("parts/*.jsonl.gz"):
        assert len(build.read_part(path)) == 3
    source.write_text("\n".join(["C" * n for n in range(2, 14)]))
    rest = Counting()
    make(source, out, rest)
    assert len(rest.items) == 4 - len(finished)
    for name, content in finished.items():
        assert (out / "parts" / name).read_bytes() == content
    assert not list(out.glob("**/*.partial")) or len(finished) < 4


def test_another_recipe_is_refused(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(source, out)
    for change in ({"level": "etkdg"}, {"seed": 6}, {"settings": SearchSettings(seeds=5)}):
        with pytest.raises(BadInput, match="use a new folder"):
            make(source, out, **change)


def test_a_damaged_part_is_named(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(source, out)
    part = next((out / "parts").iterdir())
    part.write_bytes(part.read_bytes()[:-12])
    with pytest.raises(BadInput, match="delete it"):
        make(source, out)
    part.unlink()
    assert make(source, out)["counts"]["ensembles"] == 6


def test_full_disk(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(build, "write_atomically", lambda *_: None)
    with pytest.raises(BadInput, match="free some space"):
        make(source, tmp_path / "out")
    assert list((tmp_path / "out" / "parts").iterdir()) == []


def test_no_ensemble_at_all(tmp_path: Path) -> None:
    source = tmp_path / "bad.txt"
    source.write_text("C1CC\nxyz\n")
    with pytest.raises(BadInput, match="no molecule has a conformer"):
        make(source, tmp_path / "out")
    assert (tmp_path / "out" / "failures.csv").read_text().count("unusable SMILES") == 2


def test_lists(tmp_path: Path) -> None:
    plain = tmp_path / "a.csv"
    plain.write_text('id,smiles,better\n1,CCO,CCN\n2,"C[C@H](F)CO",\n')
    assert read_smiles(plain) == ["CCO", "C[C@H](F)CO"]
    assert read_smiles(plain, column="better") == ["CCN", ""]
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_smiles(packed) == ["CCO", "C[C@H](F)CO"]
    with pytest.raises(BadInput, match="expected a column 'x'"):
        read_smiles(plain, column="x")
    packed.write_bytes(packed.read_bytes()[:-9])
    (tmp_path / "empty.smi").write_text("\n\n")
    (tmp_path / "other.sdf").write_text("")
    for name in ("a.csv.gz", "empty.smi", "other.sdf", "absent.smi"):
        with pytest.raises(BadInput):
            read_smiles(tmp_path / name)


def test_unknown_level(source: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected level"):
        make(source, tmp_path / "out", level="dft")
    assert not (tmp_path / "out").exists()


def test_a_call_that_hangs_or_crashes_costs_itself_alone() -> None:
    with Isolated(time.sleep, max_seconds=1, preload=PRELOAD) as isolated:
        assert isolated(0.01) is None
        hanged = isolated(600.0)
        assert isinstance(hanged, Ended)
        assert hanged.reason == "time limit"
        assert isolated(0.01) is None
        wrong = isolated("x")
        assert isinstance(wrong, Ended)
        assert wrong.reason == "error"
    with Isolated(ctypes.string_at, max_seconds=60, preload=PRELOAD) as isolated:
        assert isolated(0) == Ended("crashed", "SIGSEGV")
    with (
        Isolated(read_smiles, max_seconds=60, preload=PRELOAD) as isolated,
        pytest.raises(BadInput),
    ):
        isolated(Path("absent.smi"))


def test_no_process_is_left() -> None:
    with Isolated(time.sleep, max_seconds=60, preload=PRELOAD) as isolated:
        isolated(0.01)
        process = isolated._process
    assert not process.is_alive()
    with (
        pytest.raises(RuntimeError),
        Isolated(time.sleep, max_seconds=60, preload=PRELOAD) as isolated,
    ):
        isolated(0.01)
        process = isolated._process
        raise RuntimeError
    assert not process.is_alive()


HANGING = """
import signal
import time
from orbitdiff.data.conformer_search import search
def hang_on_propane(smiles, **options):
    if smiles == "CCC":
        signal.alarm(1)  # its limit comes now, not in five minutes
        time.sleep(600)
    return search(smiles, **options)
"""


def test_one_molecule_that_hangs_does_not_stop_the_run(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hanging_search.py").write_text(HANGING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(build, "search", importlib.import_module("hanging_search").hang_on_propane)
    manifest = make(source, tmp_path / "out")
    assert manifest["failures"] == {"time limit": 1, "unusable SMILES": 2}
    assert manifest["counts"]["ensembles"] == 5
    assert "CCC" not in {row["smiles"] for row in rows_of(tmp_path / "out")}


def test_ensembles_of_xtb(tmp_path: Path) -> None:
    pytest.importorskip("tblite")
    source = tmp_path / "two.csv"
    source.write_text("smiles\nCCO\nC[C@@H](O)C#N\n")
    manifest = make(source, tmp_path / "out", level="xtb", settings=SearchSettings.for_training())
    assert manifest["note"] == "GFN2 ensembles built with ETKDG seeds"
    assert manifest["settings"]["engine"] == "tblite"
    assert {"rdkit", "tblite"} <= set(manifest["software"])
    for row in rows_of(tmp_path / "out"):
        target = Chem.AddHs(Chem.MolFromSmiles(row["smiles"]))
        assert row["atomic_numbers"] == [atom.GetAtomicNum() for atom in target.GetAtoms()]
        assert 2 <= len(row["energies_kcal"]) <= 10
        assert sum(row["weights"]) == pytest.approx(1, abs=1e-4)
