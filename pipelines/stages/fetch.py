"""Bring the raw files of a data set into `data/raw/{dataset}`, their SHA-256 checked."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orbitdiff.errors import BadInput
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.provenance import recorded

__all__ = ["RECIPE", "run"]

RECIPE = "recipe.json"


def run(
    params: Any,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    executor: Executor,
    tracker: Tracker,
) -> None:
    """Copy or download the raw files of `params.dataset`; no machine path is written.

    Parameters
    ----------
    params : RunParams
        `dataset`: perov_5, mp_20 or prototypes; `settings.data` for prototypes.
    inputs : mapping
        Nothing: the source is $ORBITDIFF_DATA or the network.
    outputs : mapping
        `raw`, the folder to write: csv files, or recipe.json for prototypes.
    executor : Executor
        Not used.
    tracker : Tracker
        Gets the size of each file.

    Raises
    ------
    BadInput
        Unknown data set, offline without $ORBITDIFF_DATA, damaged file, full disk.
    """
    write_raw(params.dataset, params.settings.data, outputs["raw"])
    with recorded(tracker, params, "fetch", name=params.dataset) as tracked:
        sizes = {path.name: path.stat().st_size for path in outputs["raw"].iterdir()}
        tracked.metrics({f"bytes.{name}": size for name, size in sizes.items()})


def write_raw(dataset: str, settings: Any, raw: Path) -> None:
    """Write the folder of raw files, whole or not at all."""
    from orbitdiff.data.sources import SOURCES, data_root, read_source
    from orbitdiff.data.store import fresh_directory

    if dataset == "prototypes":
        with fresh_directory(raw) as folder:
            (folder / RECIPE).write_text(json.dumps(recipe(settings), indent=2) + "\n")
        return
    if dataset not in SOURCES:
        known = ["prototypes", *SOURCES]
        raise BadInput(f"expected a data set among {known}, got {dataset!r}")
    root = data_root()
    with fresh_directory(raw) as folder:
        for source in SOURCES[dataset]:
            (folder / source.name).write_bytes(read_source(source, root))


def recipe(data: Any) -> dict[str, Any]:
    """How the prototypes are built: number, size limit, and the library's SHA-256."""
    from orbitdiff.data.prototypes import library_sha256

    return {
        "kind": "prototypes",
        "count": data.prototypes,
        "max_atoms": data.max_atoms,
        "library_sha256": library_sha256(),
    }
