"""Prompts of many crystals: cache, resumption after a kill, failures that fall back."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pymatgen")

from orbitdiff.data.cif import Crystal
from orbitdiff.data.prompts import PromptFields, prompt
from orbitdiff.errors import BadInput
from pipelines.stages.base import LocalExecutor
from pipelines.stages.isolated import Ended
from pipelines.stages.text_crystals import prompts as stage
from pipelines.stages.text_crystals.text_cache import (
    Kept,
    keeping,
    kept_texts,
    software,
    text_key,
)

EXECUTOR = LocalExecutor()


def crystals(count: int) -> list[Crystal]:
    frac = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]])
    types = np.array([20, 8])
    return [Crystal(f"c{n}", types, frac, np.eye(3) * (4 + 0.01 * n)) for n in range(count)]


def fields(count: int) -> list[PromptFields]:
    return [PromptFields(f"c{n}", "CaO", ("Ca", "O"), 221, "cubic", {}) for n in range(count)]


def edge(structure: Crystal | str) -> str:
    if isinstance(structure, str):
        return f"a file of {len(structure)} letters"
    return f"a cell of {structure.lattice[0, 0]:.2f}"


class InProcess:
    """Isolated without a process: a describer that counts its calls, and fails where told."""

    calls: list[str] = []
    outcomes: dict[str, Any] = {}

    def __init__(self, function: Callable[..., Any], **settings: Any) -> None:
        assert function is stage.describe_structure

    def __enter__(self) -> "InProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def __call__(self, structure: Crystal | str) -> Any:
        name = structure if isinstance(structure, str) else structure.id
        self.calls.append(name)
        outcome = self.outcomes.get(name, edge(structure))
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> type[InProcess]:
    monkeypatch.setattr(stage, "Isolated", InProcess)
    monkeypatch.setattr(stage, "find_spec", lambda name: name)
    InProcess.calls, InProcess.outcomes = [], {}
    return InProcess


def build(count: int, cache: Path, **changes: Any) -> list[stage.Prompt]:
    settings = {"structures": {one.id: one for one in crystals(count)}, **changes}
    return stage.build_prompts(
        fields(count), "long", seed=0, executor=EXECUTOR, cache=cache, **settings
    )


@pytest.mark.parametrize("kind", ["short", "composition"])
def test_kinds_of_fields_need_no_cache(kind: str) -> None:
    found = stage.build_prompts(fields(3), kind, seed=5, executor=EXECUTOR)
    assert [one.text for one in found] == [prompt(one, kind, seed=5) for one in fields(3)]
    assert [one.fallback for one in found] == ["", "", ""]


def test_second_call_computes_nothing(tmp_path: Path, described: type[InProcess]) -> None:
    first = build(70, tmp_path)
    assert [one.text for one in first] == [edge(one) for one in crystals(70)]
    assert described.calls == [f"c{n}" for n in range(70)]
    assert build(70, tmp_path) == first
    assert len(described.calls) == 70
    build(72, tmp_path)
    assert described.calls[70:] == ["c70", "c71"]


def test_equal_crystals_are_described_once(tmp_path: Path, described: type[InProcess]) -> None:
    twins = {f"c{n}": replace(crystals(1)[0], id=f"twin {n}") for n in range(2)}
    found = build(2, tmp_path, structures=twins)
    assert len(described.calls) == 1
    assert [(one.id, one.text) for one in found] == [
        ("c0", "a cell of 4.00"),
        ("c1", "a cell of 4.00"),
    ]


def test_key_is_that_of_the_content() -> None:
    one, versions = crystals(1)[0], software()
    key = text_key(one, versions)
    same = replace(one, id="z", frac=one.frac + 1e-9, lattice=one.lattice * (1 + 1e-10))
    assert text_key(same, versions) == key
    wrapped = replace(one, frac=np.array([[1 - 1e-9, 0, 0], [0.5, 0.5, 0.5]]))
    assert text_key(wrapped, versions) == key
    others = [
        replace(one, atom_types=one.atom_types[::-1]),
        replace(one, frac=one.frac + 0.001),
        replace(one, lattice=one.lattice * 1.001),
    ]
    keys = {text_key(other, versions) for other in others} | {
        text_key(one, {**versions, "robocrys": "0.3"})
    }
    assert len(keys | {key}) == 5
    cif = text_key("data_x\n_cell_length_a 4.0\n", versions)
    assert text_key("data_x\r\n_cell_length_a   4.0\r\n", versions) == cif
    assert text_key("data_x\n_cell_length_a 4.1\n", versions) != cif


def test_failures_fall_back_to_the_short_prompt_and_are_counted(
    tmp_path: Path, described: type[InProcess], capsys: pytest.CaptureFixture[str]
) -> None:
    described.outcomes = {
        "c1": Ended("error", "IndexError: list index out of range"),
        "c2": Ended("time limit", "stopped after 600 s"),
        "c3": Ended("crashed", "SIGSEGV"),
    }
    found = build(5, tmp_path)
    reasons = ["", "robocrys IndexError", "time limit", "crashed", ""]
    assert [one.fallback for one in found] == reasons
    assert [one.text for one in found[1:4]] == [
        prompt(one, "short", seed=0) for one in fields(5)[1:4]
    ]
    printed = capsys.readouterr().out
    assert "5 crystals, 3 with the short prompt" in printed
    assert "robocrys IndexError 1" in printed
    described.calls.clear()
    described.outcomes = {}
    again = build(5, tmp_path)
    assert described.calls == ["c2", "c3"], "a refusal is kept, an accident is tried again"
    assert [one.fallback for one in again] == ["", "robocrys IndexError", "", "", ""]


def test_interruption_loses_nothing_finished(tmp_path: Path, described: type[InProcess]) -> None:
    described.outcomes = {"c40": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        build(50, tmp_path)
    described.calls.clear()
    described.outcomes = {}
    found = build(50, tmp_path)
    assert described.calls == [f"c{n}" for n in range(40, 50)]
    assert [one.text for one in found] == [edge(one) for one in crystals(50)]


KILLED = """
import sys, time
from pathlib import Path
from test_build_prompts import InProcess, build, stage

