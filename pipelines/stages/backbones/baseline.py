"""Controls that need no training: held-out natural chains, and the same with noise on them.

Every proxy must call the first natural and the second not, or it says nothing of generated chains.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orbitdiff.data.protein_files import pdb_text
from orbitdiff.data.proteins import Backbone, ProteinDataset
from orbitdiff.data.splits import first_by_hash
from orbitdiff.export import read_json, write_atomically
from orbitdiff.seeding import stream
from pipelines.stages.backbones.measure import folder_at_hand, measure, write_results
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.provenance import recorded

__all__ = ["held_out", "noised", "run"]

SEED = 0


def held_out(data: Path, num: int) -> list[Backbone]:
    """Validation and test chains, the first `num` by the hash of their id, all for 0.

    Parameters
    ----------
    data : Path
        Folder written by `prepare`.
    num : int
    """
    chains = [
        chain for split in ("val", "test") for chain in ProteinDataset.load(data, split).backbones
    ]
    first = first_by_hash([chain.id for chain in chains], num or len(chains))
    return [chains[row] for row in first.tolist()]


def noised(chains: Sequence[Backbone], deviation: float) -> list[Backbone]:
    """The chains with normal noise on every coordinate.

    Parameters
    ----------
    chains : sequence of Backbone
    deviation : float
        Angstrom.
    """
    found = []
    for chain in chains:
        noise = torch.randn(chain.ca.shape, generator=stream(SEED, "noised", chain.id)).numpy()
        ca = (chain.ca + deviation * noise).astype(np.float32)
        found.append(Backbone(chain.id, ca, chain.sequence, chain.component, chain.cluster))
    return found


def run(
    params: Any,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    executor: Executor,
    tracker: Tracker,
) -> None:
    """Measure natural and noised chains as the evaluate stage measures generated ones.

    Parameters
    ----------
    params : RunParams
    inputs : mapping
        `data`, the prepared folder.
    outputs : mapping
        `results`: metrics.json with `natural` and `noised`, per_sample.csv; `samples`: the chains
        as PDB files.
    executor : Executor
    tracker : Tracker
    """
    settings, folder = params.settings.evaluate, folder_at_hand()
    training = ProteinDataset.load(inputs["data"], "train").backbones
    natural = held_out(inputs["data"], settings.natural)
    sets = {"natural": natural, "noised": noised(natural, settings.noise)}
    metrics: dict[str, Any] = {"noise": settings.noise}
    rows: list[dict[str, Any]] = []
    for name, chains in sets.items():
        metrics[name], own = measure(
            chains, training, settings, executor=executor, folder=folder, aligned=name == "natural"
        )
        rows += [{"set": name, **row} for row in own]
        place = outputs["samples"] / name
        place.mkdir(parents=True, exist_ok=True)
        for index, chain in enumerate(chains):
            text = pdb_text(chain.ca, chain.sequence)
            write_atomically(place / f"{len(chain):03d}_{index:03d}.pdb", text)
    manifest = read_json(inputs["data"] / "manifest.json", cure="run the prepare stage again")
    metrics["note"] = manifest.get("note", "")
    write_results(outputs["results"], metrics, rows)
    with recorded(
        tracker, params, "baseline", data=inputs["data"], name=f"{params.preset} controls"
    ) as tracked:
        tracked.metrics({f"{name}.natural": metrics[name]["natural"] for name in sets})
        tracked.artifact(outputs["results"])
