"""Bring the raw files of a data set into `data/raw/{dataset}`, their SHA-256 checked."""

import csv
import io
import json
from collections.abc import Callable, Mapping
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
        `dataset`: a registered one, or a built-in one made by a recipe of `settings.data`.
    inputs : mapping
        Nothing: the source is $ORBITDIFF_DATA or the network.
    outputs : mapping
        `raw`, the folder to write: raw files, or recipe.json for built-in data.
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

    if dataset in RECIPES:
        with fresh_directory(raw) as folder:
            (folder / RECIPE).write_text(json.dumps(RECIPES[dataset](settings), indent=2) + "\n")
        return
    if dataset not in SOURCES:
        known = [*RECIPES, *SOURCES]
        raise BadInput(f"expected a data set among {known}, got {dataset!r}")
    root = data_root()
    with fresh_directory(raw) as folder:
        for source in SOURCES[dataset]:
            (folder / source.name).write_bytes(read_source(source, root))


def molecules_recipe(data: Any) -> dict[str, Any]:
    """The first SMILES of the list that ships with the package, and the list's SHA-256."""
    from hashlib import sha256
    from importlib.resources import files

    text = (files("orbitdiff") / "data" / "resources" / "demo_smiles.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    return {
        "kind": "demo_molecules",
        "smiles": [row["smiles"] for row in rows][: data.demo],
        "sha256": sha256(text.encode()).hexdigest(),
    }


def chains_recipe(data: Any) -> dict[str, Any]:
    """SHA-256 of the protein chains that ship with the package."""
    from hashlib import sha256
    from importlib.resources import files

    content = (files("orbitdiff") / "data" / "resources" / "demo_chains.npz").read_bytes()
    return {"kind": "demo_chains", "sha256": sha256(content).hexdigest()}


def prototypes_recipe(data: Any) -> dict[str, Any]:
    """How the prototypes are built: number, size limit, and the library's SHA-256."""
    from orbitdiff.data.prototypes import library_sha256

    return {
        "kind": "prototypes",
        "count": data.prototypes,
        "max_atoms": data.max_atoms,
        "library_sha256": library_sha256(),
    }


RECIPES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "prototypes": prototypes_recipe,
    "demo_molecules": molecules_recipe,
    "demo_chains": chains_recipe,
}
"""Built-in data sets: section `data` of the preset to what `prepare` builds from."""
