"""Text prompts of crystals: the short one of TGDMat, and the same without structural fields."""

import csv
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from orbitdiff.data.cif import Crystal, require_pymatgen, to_structure
from orbitdiff.data.tables import ID_COLUMNS, open_text
from orbitdiff.errors import BadInput
from orbitdiff.seeding import stream

__all__ = [
    "KINDS",
    "PromptFields",
    "canonical_text",
    "field_columns",
    "fields_to_row",
    "framed",
    "prompt",
    "prompt_fields",
    "read_properties",
    "rows_to_fields",
]

KINDS = ("short", "composition", "long")
"""short: all fields; composition: no structural field; long: Robocrystallographer's text."""

START = "Below is a description of a bulk material. "
END = "Generate the material:"

PROPERTIES = {
    "formation_energy_per_atom": "formation energy per atom",
    "energy_per_atom": "energy per atom",
    "band_gap": "band gap",
    "e_above_hull": "energy above the convex hull",
}
"""Numbers that a prompt may state (eV or eV per atom) and their wording."""

COLUMNS = {"heat_ref": "formation_energy_per_atom", **{name: name for name in PROPERTIES}}
"""Columns of raw tables that hold them; Perov-5 calls the formation energy `heat_ref`."""

STRUCTURAL = ("spacegroup number", "crystal system")
"""Fields that tell the symmetry of the answer."""

DECIMALS = 4

NUMPY_INTEGER = r"np\.int64\((-?\d+)\)"
SHARING = r"(?:corner|edge|face)"
LISTS = (
    (rf"{SHARING}(?:(?:, and |, | and ){SHARING})+(?=-sharing)", SHARING),
    (r"(?<= oriented in the )\([^.]*?(?= directions)", r"\([^()]*\)"),
)
"""Lists that robocrys writes in the order of a Python set of strings, and their items."""


@dataclass(frozen=True)
class PromptFields:
    """What a short prompt says of one crystal.

    Parameters
    ----------
    id : str
    formula : str
        Reduced.
    elements : tuple of str
        Symbols, the least electronegative first, as in the formula.
    spacegroup : int
        Number 1 to 230.
    crystal_system : str
    properties : dict
        Keys of `PROPERTIES` that are known, in eV or eV per atom.
    """

    id: str
    formula: str
    elements: tuple[str, ...]
    spacegroup: int
    crystal_system: str
    properties: Mapping[str, float]


def prompt_fields(crystal: Crystal, properties: Mapping[str, float]) -> PromptFields:
    """Find the fields of a crystal; `prepare` does it once, prompts are then only text.

    Parameters
    ----------
    crystal : Crystal
    properties : mapping
        Keys of `PROPERTIES`; values that are not finite are left out.

    Returns
    -------
    PromptFields
        Space group and system by pymatgen's SpacegroupAnalyzer at its default tolerance.

    Raises
    ------
    BadInput
        A property of another name, or no space group is found.
    """
    require_pymatgen()
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer, SymmetryUndeterminedError

    unknown = sorted(set(properties) - set(PROPERTIES))
    if unknown:
        raise BadInput(f"expected properties among {list(PROPERTIES)}, got {unknown}")
    structure = to_structure(crystal)
    try:
        symmetry = SpacegroupAnalyzer(structure)
        number, system = symmetry.get_space_group_number(), symmetry.get_crystal_system()
    except (SymmetryUndeterminedError, ValueError, TypeError) as error:
        raise BadInput(f"crystal {crystal.id}: no space group found ({error})") from error
    return PromptFields(
        crystal.id,
        structure.composition.reduced_formula,
        tuple(element.symbol for element in sorted(structure.composition.elements)),
        int(number),
        str(system),
        {name: float(value) for name, value in properties.items() if math.isfinite(value)},
    )


