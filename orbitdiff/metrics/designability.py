"""Designability: whether a sequence is predicted to fold into the backbone.

ProteinMPNN draws sequences for a backbone, a folder predicts their structures, scRMSD is the least
CA RMSD after superposition; the backbone is designable below 2 angstrom. Without a folder only the
likelihood of the drawn sequences is measured, and nothing else is claimed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from orbitdiff.data.protein_chain import Backbone
from orbitdiff.errors import BadInput
from orbitdiff.groups.kabsch import kabsch
from orbitdiff.metrics.base import Map, MetricResult
from orbitdiff.metrics.folding import Folder
from orbitdiff.metrics.proteinmpnn import load_proteinmpnn
from orbitdiff.seeding import stream

__all__ = ["DESIGNABLE", "DesignSettings", "Designed", "ca_rmsd", "designability"]

DESIGNABLE = 2.0
"""Angstrom; published."""


@dataclass(frozen=True)
class DesignSettings:
    """How sequences are drawn (the defaults are published).

    Parameters
    ----------
    num : int
        Sequences per backbone.
    temperature : float
    weights : str
        See `load_proteinmpnn`.
    seed : int
        With the chain's id it decides the sequences.
    """

    __pydantic_config__ = {"extra": "forbid"}

    num: int = 8
    temperature: float = 0.1
    weights: str = "v_48_020"
    seed: int = 0


@dataclass(frozen=True)
class Designed:
    """Per-chain values.

    Attributes
    ----------
    sequences : drawn by ProteinMPNN
    nll : mean negative log-likelihood per residue of its sequences, nats, None where it failed
    scrmsd : least CA RMSD over the sequences, angstrom, None where it was not measured
    designable : scrmsd below 2 angstrom, None where it was not measured
    failure : why a value is missing, else empty
    """

    id: str
    length: int
    sequences: tuple[str, ...]
    nll: float | None
    scrmsd: float | None
    designable: bool | None
    failure: str


def ca_rmsd(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Root mean square distance of CA atoms after the best proper superposition, angstrom.

    Parameters
    ----------
    first, second : (L, 3), angstrom

    Raises
    ------
    BadInput
        Different numbers of atoms.
    """
    if first.shape != second.shape or len(first) == 0:
        raise BadInput(f"expected chains of equal length, got {first.shape} and {second.shape}")
    a, b = (torch.as_tensor(np.asarray(ca, dtype=np.float64)) for ca in (first, second))
    a, b = a - a.mean(0), b - b.mean(0)
    return float((a @ kabsch(a, b).mT - b).square().sum(-1).mean().sqrt())


@dataclass(frozen=True)
class _Job:
    backbone: Backbone
    settings: DesignSettings


def _design(job: _Job) -> Designed:
    """Draw the sequences of one chain; a failing chain is recorded, never raised."""
    backbone, settings = job.backbone, job.settings
    network = load_proteinmpnn(settings.weights)
    generator = stream(settings.seed, "design", backbone.id)
    try:
        drawn = network.design(
            backbone.ca, num=settings.num, temperature=settings.temperature, generator=generator
        )
    except BadInput as error:
        return Designed(backbone.id, len(backbone), (), None, None, None, str(error))
    nll = float(drawn.nll.mean())
    return Designed(backbone.id, len(backbone), tuple(drawn.sequences), nll, None, None, "")


def designability(
    backbones: Sequence[Backbone],
    *,
    parallel: Map,
    folder: Folder | None = None,
    settings: DesignSettings | None = None,
) -> MetricResult[Designed]:
    """Measure scRMSD and the likelihood of designs of each chain.

    Parameters
    ----------
    backbones : sequence of Backbone
        At least one; ids differ.
    parallel : Map
        An executor's `map`, for ProteinMPNN; the folder runs in this process.
    folder : Folder, optional
        None: scRMSD and designability are None, "not measured".
    settings : DesignSettings, optional

    Returns
    -------
    MetricResult
        Summary: chains, failed, nll, designable (share of all chains), scrmsd (mean over chains
        with a value) and, of the folder, its name; None wherever nothing was measured.

    Raises
    ------
    BadInput
        No chain.
    MissingExtra
        ProteinMPNN is not installed.
    """
    if not backbones:
        raise BadInput("expected at least one chain to design, got none")
    settings = settings or DesignSettings()
    load_proteinmpnn(settings.weights)  # a missing package is told once, before any work
    jobs = [_Job(backbone, settings) for backbone in backbones]
    rows = parallel(_design, jobs, description="draw sequences (ProteinMPNN)")
    if folder is not None:
        rows = [_folded(row, item, folder) for row, item in zip(rows, backbones, strict=True)]
    return MetricResult(rows, _summary(rows, folder))


def _folded(row: Designed, backbone: Backbone, folder: Folder) -> Designed:
    """Fold the sequences of a chain and compare."""
    if not row.sequences:
        return row
    shared = (row.id, row.length, row.sequences, row.nll)
    try:
        predicted = [ca for ca in folder.fold(row.sequences) if np.isfinite(ca).all()]
        distances = [ca_rmsd(backbone.ca, ca) for ca in predicted]
    except BadInput as error:
        return Designed(*shared, None, None, str(error))
    if not distances:
        return Designed(*shared, None, None, "no predicted structure is finite")
    best = min(distances)
    return Designed(*shared, best, best < DESIGNABLE, "")


def _summary(rows: Sequence[Designed], folder: Folder | None) -> dict[str, Any]:
    """Figures over the set; a chain that failed to fold counts as not designable."""
    likelihoods = [row.nll for row in rows if row.nll is not None]
    distances = [row.scrmsd for row in rows if row.scrmsd is not None]
    measured = folder is not None and len(distances) > 0
    return {
        "chains": len(rows),
        "failed": sum(bool(row.failure) for row in rows),
        "nll": float(np.mean(likelihoods)) if likelihoods else None,
        "folder": None if folder is None else type(folder).__name__,
        "scrmsd": float(np.mean(distances)) if measured else None,
        "designable": sum(row.designable is True for row in rows) / len(rows) if measured else None,
    }
