"""Draw chains of the preset's lengths with a trained model, as PDB files of CA atoms."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orbitdiff.data.protein_files import pdb_text
from orbitdiff.export import write_atomically
from orbitdiff.inference.backbones import GLYCINE, BackboneModel
from orbitdiff.samplers.flow import FlowSampler
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.provenance import recorded

__all__ = ["run", "write_pdbs"]


def write_pdbs(chains: Mapping[tuple[int, int], NDArray[np.float32]], folder: Path) -> int:
    """Write `{length}_{k}.pdb` of each chain that is finite; return how many are not.

    Parameters
    ----------
    chains : mapping of (length, k) to (L, 3), angstrom
    folder : Path
        Created if needed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left_out = 0
    for (length, k), ca in sorted(chains.items()):
        # a PDB file has four digits before the point
        if not np.isfinite(ca).all() or np.abs(ca).max() >= 1e3:
            left_out += 1
            continue
        write_atomically(folder / f"{length:03d}_{k:03d}.pdb", pdb_text(ca, GLYCINE * length))
    return left_out


def run(
    params: Any,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    executor: Executor,
    tracker: Tracker,
) -> None:
    """Sample with the preset's sampler and write the samples folder.

    Parameters
    ----------
    params : RunParams
    inputs : mapping
        `model` (model folder).
    outputs : mapping
        `samples`: pdb/, sampling.json.
    executor, tracker
        Unused but for the record of the run.
    """
    settings = params.settings.sample
    model = BackboneModel.load(inputs["model"])
    wanted = [(length, k) for length in settings.lengths for k in range(settings.num)]
    clock = time.perf_counter()

    def say(done: int, total: int) -> None:
        left = (time.perf_counter() - clock) / done * (total - done)
        print(f"sampled {done}/{total}  {left / 60:.1f} min left", flush=True)

    drawn = model.sample_many(
        wanted,
        seed=params.seed,
        sampler=settings.sampler,
        batch_size=settings.batch_size,
        progress=say,
    )
    seconds = time.perf_counter() - clock
    folder = outputs["samples"]
    lost = write_pdbs(drawn, folder / "pdb")
    about = {
        "sampler": {**vars(settings.sampler), "calls": FlowSampler(settings.sampler).calls},
        "lengths": list(settings.lengths),
        "num": settings.num,
        "num_samples": len(drawn),
        "num_not_finite": lost,
        "seconds": seconds,
        "seed": params.seed,
        "model": {name: value for name, value in model.about.items() if name != "estimator"},
    }
    text = json.dumps(about, indent=2, sort_keys=True) + "\n"
    write_atomically(folder / "sampling.json", text)
    with recorded(tracker, params, "sample", data=inputs.get("data")) as tracked:
        tracked.metrics({"sampling_seconds": seconds})
        tracked.artifact(folder / "sampling.json")
