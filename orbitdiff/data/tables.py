"""Rows (id, CIF text) of a table or a folder of CIF files."""

import csv
import gzip
import sys
import zlib
from io import TextIOWrapper
from pathlib import Path

from orbitdiff.errors import BadInput

__all__ = ["read_cif_folder", "read_cif_rows", "read_cif_table"]

ID_COLUMNS = ("material_id", "id")
CIF_COLUMN = "cif"


def read_cif_rows(source: Path) -> list[tuple[str, str]]:
    """Read a csv, a csv.gz or a folder of CIF files.

    Parameters
    ----------
    source : Path

    Returns
    -------
    list of (id, cif)

    Raises
    ------
    BadInput
        Nothing there, no column `cif`, truncated file, no rows.
    """
    if source.is_dir():
        return read_cif_folder(source)
    if not source.is_file():
        raise BadInput(f"expected a csv, a csv.gz or a folder of CIF files at {source}, found none")
    return read_cif_table(source)


def read_cif_table(path: Path) -> list[tuple[str, str]]:
    """Read (id, cif) of a csv or csv.gz; ids come from `material_id`, `id`, or the row number.

    Parameters
    ----------
    path : Path

    Raises
    ------
    BadInput
        Missing or truncated file, no column `cif`, no rows, no text.
    """
    csv.field_size_limit(sys.maxsize)
    try:
        with open_text(path) as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if CIF_COLUMN not in columns:
                raise BadInput(
                    f"expected a column {CIF_COLUMN!r} in {path}, got {list(columns)[:12]}"
                )
            key = next((name for name in ID_COLUMNS if name in columns), None)
            rows = [
                ((row[key] if key else None) or f"row-{index}", row[CIF_COLUMN] or "")
                for index, row in enumerate(reader, 1)
            ]
    except FileNotFoundError as error:
        raise BadInput(f"expected the file {path}, found none") from error
    except (EOFError, zlib.error) as error:
        raise BadInput(f"{path} is truncated ({error}); copy or download it again") from error
    except (csv.Error, UnicodeDecodeError, gzip.BadGzipFile) as error:
        raise BadInput(f"{path} is no readable csv or csv.gz ({error})") from error
    except OSError as error:
        raise BadInput(f"could not read {path}: {error}") from error
    if not rows:
        raise BadInput(f"expected at least one row in {path}, got an empty data set")
    return rows


def read_cif_folder(folder: Path) -> list[tuple[str, str]]:
    """Read all `*.cif` of a folder, in order of name; the id is the name without suffix.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    BadInput
        No CIF file there.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".cif")
    if not paths:
        raise BadInput(f"expected files *.cif in {folder}, found none")
    return [(path.stem, path.read_text(encoding="utf-8", errors="replace")) for path in paths]


def open_text(path: Path) -> TextIOWrapper:
    """Open a text file, gzip by its first bytes."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if packed:
        return TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8", newline="")
    if path.suffix == ".gz":
        raise BadInput(f"{path} is no gzip file; copy or download it again")
    return path.open(encoding="utf-8", newline="")
