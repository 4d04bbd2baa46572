"""Parse ensembles of conformers in parallel, or build the demo's: parquet shards and a manifest."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from orbitdiff.data.ensembles import KT, read_ensembles
from orbitdiff.data.molecule_graph import graph_of_smiles
from orbitdiff.data.molecules import (
    SCHEMA_VERSION,
    Ensemble,
    MoleculeRecord,
    molecule_schema,
    record_to_row,
)
from orbitdiff.data.rejected import Rejected
from orbitdiff.data.splits import SPLITS, hash_split
from orbitdiff.data.store import file_sha256
from orbitdiff.errors import BadInput
from orbitdiff.export import read_json
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.fetch import RECIPE
from pipelines.stages.prepared import RawSplits, RowKind, write_prepared
from pipelines.stages.provenance import recorded

__all__ = ["prepare_geom", "prepare_own", "run"]

MOLECULES = RowKind("conformers", molecule_schema, SCHEMA_VERSION, record_to_row, "broken row")
TRAIN, TEST = "xtb_train.jsonl", "xtb_test.jsonl"
NOTE = "GFN2 ensembles built with ETKDG seeds"


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
        `dataset` (geom_qm9 or demo_molecules) and `settings.data`.
    inputs : mapping
        `raw`, the folder written by `fetch`.
    outputs : mapping
        `data`, the folder to write.
    executor : Executor
        Parses, or builds, in parallel.
    tracker : Tracker
        Gets the counts, the manifest and the rejected rows.

    Raises
    ------
    BadInput
        Missing or damaged raw files, no accepted row, full disk.
    """
    raw, settings = inputs["raw"], params.settings.data
    if params.dataset == "demo_molecules":
        splits = demo_splits(raw / RECIPE, settings)
    else:
        splits = geom_splits(params.dataset, raw, settings)
    data = outputs["data"]
    write_prepared(splits, data, kind=MOLECULES, executor=executor)
    with recorded(tracker, params, "prepare", data=data, name=params.dataset) as tracked:
        counts = json.loads((data / "manifest.json").read_text())["counts"]
        tracked.metrics({f"molecules.{split}": number for split, number in counts.items()})
        for name in ("manifest.json", "rejected.csv"):
            tracked.artifact(data / name)


def geom_splits(dataset: str, raw: Path, settings: Any) -> RawSplits:
    """Lines of the training file, a tenth of them held out by hash, and of the test file."""
    rows: dict[str, list[tuple[str, Any]]] = {split: [] for split in SPLITS}
    for line in _lines(raw / TRAIN):
        rows["val" if hash_split(line[0]) == "val" else "train"].append(line)
    rows["test"] = _lines(raw / TEST)
    about = {
        "dataset": dataset,
        "sources": {
            name: file_sha256(raw / name) for name in ("xtb_train.jsonl", "xtb_test.jsonl")
        },
        "split_rule": "test: 500 of the official test molecules; val: a tenth of the training "
        "file by sha256 of the SMILES",
        "note": NOTE,
        "max_atoms": settings.max_atoms,
        "max_conformers": settings.max_conformers,
    }
    parse = partial(
        parse_line, max_atoms=settings.max_atoms, max_conformers=settings.max_conformers
    )
    return RawSplits(rows, parse, about)


def _lines(path: Path) -> list[tuple[str, Any]]:
    """Lines of a jsonl file with the SMILES of each."""
    if not path.is_file():
        raise BadInput(f"expected {path}, found none; run fetch")
    found: list[tuple[str, Any]] = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            found.append((str(json.loads(line)["smiles"]), line))
        except (ValueError, KeyError, TypeError):
            found.append((f"line {number}", line))
    return found


def parse_line(
    row: tuple[str, Any], *, max_atoms: int, max_conformers: int
) -> MoleculeRecord | Rejected:
    """Parse one (SMILES, JSON line)."""
    name, line = row
    try:
        content = json.loads(line)
        coords = np.array(content["coords"], dtype=np.float64)
        numbers = np.array(content["atomic_numbers"], dtype=np.int64)
        energies = np.array(content.get("energies_kcal", [0.0] * len(coords)), dtype=np.float64)
    except (ValueError, KeyError, TypeError) as error:
        return Rejected(name, "broken row", f"{type(error).__name__}: {error}"[:120])
    weights = np.exp(-(energies - energies.min(initial=0.0)) / KT)
    ensemble = Ensemble(name, numbers, coords, energies, weights / max(weights.sum(), 1e-300))
    return accept(ensemble, max_atoms=max_atoms, max_conformers=max_conformers)


def accept(ensemble: Ensemble, *, max_atoms: int, max_conformers: int) -> MoleculeRecord | Rejected:
    """Check an ensemble against its SMILES, and keep its lowest conformers."""
    name, coords = ensemble.smiles, ensemble.coords
    try:
        graph = graph_of_smiles(name)
    except BadInput as error:
        return Rejected(name, "unusable SMILES", str(error)[:120])
    size = len(graph.atom_types)
    if size > max_atoms:
        return Rejected(name, "too many atoms", f"{size}, the limit is {max_atoms}")
    if not np.array_equal(graph.atom_types, ensemble.atomic_numbers):
        return Rejected(name, "other atoms", "the SMILES has other atoms, or another order")
    if coords.ndim != 3 or coords.shape[1:] != (size, 3) or not len(coords):
        return Rejected(name, "wrong shape", f"coords {coords.shape}, {size} atoms")
    if not np.isfinite(coords).all():
        return Rejected(name, "not finite", "a coordinate is no finite number")
    lowest = np.argsort(ensemble.energies, kind="stable")[:max_conformers]
    weights = ensemble.weights[lowest]
    kept = Ensemble(
        name, graph.atom_types, coords[lowest], ensemble.energies[lowest], weights / weights.sum()
    )
    return MoleculeRecord(graph, kept)


