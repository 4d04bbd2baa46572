"""Evaluate the chains that one run has drawn."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orbitdiff.data.protein_files import read_trace
from orbitdiff.data.proteins import Backbone, ProteinDataset
from orbitdiff.errors import BadInput
from orbitdiff.export import read_json
from pipelines.stages.backbones.measure import folder_at_hand, measure, write_results
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.provenance import recorded

__all__ = ["read_pdbs", "run"]


def read_pdbs(folder: Path) -> list[Backbone]:
    """Read what the sample stage wrote, as it stands.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    BadInput
        No PDB file, or one that cannot be read.
    """
    paths = sorted(folder.glob("*.pdb"))
    if not paths:
        raise BadInput(f"expected PDB files in {folder}, found none; run the sample stage again")
    chains = []
    for path in paths:
        ca = read_trace(path)
        chains.append(Backbone(path.stem, ca - ca.mean(0), "G" * len(ca), path.stem, path.stem))
    return chains


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
        `results`: metrics.json, per_sample.csv (a row per chain), history.jsonl.
    executor : Executor
    tracker : Tracker
    """
    about = read_json(inputs["samples"] / "sampling.json", cure="run the sample stage again")
    chains = read_pdbs(inputs["samples"] / "pdb")
    training = ProteinDataset.load(inputs["data"], "train").backbones
    metrics, rows = measure(
        chains, training, params.settings.evaluate, executor=executor, folder=folder_at_hand()
    )
    manifest = read_json(inputs["data"] / "manifest.json", cure="run the prepare stage again")
    metrics["note"] = manifest.get("note", "")
    metrics["sampler"] = {**about["sampler"], "seconds": about["seconds"]}
    metrics["lengths"] = about["lengths"]
    metrics["num_not_finite"] = about["num_not_finite"]
    metrics["run"] = {
        "dataset": params.dataset,
        "estimator": params.estimator,
        "preset": params.preset,
        "seed": params.seed,
    }
    folder = outputs["results"]
    write_results(folder, metrics, rows)
    shutil.copy(inputs["model"] / "history.jsonl", folder / "history.jsonl")
    with recorded(tracker, params, "evaluate", data=inputs["data"]) as tracked:
        tracked.metrics({k: v for k, v in metrics.items() if isinstance(v, int | float)})
        tracked.artifact(folder)
