"""Journals of records: order, ids across restarts, cut lines, copies, one writer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orbitdiff.errors import BadInput
from pipelines.tracking.spool import Spool, records_folder, spools

END = {"kind": "end", "status": "FINISHED"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_records_come_back_in_order_with_the_same_id() -> None:
    first = Spool.of_run("crystals", "one")
    for number in range(5):
        assert first.append({"kind": "metrics", "values": {"x": number}}) == number
    first.mark_sent(1)
    first.close()
    again = Spool.of_run("crystals", "one")
    assert again.id == first.id
    assert [(n, r["values"]["x"]) for n, r in again.pending()] == [(2, 2), (3, 3), (4, 4)]
    assert Spool.of_run("crystals", "two").id != first.id
    assert Spool.of_run("toy", "one").id != first.id


def test_a_run_that_is_over_leaves_nothing_and_the_next_one_is_another() -> None:
    first = Spool.of_run("crystals", "one")
    first.mark_sent(first.append(END))
    first.close()
    second = Spool.of_run("crystals", "one")
    assert second.id != first.id
    second.append(END)  # not sent: kept, but not continued
    second.close()
    third = Spool.of_run("crystals", "one")
    assert (third.records, third.id == second.id) == ([], False)
    third.close()
    assert [spool.id for spool in spools()] == [second.id]


SCRIPT = """
import sys
from pipelines.tracking.spool import Spool
spool = Spool.of_run("crystals", "one")
spool.mark_sent(spool.append({"kind": "end", "status": sys.argv[1]}))
if sys.argv[2] == "close":
    spool.close()
print(spool.id, flush=True)
sys.stdin.read()
"""


def test_a_run_that_is_over_is_another_one_than_the_next_while_its_process_lives() -> None:
    first = Spool.of_run("crystals", "one")
    first.mark_sent(first.append(END))
    first.close()
    script = "from pipelines.tracking.spool import Spool; print(Spool.of_run('crystals', 'one').id)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    shown = subprocess.check_output([sys.executable, "-c", script], env=environment, text=True)
    assert shown.strip() != first.id


@pytest.mark.parametrize("last", ["close", "append"])
@pytest.mark.parametrize("status", ["FINISHED", "FAILED"])
@pytest.mark.parametrize("killed", [True, False])
def test_a_run_whose_process_was_killed_after_its_end_goes_on(
    last: str, status: str, killed: bool
) -> None:
    """Whoever waits for the process has not learned that the run is over, and starts it again."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, status, last], env=environment, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdin is not None
        known = other.stdout.readline().strip()
        if killed:
            other.kill()
        other.stdin.close()
        other.wait()
    assert (Spool.of_run("crystals", "one").id == known) == (killed or status == "FAILED")
    assert len(list(records_folder().glob(".process-*"))) == 1 + killed


def test_a_line_that_a_kill_has_cut_is_dropped() -> None:
    spool = Spool.of_run("crystals", "one")
    spool.append({"kind": "metrics", "values": {"x": 1}})
    journal = spool.folder / "journal.jsonl"
    with journal.open("a") as file:
        file.write('{"kind": "metr')
    spool.close()
    again = Spool.of_run("crystals", "one")
    assert len(again.records) == 1
    again.append({"kind": "metrics", "values": {"x": 2}})
    again.close()
    assert [r["values"]["x"] for r in Spool.of_run("crystals", "one").records] == [1, 2]


def test_copies_stand_for_files_that_have_changed(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("first")
    spool = Spool.of_run("crystals", "one")
    sent = spool.append({"kind": "artifact", "path": str(model)})
    kept = spool.append({"kind": "artifact", "path": str(model)})
    spool.keep(kept, model)
    (model / "weights").write_text("second")
    assert (spool.file(sent) / "weights").read_text() == "second"
    assert (spool.file(kept) / "weights").read_text() == "first"
    assert spool.file(kept).name == "model"
    spool.mark_sent(kept)
    assert not list(spool.folder.glob("files/*"))


def test_two_processes_never_write_one_journal() -> None:
    script = (
        "from pipelines.tracking.spool import Spool; import sys;"
        " s = Spool.of_run('crystals', 'one'); s.append({}); print('open', flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(BadInput, match="another process records the run 'one'"):
            Spool.of_run("crystals", "one")
        assert list(spools()) == []
        other.kill()  # the system lets go of the lock
        other.wait()
    assert len(list(spools())) == 1


@pytest.mark.parametrize("name", ["a/b", "../../etc", ".hidden", "x" * 300, "sweep cpu\n", "~"])
def test_names_stay_inside_the_folder(name: str) -> None:
    spool = Spool.of_run("crystals", name)
    assert spool.folder.resolve().parent == (records_folder() / "crystals").resolve()
    assert Spool.of_run("crystals", name + "!").id != spool.id
