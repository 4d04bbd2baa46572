"""Evaluate samples against the test split, or anybody's files against a reference."""

import json
import shutil
import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from orbitdiff.data.crystals import Crystal, CrystalDataset, Rejected, parse_crystal
from orbitdiff.data.tables import read_cif_rows
from orbitdiff.errors import BadInput
from orbitdiff.export import read_json, read_samples, write_atomically, write_csv
from orbitdiff.metrics.base import MetricResult
from orbitdiff.metrics.crystals import Judged, Pair, Tolerances, compare_crystals
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.provenance import recorded

__all__ = ["evaluate_files", "run", "write_results"]

LARGEST_CELL = 512
LISTED = 5


def write_results(folder: Path, result: MetricResult[Judged]) -> None:
    """Write metrics.json and per_sample.csv, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(result.summary, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_csv(result.rows(), folder / "per_sample.csv", columns=list(Judged.__dataclass_fields__))
    write_atomically(folder / "metrics.json", content)


def run(
    params: Any,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    executor: Executor,
    tracker: Tracker,
) -> None:
    """Evaluate the samples of one run.

    Parameters
    ----------
    params : RunParams
    inputs : mapping
        `samples`, `data` and `model` folders.
    outputs : mapping
        `results`: metrics.json, per_sample.csv, history.jsonl.
    executor : Executor
    tracker : Tracker
    """
    tolerances = Tolerances(**asdict(params.settings.evaluate))
    test = CrystalDataset.load(inputs["data"], "test")
    references = dict(zip(test.ids, test.crystals, strict=True))
    samples = read_samples(inputs["samples"] / "samples.parquet")
    if not samples:
        raise BadInput(f"{inputs['samples']} holds no sample; run the sample stage again")
    strangers = sorted({name for name, _, _ in samples} - set(references))
    if strangers:
        raise BadInput(
            f"expected samples of test crystals of {inputs['data']}, got the ids "
            f"{strangers[:LISTED]}; run the sample stage again after prepare"
        )
    pairs = [Pair(name, k, crystal, references[name], tolerances) for name, k, crystal in samples]
    result = compare_crystals(pairs, parallel=executor.map)
    metrics = result.summary
    about = read_json(inputs["samples"] / "sampling.json", cure="run the sample stage again")
    metrics["sampler"] = {name: about[name] for name in ("sampler", "steps", "calls", "seconds")}
    manifest = read_json(inputs["data"] / "manifest.json", cure="run the prepare stage again")
    metrics["note"] = manifest.get("note", "")
    metrics["num_test"] = len(test)
    metrics["run"] = {
        "dataset": params.dataset,
        "estimator": params.estimator,
        "preset": params.preset,
        "seed": params.seed,
    }
    folder = outputs["results"]
    write_results(folder, result)
    shutil.copy(inputs["model"] / "history.jsonl", folder / "history.jsonl")
    with recorded(tracker, params, "evaluate", data=inputs["data"]) as tracked:
        tracked.metrics({k: v for k, v in metrics.items() if isinstance(v, int | float)})
        tracked.artifact(folder)


def evaluate_files(
    generated: Path,
    reference: Path,
    *,
    executor: Executor,
    out: Path | None = None,
    tolerances: Tolerances | None = None,
) -> dict[str, Any]:
    """Evaluate a folder of CIF files, or a csv with a `cif` column, against a reference.

    A generated structure answers to the reference with its id: the column `material_id` or `id`
    of a csv (its row number where there is none), the name of a CIF file. `ID_0`, `ID_1`, ...
    and equal ids are several samples of one reference. A structure that cannot be read counts
    as a miss. References without any sample are counted, and left out of the rates.

    Parameters
    ----------
    generated, reference : Path
    executor : Executor
    out : Path, optional
        Folder for metrics.json and per_sample.csv.
    tolerances : Tolerances, optional
        Default: the published ones.

    Returns
    -------
    dict
        Figures over the set, JSON types.

    Raises
    ------
    BadInput
        Missing or unreadable files, an id twice among the references, no pair.
    """
    truth = _references(reference)
    chosen = tolerances or Tolerances()
    pairs, unreadable, unpaired = [], [], []
    counts: dict[str, int] = defaultdict(int)
    for name, cif in read_cif_rows(generated):
        stem, _, number = name.rpartition("_")
        base = stem if name not in truth and number.isdigit() else name
        if base not in truth:
            unpaired.append(name)
            continue
        k = counts[base]
        counts[base] += 1
        crystal = _parse_generated(name, cif)
        if isinstance(crystal, Rejected):
            failure = f"{crystal.reason}: {crystal.detail}"
            unreadable.append(Judged(base, k, None, False, False, failure))
        else:
            pairs.append(Pair(base, k, crystal, truth[base], chosen))
    if not pairs:
        raise BadInput(
            f"no readable structure of {generated} has the id of a reference in {reference} "
            f"({len(unpaired)} without a reference such as {unpaired[:LISTED]}, {len(unreadable)} "
            "unreadable); name files ID.cif or ID_k.cif, or give the csv a material_id column"
        )
    result = compare_crystals(pairs, unreadable=unreadable, parallel=executor.map)
    result.summary["unreadable"] = len(unreadable)
    result.summary["unpaired"] = len(unpaired)
    result.summary["references_without_sample"] = len(truth) - len(counts)
    if out is not None:
        write_results(out, result)
    return result.summary


def _references(source: Path) -> dict[str, Crystal]:
    found: dict[str, Crystal] = {}
    for name, cif in read_cif_rows(source):
        if name in found:
            raise BadInput(f"expected each id once in {source}, got {name!r} twice")
        crystal = parse_crystal(name, cif, max_atoms=LARGEST_CELL)
        if isinstance(crystal, Rejected):
            print(f"left out reference {name}: {crystal.reason} ({crystal.detail})")
        else:
            found[name] = crystal
    if not found:
        raise BadInput(f"no structure of {source} is usable as a reference")
    return found


def _parse_generated(name: str, cif: str) -> Crystal | Rejected:
    """Parse without refusing overlapping atoms: rule `all` compares them, rule `valid` not."""
    found = parse_crystal(name, cif, max_atoms=LARGEST_CELL)
    if isinstance(found, Crystal) or found.reason != "overlapping atoms":
        return found
    from pymatgen.core import Structure

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structure = Structure.from_str(cif, fmt="cif")
        types = np.array([site.specie.Z for site in structure], dtype=np.int64)
    except Exception:
        return found
    frac = np.array(structure.frac_coords, dtype=np.float64) % 1.0
    return Crystal(name, types, frac, np.array(structure.lattice.matrix, dtype=np.float64))
