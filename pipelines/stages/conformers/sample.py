"""Sample the test split: 2 L conformers of a molecule with L references, as SDF and JSON lines."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from orbitdiff.data.ensembles import with_coords, write_ensembles
from orbitdiff.data.molecules import Ensemble, MoleculeDataset
from orbitdiff.inference.conformers import ConformerModel
from orbitdiff.samplers.flow import FlowConfig, FlowSampler
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.provenance import recorded

__all__ = ["run", "sample_test"]

SAMPLES = "samples.jsonl.gz"


def sample_test(
    model: ConformerModel,
    dataset: MoleculeDataset,
    *,
    num_test: int,
    batch_size: int,
    sampler: FlowConfig,
    seed: int,
) -> list[Ensemble]:
    """Draw 2 L conformers of each of the first test molecules.

    Parameters
    ----------
    model : ConformerModel
    dataset : MoleculeDataset
        Test split.
    num_test : int
        Molecules, the first; 0 takes all.
    batch_size, seed : int
    sampler : FlowConfig
    """
    counts = dataset.num_conformers[: num_test or len(dataset)].tolist()
    wanted = [(row, k) for row, count in enumerate(counts) for k in range(2 * count)]
    clock = time.perf_counter()

    def say(done: int, total: int) -> None:
        left = (time.perf_counter() - clock) / done * (total - done)
        print(f"sampled {done}/{total}  {left / 60:.1f} min left", flush=True)

    drawn = model.sample_many(
        dataset, wanted, seed=seed, sampler=sampler, batch_size=batch_size, progress=say
    )
    return [
        with_coords(
            dataset.records[row].ensemble, np.stack([drawn[row, k] for k in range(2 * count)])
        )
        for row, count in enumerate(counts)
    ]


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
        `data` (prepared folder) and `model` (model folder).
    outputs : mapping
        `samples`: samples.jsonl.gz, samples.sdf.gz, sampling.json.
    executor, tracker
        Unused but for the record of the run.
    """
    settings = params.settings.sample
    model = ConformerModel.load(inputs["model"])
    dataset = MoleculeDataset.load(inputs["data"], "test")
    clock = time.perf_counter()
    drawn = sample_test(
        model,
        dataset,
        num_test=settings.num_test,
        batch_size=settings.batch_size,
        sampler=settings.sampler,
        seed=params.seed,
    )
    seconds = time.perf_counter() - clock
    folder = outputs["samples"]
    folder.mkdir(parents=True, exist_ok=True)
    finite = [with_coords(one, one.coords[np.isfinite(one.coords).all((1, 2))]) for one in drawn]
    write_ensembles(finite, folder / SAMPLES)
    write_ensembles(finite, folder / "samples.sdf.gz")
    about = {
        "sampler": settings.sampler.grid,
        "order": settings.sampler.order,
        "steps": settings.sampler.steps,
        "calls": FlowSampler(settings.sampler).calls,
        "num_test": len(drawn),
        "num_samples": sum(len(one.coords) for one in drawn),
        "num_not_finite": sum(
            len(one.coords) - len(kept.coords) for one, kept in zip(drawn, finite, strict=True)
        ),
        "seconds": seconds,
        "seed": params.seed,
        "model": {name: value for name, value in model.about.items() if name != "estimator"},
    }
    (folder / "sampling.json").write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")
    with recorded(tracker, params, "sample", data=inputs["data"]) as tracked:
        tracked.metrics({"sampling_seconds": seconds})
        tracked.artifact(folder / "sampling.json")
