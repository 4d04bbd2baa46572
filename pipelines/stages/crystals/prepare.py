"""Parse raw crystals in parallel and write parquet shards, rejected.csv and a manifest."""

import json
from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from orbitdiff.data.cif import Crystal, Rejected, parse_crystal
from orbitdiff.data.crystals import SCHEMA_VERSION, crystal_schema, crystal_to_row
from orbitdiff.data.splits import NOTE, RULES, SPLITS, hash_split
from orbitdiff.errors import BadInput
from orbitdiff.export import read_json
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.fetch import RECIPE
from pipelines.stages.prepared import RawSplits, RowKind, write_prepared
from pipelines.stages.provenance import recorded

__all__ = ["prepare_own", "run"]

CRYSTALS = RowKind("crystals", crystal_schema, SCHEMA_VERSION, crystal_to_row, "broken CIF")


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
    write_prepared(splits, data, kind=CRYSTALS, executor=executor)
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
        "max_atoms": max_atoms,
    }
    splits = RawSplits(rows, partial(parse_cif_row, max_atoms=max_atoms), about)
    write_prepared(splits, Path(out), kind=CRYSTALS, executor=executor)


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
        "max_atoms": max_atoms,
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
        "max_atoms": recipe["max_atoms"],
    }
    return RawSplits(rows, partial(build_row, max_atoms=recipe["max_atoms"]), about)


def build_row(row: tuple[str, Any], *, max_atoms: int) -> Crystal | Rejected:
    """Build one decorated prototype."""
    from orbitdiff.data.prototypes import build_crystal

    return build_crystal(row[1], max_atoms=max_atoms)
