"""Build ensembles of conformers from a list of SMILES: in chunks, resumable, bad ones listed."""

import csv
import gzip
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np

from orbitdiff.data.conformer_search import LEVELS, Failure, Found, SearchSettings, search
from orbitdiff.data.tables import open_text
from orbitdiff.data.xtb import available_engine
from orbitdiff.errors import BadInput
from orbitdiff.export import read_json, write_atomically
from pipelines.stages.base import Executor
from pipelines.stages.isolated import Ended, Isolated

__all__ = ["ENSEMBLES", "FAILURES", "build_ensembles", "read_smiles"]

ENSEMBLES = "ensembles.jsonl.gz"
FAILURES = "failures.csv"
RECIPE = "recipe.json"
PARTS = "parts"
SCHEMA_VERSION = 1
CHUNK = 16
"""Molecules per task: some twenty seconds of xTB, all that a killed run can lose per worker."""

GRACE = 30
"""Seconds that a molecule may take beyond its limit before its process is ended."""

PRELOAD = (
    "orbitdiff.data.conformer_search",
    "rdkit.Chem.rdDistGeom",
    "rdkit.Chem.rdForceFieldHelpers",
    "scipy.optimize",
    "tblite.interface",
)
DECIMALS = 4
NOTES = {
    "etkdg": "ETKDGv3 geometries, energies unknown",
    "mmff": "MMFF94s ensembles built with ETKDG seeds",
    "xtb": "GFN2 ensembles built with ETKDG seeds",
}


def build_ensembles(
    source: Path,
    out: Path,
    *,
    level: str,
    executor: Executor,
    seed: int = 0,
    settings: SearchSettings | None = None,
    column: str = "smiles",
) -> dict[str, Any]:
    """Search the conformers of each molecule of a list.

    Writes `ensembles.jsonl.gz` (one object a line: smiles, atomic_numbers, energies_kcal, coords,
    weights, seconds), `failures.csv` (smiles, reason, detail) and `manifest.json` into the folder.
    Each finished chunk of molecules is a file in `parts/`; the same call again, also with a longer
    list, computes only the chunks that are not there.

    Parameters
    ----------
    source : Path
        `*.smi` or `*.txt` (SMILES first on each line), `*.csv` or `*.csv.gz` with a column.
    out : Path
        Folder, new or of an earlier call with the same level, seed and settings.
    level : str
        etkdg, mmff or xtb.
    executor : Executor
        Runs the chunks; its workers write to `out`.
    seed : int
    settings : SearchSettings, optional
    column : str
        Of a csv.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    BadInput
        No readable list, an unknown level, a folder of another recipe, full disk, no molecule with
        a conformer.
    MissingExtra
        Level xtb without tblite and without the program xtb.
    """
    if level not in LEVELS:
        raise BadInput(f"expected level etkdg, mmff or xtb, got {level!r}")
    settings = settings or SearchSettings()
    if level == "xtb" and settings.engine is None:
        settings = replace(settings, engine=available_engine())
    rows = read_smiles(Path(source), column=column)
    molecules = list(dict.fromkeys(rows))
    parts = open_folder(Path(out).absolute(), level=level, seed=seed, settings=settings)
    chunks = [tuple(molecules[start : start + CHUNK]) for start in range(0, len(molecules), CHUNK)]
    missing = [chunk for chunk in chunks if not part_path(parts, chunk).exists()]
    if missing:
        build = partial(build_chunk, parts=parts, level=level, seed=seed, settings=settings)
        executor.map(build, missing, description=f"conformers ({level})")
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "task": "conformers",
        "note": NOTES[level],
        "level": level,
        "seed": seed,
        "settings": asdict(settings),
        "software": software(level, settings),
        "sources": {Path(source).name: sha256(Path(source).read_bytes()).hexdigest()},
        **gather([part_path(parts, chunk) for chunk in chunks], parts.parent),
    }
    manifest["counts"] = {"rows": len(rows), "molecules": len(molecules), **manifest["counts"]}
    write_atomically(parts.parent / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    print(summary(manifest))
    if not manifest["counts"]["ensembles"]:
        raise BadInput(f"no molecule has a conformer: {manifest['failures']}; see {FAILURES}")
    return manifest


def read_smiles(source: Path, *, column: str = "smiles") -> list[str]:
    """Read the SMILES of a list.

    Parameters
    ----------
    source : Path
        See `build_ensembles`.
    column : str

    Raises
    ------
    BadInput
        Missing, truncated or empty file, no such column, another suffix.
    """
    kinds = [suffix for suffix in source.suffixes if suffix != ".gz"]
    if kinds[-1:] not in ([".smi"], [".txt"], [".csv"]):
        raise BadInput(f"expected *.smi, *.txt or *.csv (or with .gz), got {source.name}")
    try:
        with open_text(source) as file:
            if kinds[-1] == ".csv":
                reader = csv.DictReader(file)
                if column not in (reader.fieldnames or []):
                    raise BadInput(
                        f"expected a column {column!r} in {source.name}, got {reader.fieldnames}"
                    )
                found = [(row[column] or "").strip() for row in reader]
            else:
                found = [line.split()[0] for line in file if line.strip()]
    except FileNotFoundError as error:
        raise BadInput(f"expected the file {source}, found none") from error
    except (EOFError, OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"could not read {source}: {error}; copy it again") from error
    if not found:
        raise BadInput(f"expected at least one SMILES in {source}, got none")
    return found


def open_folder(out: Path, *, level: str, seed: int, settings: SearchSettings) -> Path:
    """Make the folder of parts; refuse one that another recipe began."""
    recipe = {"level": level, "seed": seed, "settings": asdict(settings)}
    path = out / RECIPE
    if path.exists():
        earlier = read_json(path, cure=f"delete {out}")
        if earlier != recipe:
            raise BadInput(f"{out} holds ensembles of {earlier}, not of {recipe}; use a new folder")
    parts = out / PARTS
    try:
        parts.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(recipe, indent=2) + "\n")
    except OSError as error:
        raise BadInput(f"could not write {out}: {error}") from error
    return parts


