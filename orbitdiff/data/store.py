"""Rows at rest: parquet shards with a schema version, written all at once or not at all."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from orbitdiff.data.splits import SPLITS
from orbitdiff.errors import BadInput, MissingExtra

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtra.naming("pyarrow", "data") from error

__all__ = [
    "file_sha256",
    "fresh_directory",
    "read_shard",
    "read_shards",
    "read_split",
    "row_schema",
    "write_shards",
]


NAME_KEY = b"orbitdiff.schema"
VERSION_KEY = b"orbitdiff.schema_version"


def row_schema(name: str, version: int, fields: dict[str, pa.DataType]) -> pa.Schema:
    """Columns of one kind of row, with its name and version in the metadata.

    Parameters
    ----------
    name : str
        Kind of row, such as `crystals`.
    version : int
        Raised when the meaning of a column changes.
    fields : dict
        Column names and arrow types.
    """
    metadata = {NAME_KEY: name.encode(), VERSION_KEY: str(version).encode()}
    return pa.schema([pa.field(key, kind) for key, kind in fields.items()], metadata=metadata)


def write_shards(
    rows: Iterable[dict[str, Any]],
    directory: Path,
    *,
    schema: pa.Schema,
    name: str,
    rows_per_shard: int = 4096,
) -> list[Path]:
    """Write rows to `{name}-00000.parquet`, `{name}-00001.parquet`, ...

    Parameters
    ----------
    rows : iterable of dict
        One value per column; no rows give one empty shard.
    directory : Path
        An existing folder.
    schema : pyarrow.Schema
        From `row_schema`.
    name : str
        Stem of the files, usually the split.
    rows_per_shard : int
        Bound on the rows (and the memory) of one file.

    Returns
    -------
    list of Path
        The files, in order.

    Raises
    ------
    BadInput
        The disk is full or the folder cannot be written; no half-written shard stays.
    """
    if NAME_KEY not in (schema.metadata or {}):
        raise BadInput("expected a schema made by row_schema, got one without name and version")
    stream = iter(rows)
    paths: list[Path] = []
    while True:
        chunk = list(islice(stream, rows_per_shard))
        if not chunk and paths:
            return paths
        path = directory / f"{name}-{len(paths):05d}.parquet"
        partial = path.with_name(f".{path.name}.partial")
        try:
            pq.write_table(pa.Table.from_pylist(chunk, schema=schema), partial)
            os.replace(partial, path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise BadInput(f"could not write {path}: {error}; free some space there") from error
        paths.append(path)


def read_shards(paths: Sequence[Path], *, schema: pa.Schema | None = None) -> pa.Table:
    """Read shards in the given order into one table.

    Parameters
    ----------
    paths : sequence of Path
        Files written by `write_shards`.
    schema : pyarrow.Schema, optional
        The kind and version that the caller understands.

    Raises
    ------
    BadInput
        No file, a missing or truncated file, another kind or version of rows.
    """
    if not paths:
        raise BadInput("expected at least one parquet shard, got none; run prepare again")
    tables = [read_shard(Path(path), schema) for path in paths]
    try:
        return pa.concat_tables(tables)
    except pa.ArrowInvalid as error:
        raise BadInput(f"expected shards of one schema, got {error}; run prepare again") from error


def read_split(directory: Path, split: str, *, schema: pa.Schema, task: str) -> pa.Table:
    """Read one split of a folder written by `prepare`, its size held against the manifest.

    Parameters
    ----------
    directory : Path
    split : str
        train, val or test.
    schema : pyarrow.Schema
    task : str
        For the advice in errors.

    Raises
    ------
    BadInput
        Unknown split, folder not prepared, truncated or foreign files, empty split.
    """
    if split not in SPLITS:
        raise BadInput(f"expected a split among {SPLITS}, got {split!r}")
    manifest = directory / "manifest.json"
    if not manifest.is_file():
        raise BadInput(f"expected {manifest}, found none; run `orbitdiff prepare {task}`")
    try:
        expected = int(json.loads(manifest.read_text())["counts"][split])
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{manifest} is no manifest of {task} ({error!r})") from error
    table = read_shards(sorted(directory.glob(f"{split}-*.parquet")), schema=schema)
    if len(table) != expected:
        raise BadInput(
            f"expected {expected} {task} of split {split} in {directory} by its manifest, "
            f"got {len(table)}; run prepare again"
        )
    if not len(table):
        raise BadInput(f"split {split} of {directory} is empty; see its rejected.csv")
    return table


def read_shard(path: Path, schema: pa.Schema | None) -> pa.Table:
    """Read one file and check its name and version."""
    if not path.is_file():
        raise BadInput(f"expected the parquet file {path}, found none; run prepare")
    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path} is truncated or no parquet ({error}); run prepare again") from error
    found = table.schema.metadata or {}
    if NAME_KEY not in found or VERSION_KEY not in found:
        raise BadInput(f"{path} was not written by orbitdiff: it has no schema version")
    if schema is None:
        return table
    wanted = schema.metadata
    if any(found[key] != wanted[key] for key in (NAME_KEY, VERSION_KEY)):
        raise BadInput(
            f"expected rows {wanted[NAME_KEY].decode()} version {wanted[VERSION_KEY].decode()}, "
            f"{path} has {found[NAME_KEY].decode()} version {found[VERSION_KEY].decode()}; "
            "run prepare again with this release"
        )
    return table.select(schema.names).cast(schema)


@contextmanager
def fresh_directory(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` that takes its place when the block succeeds.

    Any error leaves an earlier `target` as it was and removes the new folder.

    Parameters
    ----------
    target : Path
        The folder to make or to replace.

    Raises
    ------
    BadInput
        The disk is full or the folder cannot be written.
    """
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    earlier = target.with_name(f".{target.name}.earlier-{os.getpid()}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if target.exists():
            os.replace(target, earlier)
        try:
            os.replace(partial, target)
        except OSError:
            if earlier.exists():
                os.replace(earlier, target)
            raise
    except OSError as error:
        raise BadInput(
            f"could not write {target}: {error}; earlier outputs are intact, "
            "free some space or choose another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(earlier, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
