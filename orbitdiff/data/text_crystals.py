"""Crystals with prompts: what `texts` writes beside the prepared crystals, and reads back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from orbitdiff.data.crystals import CrystalDataset, crystal_schema, rows_to_crystals
from orbitdiff.data.prompts import KINDS, PromptFields, field_columns, fields_to_row, rows_to_fields
from orbitdiff.data.text_vectors import CURE, read_text_vectors, vectors_folder
from orbitdiff.errors import BadInput
from orbitdiff.typing import Tensor

__all__ = [
    "NONE",
    "Prompt",
    "PromptRows",
    "load_text_crystals",
    "read_about",
    "read_prompts",
    "shuffled_texts",
    "write_prompts",
]

NONE = "none"
"""Kind of prompt of a network that reads no text."""

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Prompt:
    """The prompt of one crystal.

    Parameters
    ----------
    id : str
    text : str
    fallback : str
        Why a long prompt is the short one instead; empty where it is what was asked for.
    """

    id: str
    text: str
    fallback: str = ""


@dataclass(frozen=True)
class PromptRows:
    """Fields of the crystals of one split, and their prompts by kind.

    Parameters
    ----------
    fields : list of PromptFields
    prompts : dict
        Kind to prompts, in the order of the fields.
    """

    fields: list[PromptFields]
    prompts: dict[str, list[Prompt]]


def prompt_schema() -> Any:
    """Arrow schema of prompts: id, fields, one text and one fallback reason per kind."""
    import pyarrow as pa

    from orbitdiff.data.store import row_schema

    texts = {f"{part}_{kind}": pa.string() for kind in KINDS for part in ("text", "fallback")}
    return row_schema("prompts", SCHEMA_VERSION, {"id": pa.string(), **field_columns(), **texts})


def write_prompts(rows: PromptRows, folder: Path, split: str) -> None:
    """Write `prompts-{split}-00000.parquet`, ...; kinds that were not built are null.

    Parameters
    ----------
    rows : PromptRows
    folder : Path
    split : str
    """
    from orbitdiff.data.store import write_shards

    def one(index: int) -> dict[str, Any]:
        built = {kind: rows.prompts[kind][index] for kind in rows.prompts}
        texts = {f"text_{kind}": found.text for kind, found in built.items()}
        fallbacks = {f"fallback_{kind}": found.fallback for kind, found in built.items()}
        return {**fields_to_row(rows.fields[index]), **texts, **fallbacks}

    write_shards(
        map(one, range(len(rows.fields))), folder, schema=prompt_schema(), name=f"prompts-{split}"
    )


def read_prompts(folder: Path, split: str) -> PromptRows:
    """Read what `write_prompts` wrote.

    Parameters
    ----------
    folder : Path
    split : str

    Raises
    ------
    BadInput
        No prompts in the folder, or files of another kind.
    """
    from orbitdiff.data.store import read_shards

    paths = sorted(folder.glob(f"prompts-{split}-*.parquet"))
    if not paths:
        raise BadInput(f"expected prompts of split {split} in {folder}, found none; {CURE}")
    table = read_shards(paths, schema=prompt_schema())
    fields = rows_to_fields(table)
    prompts = {}
    for kind in KINDS:
        texts = table.column(f"text_{kind}").to_pylist()
        reasons = table.column(f"fallback_{kind}").to_pylist()
        if None not in texts:
            prompts[kind] = [
                Prompt(of.id, text, reason)
                for of, text, reason in zip(fields, texts, reasons, strict=True)
            ]
    return PromptRows(fields, prompts)


def load_text_crystals(folder: Path, split: str, kind: str) -> CrystalDataset:
    """Read the crystals of a split with the vectors of their prompts.

    Parameters
    ----------
    folder : Path
        Written by the stage `texts`, its vectors beside it.
    split : str
        train, val or test.
    kind : str
        A kind of prompt, or none.

    Returns
    -------
    CrystalDataset
        Conditions `text` (M, E) and `has_text` (M,); no conditions for none.

    Raises
    ------
    BadInput
        A kind that the folder does not have, damaged or foreign files, vectors of other texts.
    """
    from orbitdiff.data.store import read_split

    table = read_split(folder, split, schema=crystal_schema(), task="text_crystals")
    crystals = rows_to_crystals(table)
    if kind == NONE:
        return CrystalDataset(crystals)
    prompts = read_prompts(folder, split).prompts
    if kind not in prompts:
        raise BadInput(
            f"expected prompts of kind {kind!r} in {folder}, got {sorted(prompts)}; add it to the "
            f"preset's prompts.kinds and {CURE}"
        )
    texts = [one.text for one in prompts[kind]]
    vectors = read_text_vectors(
        texts, vectors_folder(folder), f"{kind}-{split}",
        fingerprint=str(read_about(folder).get("fingerprint")),
    )  # fmt: skip
    has_text = torch.ones(len(vectors), dtype=torch.bool)
    return CrystalDataset(crystals, conditions={"text": vectors, "has_text": has_text})


def shuffled_texts(dataset: CrystalDataset, rows: Sequence[int]) -> CrystalDataset:
    """Give each of some crystals the text of the next one, the last that of the first.

    Parameters
    ----------
    dataset : CrystalDataset
        With texts.
    rows : sequence of int
        At least two crystals; the order decides which text each gets.

    Raises
    ------
    BadInput
        Fewer than two rows.
    """
    if len(rows) < 2:
        raise BadInput(f"expected at least two crystals to shuffle, got {len(rows)}")
    text = dataset.conditions["text"].clone()
    place = torch.as_tensor(rows)
    text[place] = dataset.conditions["text"][place.roll(-1)]
    conditions: Mapping[str, Tensor] = {**dataset.conditions, "text": text}
    return CrystalDataset(dataset.crystals, conditions=conditions)


def read_about(folder: Path) -> dict[str, Any]:
    """Return what the manifest says of prompts: encoder, kinds, seed, counts.

    Raises
    ------
    BadInput
        No manifest, or one without prompts.
    """
    path = folder / "manifest.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text())["prompts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path} is no manifest of crystals with texts ({error!r}); {CURE}"
        ) from error
    return found
