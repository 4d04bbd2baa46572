"""Records on their way to a tracking server: one journal per run, beside the running state.

`.runs/records/EXPERIMENT/NAME/` holds `journal.jsonl` (a line per record), `sent` (how many of them
the server has), `id` and the files that could not be sent at once. A journal is kept until its run
has ended well, all of it was sent and its process has exited, so a run that starts again finds the
id that it had.
"""

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, final

from orbitdiff.errors import BadInput
from orbitdiff.export import write_atomically
from pipelines.tracking.departure import claim, remove_at_exit, was_killed

__all__ = ["Spool", "records_folder", "spools"]

Record = dict[str, Any]


def records_folder() -> Path:
    """Where journals stand: in the current folder, as the running state of the stages."""
    return Path.cwd() / ".runs" / "records"


@final
class Spool:
    """The journal of one run; the process that opened it is its only writer.

    Parameters
    ----------
    folder : Path
        Created if needed.

    Raises
    ------
    BadInput
        Another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = locked(folder)
        note = folder / "id"
        if not note.is_file():
            write_atomically(note, uuid.uuid4().hex)
        self.id = note.read_text()
        self.records = list(read_lines(folder / "journal.jsonl"))
        sent = folder / "sent"
        self.sent = int(sent.read_text()) if sent.is_file() else 0

    @classmethod
    def of_run(cls, experiment: str, name: str) -> "Spool":
        """Open the journal of a run, by its experiment and name."""
        safe = "".join(c if c.isalnum() or c in "-_.=, " else "_" for c in name)
        if safe != name or len(safe) > 100 or safe.startswith("."):
            safe = f"{safe[:80].lstrip('.')}-{sha256(name.encode()).hexdigest()[:12]}"
        folder = records_folder() / experiment / safe
        spool = cls(folder)
        if spool.ended_well and not was_killed(folder):
            if spool.pending():  # of an earlier run, and sent as such
                os.replace(folder, folder.with_name(f"{safe}~{spool.id[:8]}"))
            else:
                shutil.rmtree(folder)
            spool._lock.close()
            spool = cls(folder)
        claim(folder)
        return spool

    def append(self, record: Mapping[str, Any]) -> int:
        """Write a record to the journal; return its number."""
        line = json.dumps(record)
        with (self.folder / "journal.jsonl").open("a") as file:
            file.write(line + "\n")
        self.records.append(json.loads(line))
        return len(self.records) - 1

    def pending(self) -> list[tuple[int, Record]]:
        """Records that the server has not got, with their numbers, in order."""
        return list(enumerate(self.records))[self.sent :]

    def mark_sent(self, number: int) -> None:
        """Note that the server has every record up to this one."""
        self.sent = number + 1
        write_atomically(self.folder / "sent", str(self.sent))
        shutil.rmtree(self.kept(number), ignore_errors=True)

    def kept(self, number: int) -> Path:
        """Folder of the copies that belong to a record."""
        return self.folder / "files" / str(number)

    def keep(self, number: int, path: Path) -> None:
        """Copy what a record names, so that it can be sent when the original has changed."""
        target = self.kept(number) / path.name
        partial = self.folder / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        if path.is_dir():
            shutil.copytree(path, partial / path.name)
        else:
            shutil.copy(path, partial)
        target.parent.parent.mkdir(exist_ok=True)
        os.replace(partial, target.parent)

    def file(self, number: int) -> Path:
        """Return what a record names: the copy where there is one."""
        named = Path(self.records[number]["path"])
        copy = self.kept(number) / named.name
        return copy if copy.exists() else named

    @property
    def ended_well(self) -> bool:
        """True where the last record says that the run is finished."""
        last = self.records[-1] if self.records else {}
        return (last.get("kind"), last.get("status")) == ("end", "FINISHED")

    def close(self) -> None:
        """Let go; a journal with nothing more to say is removed when the process exits."""
        if self.ended_well and not self.pending():
            remove_at_exit(self.folder)
        self._lock.close()


def locked(folder: Path) -> IO[str]:
    """Hold the lock of a journal, in a folder that its last owner did not just remove."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = (folder / "lock").open("a")
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise BadInput(
                f"another process records the run {folder.name!r} right now; wait for its end"
            ) from error
        try:
            if os.path.samestat(os.fstat(file.fileno()), (folder / "lock").stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()


def read_lines(path: Path) -> Iterator[Record]:
    """Yield the whole lines of a journal; one that a kill has cut was never said to be written."""
    if not path.is_file():
        return
    text = path.read_bytes()
    whole, newline, rest = text.rpartition(b"\n")
    if rest:
        write_atomically(path, (whole + newline).decode())
    for line in whole.splitlines():
        yield json.loads(line)


def spools() -> Iterator[Spool]:
    """Open every journal that nobody writes and that has something to send, oldest first."""
    found = sorted(
        records_folder().glob("*/*/journal.jsonl"), key=lambda x: (x.parent / "id").stat().st_mtime
    )
    for path in found:
        try:
            spool = Spool(path.parent)
        except BadInput:
            continue
        if spool.pending():
            yield spool
        else:
            spool._lock.close()