class Slow(InProcess):
    def __call__(self, crystal):
        time.sleep(0.02)
        return super().__call__(crystal)

stage.Isolated, stage.find_spec = Slow, lambda name: name
build(200, Path(sys.argv[1]))
"""


def test_kill_loses_nothing_finished(tmp_path: Path, described: type[InProcess]) -> None:
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stderr=subprocess.DEVNULL,
    )
    while len(kept_texts(tmp_path)) < 40:
        assert process.poll() is None, "ended before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(kept_texts(tmp_path))
    assert 40 <= kept < 200
    build(200, tmp_path)
    assert len(described.calls) == 200 - kept


def test_cut_lines_are_passed_over(tmp_path: Path) -> None:
    with keeping(tmp_path) as keep:
        keep("one", Kept("Å and °", ""))
        keep("two", Kept("text", ""))
    (path,) = tmp_path.glob("*.jsonl")
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:-cut])
        found = kept_texts(tmp_path)
        assert set(found) <= {"one", "two"}
        assert found.get("one", Kept("Å and °", "")) == Kept("Å and °", "")
        assert ("one" in found) == (len(whole) - cut >= whole.index(b"\n"))


def test_ready_texts_fill_the_cache(tmp_path: Path, described: type[InProcess]) -> None:
    files = {"c0": "first", "c1": "second", "c2": crystals(1)[0]}
    ready = {"c1": "a text at hand", "c2": "of another setting", "other": "not asked for"}
    found = build(3, tmp_path, structures=files, ready=ready)
    texts = ["a file of 5 letters", "a text at hand", "a cell of 4.00"]
    assert [one.text for one in found] == texts
    assert described.calls == ["first", "c0"]
    assert build(3, tmp_path, structures=files) == found
    assert described.calls == ["first", "c0"]


def test_ready_texts_are_those_of_the_software(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "crystals" / "long_prompts"
    folder.mkdir(parents=True)
    row = json.dumps({"material_id": "7", "text": "edge and corner-sharing CaO6"}).encode()
    (folder / "perov_5_val.jsonl.gz").write_bytes(gzip.compress(row))
    monkeypatch.setenv("ORBITDIFF_DATA", str(tmp_path))
    monkeypatch.setattr(stage, "software", lambda: stage.READY_SOFTWARE)
    assert stage.ready_texts("perov_5") == {"7": "corner and edge-sharing CaO6"}
    assert stage.ready_texts("own.csv") == {}
    (folder / "perov_5_val.jsonl.gz").write_bytes(gzip.compress(row)[:-9])
    with pytest.raises(BadInput, match="damaged"):
        stage.ready_texts("perov_5")
    monkeypatch.setattr(stage, "software", lambda: {**stage.READY_SOFTWARE, "robocrys": "0.3"})
    assert stage.ready_texts("perov_5") == {}


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="among"):
        stage.build_prompts(fields(1), "longer", seed=0, executor=EXECUTOR)
    with pytest.raises(BadInput, match="cache"):
        stage.build_prompts(fields(1), "long", seed=0, executor=EXECUTOR)
    with pytest.raises(BadInput, match="'c1'"):
        build(2, tmp_path, structures={"c0": "a file"})
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(stage, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"orbitdiff\[text\]"):
        build(1, tmp_path / "new")
    monkeypatch.setattr(stage, "find_spec", lambda name: name)
    with pytest.raises(BadInput, match="could not write"):
        build(1, tmp_path / "file" / "below")


@pytest.mark.slow
def test_real_descriptions_in_processes_of_their_own(tmp_path: Path) -> None:
    """A crystal, the CIF of another one, and a text that is none."""
    pytest.importorskip("robocrys")
    from orbitdiff.data.cif import to_structure

    one, two, _ = crystals(3)
    structures = {"c0": one, "c1": to_structure(two).to(fmt="cif"), "c2": "no CIF"}
    found = build(3, tmp_path, structures=structures)
    assert all("CaO is Tetraauricupride structured" in prompt.text for prompt in found[:2])
    assert all("Pm-3m" in prompt.text for prompt in found[:2])
    assert [prompt.fallback for prompt in found] == ["", "", "robocrys ValueError"]
    assert build(3, tmp_path, structures=structures) == found
