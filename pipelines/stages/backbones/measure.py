"""Everything that is measured on a set of chains, generated or natural, with what could not be."""

import json
import os
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orbitdiff.data.protein_chain import Backbone
from orbitdiff.errors import MissingExtra
from orbitdiff.export import write_atomically, write_csv
from orbitdiff.metrics.backbones import dihedral_divergence, judge_backbones
from orbitdiff.metrics.designability import DesignSettings, designability
from orbitdiff.metrics.folding import CommandFolder, EsmFold, Folder
from orbitdiff.metrics.tm_scores import diversity, novelty
from pipelines.stages.base import Executor

__all__ = ["NO_FOLDER", "folder_at_hand", "measure", "spread_over", "write_results"]

ESMFOLD, COMMAND = "ORBITDIFF_ESMFOLD", "ORBITDIFF_FOLD_COMMAND"
NO_FOLDER = (
    f"not measured: no structure prediction at hand; set {ESMFOLD} to a folder with the weights of "
    f"ESMFold, or {COMMAND} to a command with {{fasta}} and {{out}}"
)
SHORTEST = 4
"""Residues that a dihedral needs."""


def folder_at_hand() -> Folder | None:
    """Structure prediction that the environment names, None without.

    Raises
    ------
    BadInput
        The folder holds no ESMFold, or the command has no place for its files.
    """
    weights, command = os.environ.get(ESMFOLD), os.environ.get(COMMAND)
    if weights:
        return EsmFold(weights, device="cuda" if torch.cuda.is_available() else "cpu")
    return CommandFolder(shlex.split(command)) if command else None


def spread_over(chains: Sequence[Backbone], num: int) -> list[Backbone]:
    """Return `num` chains at even distances through the sequence, all where there are fewer."""
    if num >= len(chains):
        return list(chains)
    places = np.linspace(0, len(chains) - 1, num).round().astype(int)
    return [chains[place] for place in places]


def measure(
    chains: Sequence[Backbone],
    reference: Sequence[Backbone],
    settings: Any,
    *,
    executor: Executor,
    folder: Folder | None,
    aligned: bool = True,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measure a set of chains.

    Parameters
    ----------
    chains : sequence of Backbone
        At least one; ids differ.
    reference : sequence of Backbone
        Training chains: natural dihedrals, and what novelty is relative to.
    settings : BackboneEvaluateConfig
    executor : Executor
    folder : Folder, optional
        Structure prediction.
    aligned : bool
        Measure diversity and novelty too, which align chains.

    Returns
    -------
    figures over the set (None: not measured), a row per chain
    """
    judged = judge_backbones(chains, parallel=executor.map)
    rows = judged.rows()
    for row, value in zip(rows, judged.per_sample, strict=True):
        row.update({f"within_{name}": verdict for name, verdict in value.verdicts().items()})
        row["natural"] = value.natural
    summary = judged.summary
    long = [chain.ca for chain in chains if len(chain) >= SHORTEST]
    summary["dihedral_divergence"] = (
        dihedral_divergence(long, [chain.ca for chain in reference]) if long else None
    )
    if aligned:
        summary["diversity"] = diversity_of(chains, executor=executor)
        near = novelty(chains, reference, parallel=executor.map)
        summary["novelty"] = near.summary
        for row, found in zip(rows, near.per_sample, strict=True):
            row["nearest"], row["nearest_tm"] = found.reference, found.tm
    designs = spread_over(chains, settings.designs)
    summary["designability"], values = designs_of(
        designs, settings.sequences, executor=executor, folder=folder
    )
    for row in rows:
        row.update(values.get(row["id"], {}))
    return summary, rows


def diversity_of(chains: Sequence[Backbone], *, executor: Executor) -> dict[str, Any]:
    """Diversity within each length where every length has several chains, else over the set."""
    groups: dict[int, list[Backbone]] = defaultdict(list)
    for chain in chains:
        groups[len(chain)].append(chain)
    by_length = min(len(group) for group in groups.values()) > 1
    parts = [
        diversity(group, parallel=executor.map)
        for group in (groups.values() if by_length else [list(chains)])
    ]
    scores = [part["mean_tm"] for part in parts if part["mean_tm"] is not None]
    clusters = sum(part["clusters"] for part in parts)
    return {
        "within": "each length" if by_length else "the whole set",
        "mean_tm": float(np.mean(scores)) if scores else None,
        "clusters": clusters,
        "cluster_ratio": clusters / len(chains),
    }


def designs_of(
    chains: Sequence[Backbone], sequences: int, *, executor: Executor, folder: Folder | None
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Sequences by ProteinMPNN and their folds; the reason where something is not measured."""
    nothing = {**dict.fromkeys(("nll", "folder", "scrmsd", "designable")), "chains": 0}
    if not chains:
        return {**nothing, "note": "not measured: no designs are asked for"}, {}
    try:
        found = designability(
            chains,
            parallel=executor.map,
            folder=folder,
            settings=DesignSettings(num=sequences),
        )
    except MissingExtra as error:
        return {**nothing, "note": f"not measured: {error}"}, {}
    values = {
        row.id: {"nll": row.nll, "scrmsd": row.scrmsd, "designable": row.designable,
                 "failure": row.failure}
        for row in found.per_sample
    }  # fmt: skip
    note = {} if folder is not None else {"note": NO_FOLDER}
    return {**found.summary, "sequences": sequences, **note}, values


def write_results(
    folder: Path, metrics: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write metrics.json and per_sample.csv, each whole or not at all.

    Parameters
    ----------
    folder : Path
        Created if needed.
    metrics : mapping
    rows : sequence of mapping
        At least one; what a row lacks stays blank.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(metrics, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_csv(rows, folder / "per_sample.csv")
    write_atomically(folder / "metrics.json", content)