def demo_splits(path: Path, settings: Any) -> RawSplits:
    """The built-in list of SMILES, its ensembles built with MMFF94s by the recipe of `fetch`."""
    recipe = read_json(path, cure="run the fetch stage again")
    rows: dict[str, list[tuple[str, Any]]] = {split: [] for split in SPLITS}
    for smiles in recipe["smiles"]:
        rows[hash_split(smiles)].append((smiles, smiles))
    about = {
        "dataset": "demo_molecules",
        "sources": {"demo_smiles.csv": recipe["sha256"]},
        "split_rule": "80/10/10 by sha256 of the SMILES",
        "note": "built-in molecules, MMFF94s ensembles",
        "max_atoms": settings.max_atoms,
        "max_conformers": settings.max_conformers,
    }
    build = partial(build_row, max_atoms=settings.max_atoms, max_conformers=settings.max_conformers)
    return RawSplits(rows, build, about)


def build_row(
    row: tuple[str, Any], *, max_atoms: int, max_conformers: int
) -> MoleculeRecord | Rejected:
    """Search the conformers of one SMILES with MMFF94s."""
    from orbitdiff.data.conformer_search import Failure, SearchSettings, search

    found = search(row[1], level="mmff", seed=0, settings=SearchSettings.for_training())
    if isinstance(found, Failure):
        return Rejected(row[0], found.reason, found.detail[:120])
    return accept(found.ensemble, max_atoms=max_atoms, max_conformers=max_conformers)


def prepare_own(source: Path, out: Path, *, max_atoms: int, seed: int, executor: Executor) -> None:
    """Prepare a user's ensembles (SDF or JSON lines, packed or not), split 80/10/10.

    Parameters
    ----------
    source : Path
    out : Path
        Folder to write; an earlier one is replaced only when all went well.
    max_atoms : int
        Molecules with more atoms are rejected.
    seed : int
        0 splits by SHA-256 of the SMILES, another number by that of seed and SMILES.
    executor : Executor

    Raises
    ------
    BadInput
        No such file, no accepted molecule, full disk.
    """
    found = read_ensembles(Path(source))
    rows: dict[str, list[tuple[str, Any]]] = {split: [] for split in SPLITS}
    for ensemble in found.ensembles.values():
        rows[hash_split(ensemble.smiles, seed=seed)].append((ensemble.smiles, ensemble))
    for refused in found.rejected:
        print(f"left out row {refused.row}: {refused.reason} ({refused.detail})")
    about = {
        "dataset": Path(source).name,
        "sources": {Path(source).name: file_sha256(Path(source))},
        "split_rule": f"80/10/10 by sha256 of the SMILES, seed {seed}",
        "note": "own data",
        "max_atoms": max_atoms,
    }
    parse = partial(accept_row, max_atoms=max_atoms)
    write_prepared(RawSplits(rows, parse, about), out, kind=MOLECULES, executor=executor)


def prepare_geom(
    source: Path, out: Path, *, split: Path | None, subset: str, max_atoms: int, executor: Executor
) -> None:
    """Prepare GEOM as it is published: `rdkit_folder`, or the msgpack release.

    Parameters
    ----------
    source : Path
        Folder with `{subset}/*.pickle`, or `*.msgpack` (or `.tar.gz` of it).
    out : Path
        Folder to write; an earlier one is replaced only when all went well.
    split : Path, optional
        Split file of GeoMol (folder only); default 80/10/10 by SHA-256 of the SMILES.
    subset : str
        qm9 or drugs.
    max_atoms : int
    executor : Executor

    Raises
    ------
    BadInput
        No such files, files of the split missing, no accepted molecule, full disk.
    """
    from orbitdiff.data.geom import read_msgpack, read_rdkit_folder, read_split

    refused: list[Rejected] = []
    rows: dict[str, list[tuple[str, Any]]] = {part: [] for part in SPLITS}
    if split is not None and not source.is_dir():
        raise BadInput(f"a split file belongs to an rdkit_folder, {source} is none")
    if split is not None:
        for part, places in read_split(split).items():
            found = read_rdkit_folder(source, quarantine=refused.append, subset=subset, rows=places)
            rows[part] += [(one.smiles, one) for one in found]
    else:
        every = (
            read_rdkit_folder(source, quarantine=refused.append, subset=subset)
            if source.is_dir()
            else read_msgpack(source, quarantine=refused.append)
        )
        for one in every:
            rows[hash_split(one.smiles)].append((one.smiles, one))
    # under names of their own, or several conformers of a molecule would count as duplicates
    rows["train"] += [(f"refused {place}", (place, one)) for place, one in enumerate(refused)]
    about = {
        "dataset": source.name,
        "sources": {} if source.is_dir() else {source.name: file_sha256(source)},
        "split_rule": "80/10/10 by sha256 of the SMILES" if split is None else split.name,
        "note": f"GEOM, {subset}",
        "max_atoms": max_atoms,
    }
    parse = partial(accept_row, max_atoms=max_atoms)
    write_prepared(RawSplits(rows, parse, about), out, kind=MOLECULES, executor=executor)


def accept_row(row: tuple[str, Any], *, max_atoms: int) -> MoleculeRecord | Rejected:
    """Check one (SMILES, Ensemble) with all its conformers; what was refused stays refused."""
    if isinstance(row[1], tuple):
        refused: Rejected = row[1][1]
        return refused
    return accept(row[1], max_atoms=max_atoms, max_conformers=len(row[1].coords))
