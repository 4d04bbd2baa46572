"""Evaluate anybody's files of protein chains against natural ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orbitdiff.data.protein_files import SUFFIXES, read_folder, read_trace
from orbitdiff.data.proteins import Backbone, BackboneLimits, ProteinDataset, Rejected
from orbitdiff.errors import BadInput
from orbitdiff.tasks.backbones import BackboneEvaluateConfig
from pipelines.stages.backbones.measure import folder_at_hand, measure, write_results
from pipelines.stages.base import Executor

__all__ = ["evaluate_files"]

LISTED = 5
ANY_LENGTH = BackboneLimits(min_length=4, max_length=2000)


def evaluate_files(
    generated: Path,
    reference: Path,
    *,
    executor: Executor,
    out: Path | None = None,
    designs: int = 20,
) -> dict[str, Any]:
    """Evaluate generated chains; natural ones give dihedrals and what novelty is relative to.

    Parameters
    ----------
    generated : Path
        Folder of PDB, mmCIF or BinaryCIF files; the first chain of each counts, unchecked.
    reference : Path
        Folder of structure files, whose broken chains are left out, or a folder written by
        `prepare`, whose training chains count.
    executor : Executor
    out : Path, optional
        Folder for metrics.json and per_sample.csv (a row per chain).
    designs : int
        Chains that ProteinMPNN draws 8 sequences for, seconds each; 0 for none.

    Returns
    -------
    dict
        Figures over the set, JSON types; None where nothing was measured.

    Raises
    ------
    BadInput
        Missing folders, no readable chain.
    """
    chains, refused = read_generated(generated)
    natural = read_reference(reference)
    for row in refused[:LISTED]:
        print(f"left out {row.id}: {row.reason} ({row.detail})")
    settings = BackboneEvaluateConfig(designs=designs)
    metrics, rows = measure(chains, natural, settings, executor=executor, folder=folder_at_hand())
    metrics["unreadable"] = len(refused)
    metrics["generated"], metrics["reference"] = generated.name, reference.name
    if out is not None:
        write_results(out, metrics, rows)
    return metrics


def read_generated(folder: Path) -> tuple[list[Backbone], list[Rejected]]:
    """First chain of every file, and the files that have none."""
    paths = sorted(path for path in folder.rglob("*") if path.name.lower().endswith(SUFFIXES))
    if not paths:
        raise BadInput(f"expected structure files {SUFFIXES} in {folder}, found none")
    chains: list[Backbone] = []
    refused: list[Rejected] = []
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            ca = read_trace(path)
        except BadInput as error:
            refused.append(Rejected(name, "broken file", str(error)[:200]))
            continue
        if len(ca) < ANY_LENGTH.min_length:
            refused.append(Rejected(name, "too short", f"{len(ca)} CA atoms"))
            continue
        chains.append(Backbone(name, ca - ca.mean(0), "G" * len(ca), name, name))
    if not chains:
        raise BadInput(f"no chain of {folder} can be read; the first: {refused[0]}")
    return chains, refused


def read_reference(folder: Path) -> Sequence[Backbone]:
    """Natural chains of structure files or of a prepared folder."""
    if (folder / "manifest.json").is_file():
        return ProteinDataset.load(folder, "train").backbones
    found = [chain for chain in read_folder(folder, ANY_LENGTH) if isinstance(chain, Backbone)]
    if not found:
        raise BadInput(f"no chain of {folder} is unbroken, so none is a reference")
    return found
