"""Raw rows in, prepared folder out: parse in parallel, quarantine, write shards and a manifest."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from orbitdiff.data.rejected import Rejected
from orbitdiff.data.splits import SPLITS
from orbitdiff.errors import BadInput
from pipelines.stages.base import Executor

__all__ = ["RawSplits", "RowKind", "write_prepared"]

CHUNK = 64
"""Rows per task of the executor: about a tenth of a second of work."""

FIRST_COME = ("test", "val", "train")
"""Order in which duplicates are decided, so that no test row is lost to a training row."""


@dataclass(frozen=True)
class RowKind:
    """What a task's prepared folder holds.

    Parameters
    ----------
    task : str
    schema : callable
        Returns the arrow schema.
    version : int
        Of the schema.
    to_row : callable
        Accepted sample to its parquet row.
    broken : str
        Reason of rows on which the parser itself fails.
    """

    task: str
    schema: Callable[[], Any]
    version: int
    to_row: Callable[[Any], dict[str, Any]]
    broken: str


@dataclass(frozen=True)
class RawSplits:
    """What is to be parsed.

    Parameters
    ----------
    rows : dict
        Split name to rows; a row is what `parse` takes, its first entry the id.
    parse : callable
        Row to an accepted sample or Rejected, sent to other processes.
    about : dict
        Entries of the manifest: data set, sources, split rule, note.
    """

    rows: dict[str, list[tuple[str, Any]]]
    parse: Callable[[tuple[str, Any]], Any]
    about: dict[str, Any] = field(default_factory=dict)


def write_prepared(splits: RawSplits, out: Path, *, kind: RowKind, executor: Executor) -> None:
    """Parse all rows and write the prepared folder, all or nothing.

    Parameters
    ----------
    splits : RawSplits
    out : Path
        Gets parquet shards, rejected.csv and manifest.json.
    kind : RowKind
    executor : Executor
        Parses chunks of rows in parallel.

    Raises
    ------
    BadInput
        No row, no accepted row, full disk.
    """
    from orbitdiff.data.store import fresh_directory, write_shards

    if not any(splits.rows.values()):
        raise BadInput("expected at least one row, got an empty data set")
    accepted, rejected = parse_all(splits, kind, executor)
    if not any(accepted.values()):
        reasons = Counter(found.reason for _, found in rejected)
        raise BadInput(f"no row was accepted: {dict(reasons)}; the first: {rejected[0][1]}")
    manifest = {
        "schema_version": kind.version,
        "task": kind.task,
        **splits.about,
        "counts": {split: len(accepted[split]) for split in SPLITS},
        "rejected": dict(sorted(Counter(found.reason for _, found in rejected).items())),
    }
    with fresh_directory(out) as folder:
        for split in SPLITS:
            rows = map(kind.to_row, accepted[split])
            write_shards(rows, folder, schema=kind.schema(), name=split)
        with (folder / "rejected.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["id", "split", "reason", "detail"])
            writer.writerows(
                [found.id, split, found.reason, found.detail] for split, found in rejected
            )
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    print(summary(manifest))


def parse_all(
    splits: RawSplits, kind: RowKind, executor: Executor
) -> tuple[dict[str, list[Any]], list[tuple[str, Rejected]]]:
    """Parse the rows in chunks; duplicates are refused before they are parsed."""
    kept, rejected = without_duplicates(splits.rows)
    queue = [(split, row) for split in SPLITS for row in kept[split]]
    chunks = [queue[start : start + CHUNK] for start in range(0, len(queue), CHUNK)]
    results = executor.map(
        partial(parse_chunk, parse=splits.parse, broken=kind.broken),
        chunks,
        description=f"parse {kind.task}",
    )
    accepted: dict[str, list[Any]] = {split: [] for split in SPLITS}
    for chunk, found in zip(chunks, results, strict=True):
        for (split, _), outcome in zip(chunk, found, strict=True):
            if isinstance(outcome, Rejected):
                rejected.append((split, outcome))
            else:
                accepted[split].append(outcome)
    return accepted, rejected


def parse_chunk(
    chunk: Sequence[tuple[str, tuple[str, Any]]],
    *,
    parse: Callable[[tuple[str, Any]], Any],
    broken: str,
) -> list[Any]:
    """Parse the rows of one chunk; a fault of the parser itself rejects its row."""
    found: list[Any] = []
    for _, row in chunk:
        try:
            found.append(parse(row))
        except Exception as error:
            found.append(Rejected(row[0], broken, f"{type(error).__name__}: {error}"[:120]))
    return found


def without_duplicates(
    rows: Mapping[str, list[tuple[str, Any]]],
) -> tuple[dict[str, list[tuple[str, Any]]], list[tuple[str, Rejected]]]:
    """Drop rows whose id or text came before, in the order test, val, train."""
    ids: set[str] = set()
    texts: dict[bytes, str] = {}
    kept: dict[str, list[tuple[str, Any]]] = {split: [] for split in SPLITS}
    rejected: list[tuple[str, Rejected]] = []
    for split in FIRST_COME:
        for id, content in rows[split]:
            digest = sha256(" ".join(str(content).split()).encode()).digest()
            if id in ids:
                rejected.append((split, Rejected(id, "duplicate id", "the id came before")))
            elif str(content).strip() and digest in texts:
                detail = f"same structure as {texts[digest]}"
                rejected.append((split, Rejected(id, "duplicate structure", detail)))
            else:
                ids.add(id)
                texts[digest] = id
                kept[split].append((id, content))
    return kept, rejected


def summary(manifest: Mapping[str, Any]) -> str:
    """Say in one line how many rows were accepted and rejected."""
    counts = ", ".join(f"{split} {count}" for split, count in manifest["counts"].items())
    reasons = ", ".join(f"{reason} {count}" for reason, count in manifest["rejected"].items())
    total = sum(manifest["rejected"].values())
    return f"{manifest['dataset']}: {counts}; rejected {total}" + (
        f" ({reasons})" if reasons else ""
    )