def prompt(fields: PromptFields, kind: str, *, seed: int) -> str:
    """Write the prompt of one crystal, its sentences in an order drawn for (seed, id).

    Parameters
    ----------
    fields : PromptFields
    kind : str
        `short`; or `composition`, which is the short one without space group and crystal system.
    seed : int

    Returns
    -------
    str
        `Below is a description of a bulk material. The ... is .... Generate the material:`

    Raises
    ------
    BadInput
        Another kind.

    Notes
    -----
    Source: TGDMat (Das et al., ICLR 2025), its public code at commit 983a04a1, where the order is
    drawn anew for each crystal from one unseeded stream.
    """
    if kind not in ("short", "composition"):
        raise BadInput(f"expected a kind of prompt among ['short', 'composition'], got {kind!r}")
    stated = {
        "chemical formula": fields.formula,
        "spacegroup number": str(fields.spacegroup),
        "crystal system": fields.crystal_system,
        **{PROPERTIES[name]: rounded(value) for name, value in fields.properties.items()},
    }
    sentences = [(name, f"The {name} is {value}. ") for name, value in stated.items()]
    sentences.append(("elements", f"The elements are {', '.join(fields.elements)}. "))
    order = torch.randperm(len(sentences), generator=stream(seed, "prompt", fields.id)).tolist()
    hidden = STRUCTURAL if kind == "composition" else ()
    text = [sentences[place][1] for place in order if sentences[place][0] not in hidden]
    return START + "".join(text) + END


def framed(sentences: str) -> str:
    """Put a user's own sentences between the first and the last one of every short prompt.

    Parameters
    ----------
    sentences : str
        A text that already starts as a short prompt comes back as it is.
    """
    text = sentences.strip()
    if not text or text.startswith(START.strip()):
        return text
    return START + (text if text.endswith(".") else f"{text}.") + " " + END


def rounded(value: float) -> str:
    """Return a number at four decimals, without trailing zeros and without a negative zero."""
    return str(round(value, DECIMALS) + 0.0)


def canonical_text(text: str) -> str:
    """Take out of a Robocrystallographer text what is chance or an accident of printing.

    robocrys joins sets of strings (`corner, edge, and face-sharing`, directions of layers): their
    order changes from one process to the next, and would tell splits apart that were described in
    different ones. Under numpy 2 it writes directions as `(np.int64(0), np.int64(0), np.int64(1))`.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
        The same text with these lists in alphabetical order and directions as `(0, 0, 1)`.
    """

    def in_order(found: re.Match[str], item: str) -> str:
        items = iter(sorted(re.findall(item, found.group())))
        return re.sub(item, lambda _: next(items), found.group())

    text = re.sub(NUMPY_INTEGER, r"\1", text)
    for whole, item in LISTS:
        text = re.sub(whole, partial(in_order, item=item), text)
    return text


def read_properties(path: Path) -> dict[str, dict[str, float]]:
    """Read the properties of a raw csv or csv.gz by id; empty or unreadable ones are left out.

    Parameters
    ----------
    path : Path
        A table that `read_cif_table` reads; ids as there.

    Returns
    -------
    dict
        Id to known properties, for `prompt_fields`.

    Raises
    ------
    BadInput
        Missing or truncated file.
    """
    csv.field_size_limit(sys.maxsize)
    found: dict[str, dict[str, float]] = {}
    try:
        with open_text(path) as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            key = next((name for name in ID_COLUMNS if name in columns), None)
            for index, row in enumerate(reader, 1):
                id = (row[key] if key else None) or f"row-{index}"
                known = ((COLUMNS[name], number(row[name])) for name in COLUMNS if name in columns)
                found[id] = {name: value for name, value in known if value is not None}
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"could not read {path}: {error}; copy or download it again") from error
    return found


def number(text: str | None) -> float | None:
    """Return a finite number, or None."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def field_columns() -> dict[str, Any]:
    """Arrow columns that hold the fields beside those of a crystal."""
    import pyarrow as pa

    return {
        "formula": pa.string(),
        "elements": pa.list_(pa.string()),
        "spacegroup": pa.int16(),
        "crystal_system": pa.string(),
        **{name: pa.float64() for name in PROPERTIES},
    }


def fields_to_row(fields: PromptFields) -> dict[str, Any]:
    """Return the parquet columns of the fields, unknown properties as null."""
    return {
        "id": fields.id,
        "formula": fields.formula,
        "elements": list(fields.elements),
        "spacegroup": fields.spacegroup,
        "crystal_system": fields.crystal_system,
        **{name: fields.properties.get(name) for name in PROPERTIES},
    }


def rows_to_fields(table: Any) -> list[PromptFields]:
    """Return the fields of an arrow table with `id` and `field_columns`."""
    return [
        PromptFields(
            row["id"],
            row["formula"],
            tuple(row["elements"]),
            row["spacegroup"],
            row["crystal_system"],
            {name: row[name] for name in PROPERTIES if row[name] is not None},
        )
        for row in table.select(["id", *field_columns()]).to_pylist()
    ]
