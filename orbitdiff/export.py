"""Native files: CIF per structure, one parquet table of all samples; rows as csv."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orbitdiff.data.crystals import Crystal, crystal_to_row, rows_to_crystals, to_structure
from orbitdiff.errors import BadInput

__all__ = [
    "SampleRow",
    "read_json",
    "read_samples",
    "write_atomically",
    "write_cifs",
    "write_csv",
    "write_samples",
]

SampleRow = tuple[str, int, Crystal]
"""Id of the reference crystal, number k of the sample, the sample."""


def write_atomically(path: Path, text: str) -> None:
    """Write a text file under another name and rename it."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_csv(
    rows: Sequence[Mapping[str, Any]], path: Path, *, columns: Sequence[str] = ()
) -> None:
    """Write rows as csv, whole or not at all; what a row lacks stays blank.

    Parameters
    ----------
    rows : sequence of mapping
    path : Path
    columns : sequence of str
        Names in their order; by default those of the rows as they first appear.
    """
    names = columns or list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def read_json(path: Path, *, cure: str) -> Any:
    """Read a JSON file; one that is missing or cut is named with what to do.

    Parameters
    ----------
    path : Path
    cure : str
        Such as "run the sample stage again".

    Raises
    ------
    BadInput
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise BadInput(f"expected {path}, which is not there; {cure}") from error
    except ValueError as error:
        raise BadInput(f"{path} is no whole JSON file ({error}); {cure}") from error


def write_cifs(samples: Sequence[SampleRow], folder: Path) -> None:
    """Write `{id}_{k}.cif` for each sample.

    Parameters
    ----------
    samples : sequence of (id, k, Crystal)
    folder : Path
        Created if needed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, k, crystal in samples:
        safe = name.replace("/", "_").replace(os.sep, "_")
        write_atomically(folder / f"{safe}_{k}.cif", to_structure(crystal).to(fmt="cif"))


def write_samples(samples: Sequence[SampleRow], path: Path) -> None:
    """Write samples.parquet: id, k, atom_types, frac, lattice.

    Parameters
    ----------
    samples : sequence of (id, k, Crystal)
    path : Path
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{**crystal_to_row(crystal), "id": name, "k": k} for name, k, crystal in samples]
    partial = path.with_name(f".{path.name}.partial")
    try:
        pq.write_table(pa.Table.from_pylist(rows), partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_samples(path: Path) -> list[SampleRow]:
    """Read what `write_samples` wrote.

    Parameters
    ----------
    path : Path
    """
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except Exception as error:
        raise BadInput(f"expected samples in {path}, could not read it: {error}") from error
    crystals = rows_to_crystals(table)
    numbers = table.column("k").to_pylist()
    return [(crystal.id, k, crystal) for crystal, k in zip(crystals, numbers, strict=True)]