def part_path(parts: Path, chunk: Sequence[str]) -> Path:
    """File of a chunk, named by its molecules."""
    digest = sha256("\n".join(chunk).encode()).hexdigest()
    return parts / f"{digest[:16]}.jsonl.gz"


def build_chunk(
    chunk: Sequence[str], *, parts: Path, level: str, seed: int, settings: SearchSettings
) -> int:
    """Search the molecules of a chunk one by one and write its file; returns their number."""
    lines = []
    find = partial(search, level=level, seed=seed, settings=settings)
    limit = math.ceil(settings.max_seconds) + GRACE
    with Isolated(find, max_seconds=limit, preload=PRELOAD) as isolated:
        for smiles in chunk:
            lines.append(json.dumps(to_row(smiles, isolated(smiles))) + "\n")
    with packed(part_path(parts, chunk)) as file:
        file.writelines(lines)
    return len(chunk)


def to_row(smiles: str, outcome: Found | Failure | Ended) -> dict[str, Any]:
    """Return the JSON object of one molecule."""
    if not isinstance(outcome, Found):
        return {"smiles": smiles, "reason": outcome.reason, "detail": outcome.detail}
    ensemble = outcome.ensemble
    return {
        "smiles": smiles,
        "atomic_numbers": ensemble.atomic_numbers.tolist(),
        "energies_kcal": np.round(ensemble.energies, DECIMALS).tolist(),
        "coords": np.round(ensemble.coords, DECIMALS).tolist(),
        "weights": np.round(ensemble.weights, 6).tolist(),
        "seconds": round(outcome.seconds, 2),
        "dropped": dict(outcome.dropped),
    }


def gather(parts: Sequence[Path], out: Path) -> dict[str, Any]:
    """Write the ensembles and the failures of all parts; counts of both."""
    failures: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    ensembles = conformers = 0
    seconds = 0.0
    listed = StringIO()
    writer = csv.writer(listed, lineterminator="\n")
    writer.writerow(["smiles", "reason", "detail"])
    with packed(out / ENSEMBLES) as file:
        for path in parts:
            for row in read_part(path):
                if "reason" in row:
                    failures[row["reason"]] += 1
                    writer.writerow([row["smiles"], row["reason"], row["detail"]])
                    continue
                ensembles += 1
                conformers += len(row["coords"])
                seconds += row["seconds"]
                dropped.update(row.pop("dropped"))
                file.write(json.dumps(row) + "\n")
    write_atomically(out / FAILURES, listed.getvalue())
    return {
        "counts": {"ensembles": ensembles, "conformers": conformers, "failures": failures.total()},
        "failures": dict(sorted(failures.items())),
        "dropped_conformers": dict(sorted(dropped.items())),
        "seconds": round(seconds, 1),
    }


def read_part(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a finished chunk."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except (OSError, EOFError, ValueError) as error:
        raise BadInput(f"{path} is damaged ({error}); delete it and run again") from error


@contextmanager
def packed(path: Path) -> Iterator[TextIOWrapper]:
    """Open a gzip text file for writing that appears when it is whole."""
    partial_path = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with (
            partial_path.open("wb") as raw,
            gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as binary,
            TextIOWrapper(binary, encoding="utf-8") as file,
        ):
            yield file
        os.replace(partial_path, path)
    except OSError as error:
        raise BadInput(f"could not write {path}: {error}; free some space there") from error
    finally:
        partial_path.unlink(missing_ok=True)


def software(level: str, settings: SearchSettings) -> dict[str, str]:
    """Versions of what the coordinates depend on."""
    names = ["rdkit", *(["tblite"] if level == "xtb" and settings.engine == "tblite" else [])]
    return {name: version(name) for name in names if find_spec(name)}


def summary(manifest: dict[str, Any]) -> str:
    """Say in one line what came out."""
    counts = manifest["counts"]
    reasons = ", ".join(f"{reason} {number}" for reason, number in manifest["failures"].items())
    return (
        f"{manifest['note']}: {counts['conformers']} conformers of {counts['ensembles']} "
        f"molecules; failed {counts['failures']}" + (f" ({reasons})" if reasons else "")
    )
