"""Evaluate samples against the test split, or anybody's files against a reference."""

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orbitdiff.data.crystals import Crystal, CrystalDataset, Rejected, parse_crystal
from orbitdiff.data.tables import read_cif_rows
from orbitdiff.errors import BadInput
from orbitdiff.export import read_samples, write_atomically
from orbitdiff.metrics.crystals import (
    Judged,
    Pair,
    Tolerances,
    aggregate,
    chunks,
    judge_chunk,
    metre,
)
from pipelines.stages.base import Executor, Tracker

__all__ = ["evaluate_files", "judge_pairs", "run"]

CHUNK = 16
LARGEST_CELL = 512


def judge_pairs(pairs: Sequence[Pair], executor: Executor) -> list[Judged]:
    """Compare all pairs in parallel."""
    parts = executor.map(judge_chunk, chunks(pairs, CHUNK), description="match structures")
    return [row for part in parts for row in part]


def summarise(pairs: Sequence[Pair], executor: Executor) -> tuple[dict[str, Any], list[Judged]]:
    """Aggregate metrics and per-sample values of pairs."""
    judged = judge_pairs(pairs, executor)
    tolerances = pairs[0].tolerances
    metrics = aggregate(judged, stol=tolerances.stol)
    references = {pair.id: pair.reference for pair in pairs}
    metrics["metre"] = metre(
        [pair.generated for pair in pairs], list(references.values()), tolerances
    )
    metrics["matcher"] = asdict(tolerances)
    metrics["validity_rules"] = (
        "all: every pair counts; valid: SMACT composition, distances > 0.5 angstrom, volume > 0.1"
    )
    return metrics, judged


def write_results(folder: Path, metrics: Mapping[str, Any], judged: Sequence[Judged]) -> None:
    """Write metrics.json and per_sample.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Judged.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in judged)
    write_atomically(folder / "per_sample.csv", text.getvalue())
    content = json.dumps(metrics, indent=2, sort_keys=True, allow_nan=False) + "\n"
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
    pairs = [Pair(name, k, crystal, references[name], tolerances) for name, k, crystal in samples]
    metrics, judged = summarise(pairs, executor)
    about = json.loads((inputs["samples"] / "sampling.json").read_text())
    metrics["sampler"] = {name: about[name] for name in ("sampler", "steps", "calls", "seconds")}
    manifest = json.loads((inputs["data"] / "manifest.json").read_text())
    metrics["note"] = manifest.get("note", "")
    metrics["num_test"] = len(test)
    metrics["run"] = {
        "dataset": params.dataset,
        "estimator": params.estimator,
        "preset": params.preset,
        "seed": params.seed,
    }
    folder = outputs["results"]
    write_results(folder, metrics, judged)
    shutil.copy(inputs["model"] / "history.jsonl", folder / "history.jsonl")
    with tracker.run(
        f"evaluate {params.run_name}", experiment=params.task, params=params.flat(), tags={}
    ) as tracked:
        tracked.metrics({k: v for k, v in metrics.items() if isinstance(v, int | float)})
        tracked.artifact(folder)


def evaluate_files(
    generated: Path, reference: Path, *, executor: Executor, out: Path | None = None
) -> dict[str, Any]:
    """Evaluate a folder of CIF files, or a csv with a `cif` column, against a reference.

    Files pair with references by id: `NAME.cif` or `NAME_k.cif` answers to the reference NAME
    (csv: the id column).

    Parameters
    ----------
    generated, reference : Path
    executor : Executor
    out : Path, optional
        Folder for metrics.json and per_sample.csv.

    Raises
    ------
    BadInput
        Missing or unreadable files, no pair.
    """
    truth = _accepted(reference)
    pairs, unpaired = [], 0
    counts: dict[str, int] = {}
    for name, crystal in _read(generated):
        base = name if name in truth else name.rpartition("_")[0]
        if base not in truth:
            unpaired += 1
            continue
        counts[base] = counts.get(base, -1) + 1
        pairs.append(Pair(base, counts[base], crystal, truth[base], Tolerances()))
    if not pairs:
        raise BadInput(
            f"no generated structure of {generated} has the id of a reference in {reference}; "
            "name files ID.cif or ID_k.cif, or give the csv a material_id column"
        )
    metrics, judged = summarise(pairs, executor)
    metrics["unpaired"] = unpaired
    metrics["references_without_sample"] = len(truth) - len(counts)
    if out is not None:
        write_results(out, metrics, judged)
    return metrics


def _read(source: Path) -> list[tuple[str, Crystal]]:
    found = []
    for name, cif in read_cif_rows(source):
        crystal = parse_crystal(name, cif, max_atoms=LARGEST_CELL)
        if isinstance(crystal, Rejected):
            print(f"left out {name}: {crystal.reason} ({crystal.detail})")
        else:
            found.append((name, crystal))
    return found


def _accepted(source: Path) -> dict[str, Crystal]:
    return dict(_read(source))
