"""Check protein chains and split them by components: parquet shards and a manifest."""

import json
from collections.abc import Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from orbitdiff.data.protein_files import SUFFIXES, read_folder
from orbitdiff.data.proteins import (
    SCHEMA_VERSION,
    Backbone,
    BackboneLimits,
    Rejected,
    backbone_schema,
    backbone_to_row,
    check_backbone,
    read_traces,
    split_of,
)
from orbitdiff.data.splits import SPLITS
from orbitdiff.data.store import file_sha256
from orbitdiff.errors import BadInput
from orbitdiff.export import read_json
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.fetch import RECIPE
from pipelines.stages.prepared import RawSplits, RowKind, write_prepared
from pipelines.stages.provenance import recorded

__all__ = ["prepare_own", "run"]

CHAINS = RowKind("backbones", backbone_schema, SCHEMA_VERSION, backbone_to_row, "broken chain")
TRACES = "ca_traces.npz"
SPLIT_RULE = "80/10/10 by sha256 of the component of sequence similarity"


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
        `dataset` and `settings.data`, the limits.
    inputs : mapping
        `raw`, the folder written by `fetch`.
    outputs : mapping
        `data`, the folder to write.
    executor : Executor
        Checks in parallel.
    tracker : Tracker
        Gets the counts, the manifest and the rejected rows.

    Raises
    ------
    BadInput
        Missing or damaged raw files, no accepted chain, full disk.
    """
    raw, limits = inputs["raw"], params.settings.data
    if params.dataset == "demo_chains":
        recipe = read_json(raw / RECIPE, cure="run the fetch stage again")
        path = Path(str(files("orbitdiff") / "data" / "resources" / "demo_chains.npz"))
        if file_sha256(path) != recipe["sha256"]:
            raise BadInput(f"{path} has changed since `fetch` ran; run the fetch stage again")
        note = "built-in PDB chains of 40 to 72 residues, small set"
    else:
        path, note = raw / TRACES, "real PDB chains, small set"
    about = {
        "dataset": params.dataset,
        "sources": {path.name: file_sha256(path)},
        "split_rule": SPLIT_RULE,
        "note": note,
        "limits": vars(limits),
    }
    rows: dict[str, list[tuple[str, Any]]] = {split: [] for split in SPLITS}
    for chain in read_traces(path):
        rows[split_of(chain)].append((chain.id, chain))
    data = outputs["data"]
    splits = RawSplits(rows, partial(accept, limits=limits), about)
    write_prepared(splits, data, kind=CHAINS, executor=executor)
    with recorded(tracker, params, "prepare", data=data, name=params.dataset) as tracked:
        counts = json.loads((data / "manifest.json").read_text())["counts"]
        tracked.metrics({f"chains.{split}": number for split, number in counts.items()})
        for name in ("manifest.json", "rejected.csv"):
            tracked.artifact(data / name)


def accept(row: tuple[str, Backbone | Rejected], *, limits: BackboneLimits) -> Backbone | Rejected:
    """Check one chain; what a reader refused stays refused."""
    found = row[1]
    return found if isinstance(found, Rejected) else check_backbone(found, limits)


def prepare_own(
    source: Path, out: Path, *, limits: BackboneLimits, seed: int, executor: Executor
) -> None:
    """Prepare a user's structure files, split 80/10/10; equal sequences never part.

    Parameters
    ----------
    source : Path
        Folder of PDB, mmCIF or BinaryCIF files, packed or not, at any depth.
    out : Path
        Folder to write; an earlier one is replaced only when all went well.
    limits : BackboneLimits
    seed : int
        0 splits by SHA-256 of the sequence, another number by that of seed and sequence.
    executor : Executor

    Raises
    ------
    BadInput
        No such folder, no structure file in it, no accepted chain, full disk.
    """
    rows: dict[str, list[tuple[str, Any]]] = {split: [] for split in SPLITS}
    for found in read_folder(source, limits):
        split = "train" if isinstance(found, Rejected) else split_of(found, seed=seed)
        rows[split].append((found.id, found))
    about = {
        "dataset": source.name,
        "sources": {
            str(path.relative_to(source)): file_sha256(path)
            for path in sorted(source.rglob("*"))
            if path.name.lower().endswith(SUFFIXES)
        },
        "split_rule": f"80/10/10 by sha256 of the sequence, seed {seed}",
        "note": "own data",
        "limits": vars(limits),
    }
    splits = RawSplits(rows, partial(accept, limits=limits), about)
    write_prepared(splits, out, kind=CHAINS, executor=executor)
