"""Parse raw crystals in parallel and write parquet shards, rejected.csv and a manifest."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from orbitdiff.data.cif import Crystal, Rejected, parse_crystal
from orbitdiff.data.crystals import SCHEMA_VERSION, SPLITS, crystal_schema, crystal_to_row
from orbitdiff.data.splits import NOTE, RULES, hash_split
from orbitdiff.errors import BadInput
from orbitdiff.export import read_json
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.fetch import RECIPE
from pipelines.stages.provenance import recorded

__all__ = ["RawSplits", "prepare_own", "run"]

CHUNK = 64
"""Rows per task of the executor: about a tenth of a second of work."""

FIRST_COME = ("test", "val", "train")
"""Order in which duplicates are decided, so that no test row is lost to a training row."""


@dataclass(frozen=True)
class RawSplits:
    """What is to be parsed.

    Parameters
    ----------
    rows : dict
        Split name to rows; a row is what `parse` takes, its first entry the id.
    parse : callable
        Row to Crystal or Rejected, sent to other processes.
    about : dict
        Entries of the manifest: data set, sources, split rule, note.
    """

    rows: dict[str, list[tuple[str, Any]]]
    parse: Callable[[tuple[str, Any]], Crystal | Rejected]
    about: dict[str, Any] = field(default_factory=dict)


def run(
    params: Any,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    executor: Executor,
    tracker: Tracker,
) -> None:
    """Prepare the raw files of `params.dataset`.

    Parameters
    ----------
    params : RunParams
        `dataset` and `settings.data` (max_atoms).
    inputs : mapping
        `raw`, the folder written by `fetch`.
    outputs : mapping
        `data`, the folder to write.
    executor : Executor
        Parses chunks of rows in parallel.
    tracker : Tracker
        Gets the counts, the manifest and the rejected rows.

    Raises
    ------
    BadInput
        Missing or damaged raw files, no accepted row, full disk.
    """
    raw, max_atoms = inputs["raw"], params.settings.data.max_atoms
    if params.dataset == "prototypes":
        splits = prototype_splits(raw / RECIPE)
    else:
        splits = registered_splits(params.dataset, raw, max_atoms)
    data = outputs["data"]
    write_prepared(splits, data, max_atoms=max_atoms, executor=executor)
    with recorded(tracker, params, "prepare", data=data, name=params.dataset) as tracked:
        counts = json.loads((data / "manifest.json").read_text())["counts"]
        tracked.metrics({f"crystals.{split}": number for split, number in counts.items()})
        for name in ("manifest.json", "rejected.csv"):
            tracked.artifact(data / name)


def prepare_own(
    source: Path, out: Path, *, max_atoms: int = 20, seed: int = 0, executor: Executor
) -> None:
    """Prepare a user's csv, csv.gz (column `cif`) or folder of CIF files, split 80/10/10.

    Parameters
    ----------
    source : Path
    out : Path
        Folder to write; an earlier one is replaced only when all went well.
    max_atoms : int
        Crystals with more atoms are rejected.
    seed : int
        0 splits by SHA-256 of the id, another number by that of seed and id.
    executor : Executor

    Raises
    ------
    BadInput
        No such file, no column `cif`, no rows, no accepted row, full disk.
    """
    from orbitdiff.data.tables import read_cif_rows

    found = read_cif_rows(Path(source))
    rows: dict[str, list[tuple[str, Any]]] = {split: [] for split in SPLITS}
    for id, cif in found:
        rows[hash_split(id, seed=seed)].append((id, cif))
    digest = sha256("\0".join(part for row in found for part in row).encode()).hexdigest()
    about = {
        "dataset": Path(source).name,
        "sources": {Path(source).name: digest},
        "split_rule": f"80/10/10 by sha256 of the id, seed {seed}",
        "note": "own data",
    }
    splits = RawSplits(rows, partial(parse_cif_row, max_atoms=max_atoms), about)
    write_prepared(splits, Path(out), max_atoms=max_atoms, executor=executor)


def parse_cif_row(row: tuple[str, Any], *, max_atoms: int) -> Crystal | Rejected:
    """Parse one (id, cif)."""
    return parse_crystal(row[0], row[1], max_atoms=max_atoms)


def registered_splits(dataset: str, raw: Path, max_atoms: int) -> RawSplits:
    """Rows of a registered data set by its fixed split rule."""
    from orbitdiff.data.store import file_sha256
    from orbitdiff.data.tables import read_cif_table

    if dataset not in RULES:
        raise BadInput(f"expected a data set among {['prototypes', *RULES]}, got {dataset!r}")
    rule = RULES[dataset]
    names = sorted({part.file for parts in rule.parts.values() for part in parts})
    tables = {name: read_cif_table(raw / name) for name in names}
    rows = {
        split: [row for part in parts for row in tables[part.file][part.start : part.stop]]
        for split, parts in rule.parts.items()
    }
    for split, expected in rule.rows.items():
        if len(rows[split]) != expected:
            raise BadInput(
                f"expected {expected} rows in split {split} of {dataset}, got {len(rows[split])}; "
                "run fetch again"
            )
    about = {
        "dataset": dataset,
        "sources": {name: file_sha256(raw / name) for name in names},
        "split_rule": rule.text,
        "note": NOTE,
    }
    return RawSplits(rows, partial(parse_cif_row, max_atoms=max_atoms), about)


def prototype_splits(path: Path) -> RawSplits:
    """List the decorations of the built-in prototypes, by the recipe that `fetch` wrote."""
    from orbitdiff.data.prototypes import choose_decorations, library_sha256

    if not path.is_file():
        raise BadInput(f"expected {path}, found none; run fetch")
    recipe = read_json(path, cure="run the fetch stage again")
    if recipe["library_sha256"] != library_sha256():
        raise BadInput("the recipe was made with another pymatgen library; run fetch again")
    rows: dict[str, list[tuple[str, Any]]] = {split: [] for split in SPLITS}
    for decoration in choose_decorations(recipe["count"], max_atoms=recipe["max_atoms"]):
        rows[hash_split(decoration.id)].append((decoration.id, decoration))
    about = {
        "dataset": "prototypes",
        "sources": {"aflow_prototypes.json": recipe["library_sha256"]},
        "split_rule": "80/10/10 by sha256 of (prototype, formula)",
        "note": "built-in prototypes with predicted volumes, no measured or computed crystals",
    }
    return RawSplits(rows, partial(build_row, max_atoms=recipe["max_atoms"]), about)


def build_row(row: tuple[str, Any], *, max_atoms: int) -> Crystal | Rejected:
    """Build one decorated prototype."""
    from orbitdiff.data.prototypes import build_crystal

    return build_crystal(row[1], max_atoms=max_atoms)


def write_prepared(splits: RawSplits, out: Path, *, max_atoms: int, executor: Executor) -> None:
    """Parse all rows and write the folder of prepared crystals, all or nothing."""
    from orbitdiff.data.store import fresh_directory, write_shards

    if not any(splits.rows.values()):
        raise BadInput("expected at least one row, got an empty data set")
    accepted, rejected = parse_all(splits, executor)
    if not any(accepted.values()):
        reasons = Counter(found.reason for _, found in rejected)
        raise BadInput(f"no row was accepted: {dict(reasons)}; the first: {rejected[0][1]}")
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "task": "crystals",
        **splits.about,
        "max_atoms": max_atoms,
        "counts": {split: len(accepted[split]) for split in SPLITS},
        "rejected": dict(sorted(Counter(found.reason for _, found in rejected).items())),
    }
    with fresh_directory(out) as folder:
        for split in SPLITS:
            rows = map(crystal_to_row, accepted[split])
            write_shards(rows, folder, schema=crystal_schema(), name=split)
        with (folder / "rejected.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["id", "split", "reason", "detail"])
            writer.writerows(
                [found.id, split, found.reason, found.detail] for split, found in rejected
            )
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    print(summary(manifest))


def parse_all(
    splits: RawSplits, executor: Executor
) -> tuple[dict[str, list[Crystal]], list[tuple[str, Rejected]]]:
    """Parse the rows in chunks; duplicates are refused before they are parsed."""
    kept, rejected = without_duplicates(splits.rows)
    queue = [(split, row) for split in SPLITS for row in kept[split]]
    chunks = [queue[start : start + CHUNK] for start in range(0, len(queue), CHUNK)]
    results = executor.map(
        partial(parse_chunk, parse=splits.parse), chunks, description="parse crystals"
    )
    accepted: dict[str, list[Crystal]] = {split: [] for split in SPLITS}
    for chunk, found in zip(chunks, results, strict=True):
        for (split, _), outcome in zip(chunk, found, strict=True):
            if isinstance(outcome, Crystal):
                accepted[split].append(outcome)
            else:
                rejected.append((split, outcome))
    return accepted, rejected


def parse_chunk(
    chunk: Sequence[tuple[str, tuple[str, Any]]],
    *,
    parse: Callable[[tuple[str, Any]], Crystal | Rejected],
) -> list[Crystal | Rejected]:
    """Parse the rows of one chunk; a fault of the parser itself rejects its row."""
    found: list[Crystal | Rejected] = []
    for _, row in chunk:
        try:
            found.append(parse(row))
        except Exception as error:
            found.append(Rejected(row[0], "broken CIF", f"{type(error).__name__}: {error}"[:120]))
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
