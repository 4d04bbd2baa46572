"""Sample the test split with a trained model: samples.parquet, CIF files, the calls it took."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from orbitdiff.batch import Batch
from orbitdiff.data.crystals import Crystal, CrystalDataset
from orbitdiff.export import write_cifs, write_samples
from orbitdiff.inference import CrystalModel
from orbitdiff.samplers.config import SamplerConfig, build_sampler
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.provenance import recorded

__all__ = ["run", "sample_test"]


def sample_test(
    model: CrystalModel,
    dataset: CrystalDataset,
    *,
    num_test: int,
    samples_per_crystal: int,
    batch_size: int,
    sampler: SamplerConfig,
    seed: int,
    progress: bool = True,
) -> list[tuple[str, int, Crystal]]:
    """Draw `samples_per_crystal` structures for each of the first test crystals.

    The noise of sample k of a crystal depends on (seed, row, k) alone, so the result does not
    depend on the batches, which are of cells of like size.

    Parameters
    ----------
    model : CrystalModel
    dataset : CrystalDataset
        Test split.
    num_test : int
        Crystals, the first by the hash of their id; 0 takes all.
    samples_per_crystal, batch_size, seed : int
    sampler : SamplerConfig
    progress : bool
        Print a line per batch.

    Returns
    -------
    list of (id of the reference, k, crystal)
    """
    rows = torch.as_tensor(dataset.first_k_by_hash(num_test or len(dataset)))
    names = [dataset.ids[row] for row in rows.tolist()]
    by_size = dataset.sizes[rows].argsort(stable=True)
    drawn: list[tuple[str, int, Crystal]] = []
    done, total = 0, len(rows) * samples_per_crystal
    clock = time.perf_counter()
    for k in range(samples_per_crystal):
        found: dict[int, Crystal] = {}
        for part in by_size.split(batch_size):
            batch = dataset.batch(rows[part])
            template = Batch(batch.state, batch.mask, batch.cond, batch.ids + k * len(dataset))
            crystals = model.sample(template, seed=seed, sampler=sampler)
            found |= zip(part.tolist(), crystals, strict=True)
            done += len(part)
            if progress:
                seconds = (time.perf_counter() - clock) / done * (total - done)
                print(f"sampled {done}/{total}  {seconds / 60:.1f} min left", flush=True)
        drawn += [(name, k, found[place]) for place, name in enumerate(names)]
    return drawn


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
        `samples`: samples.parquet, cif/, sampling.json.
    executor, tracker
        Unused but for the record of the run.
    """
    settings = params.settings.sample
    model = CrystalModel.load(inputs["model"])
    dataset = CrystalDataset.load(inputs["data"], "test")
    clock = time.perf_counter()
    calls = build_sampler(settings.sampler, model.objective.fields).calls
    drawn = sample_test(
        model,
        dataset,
        num_test=settings.num_test,
        samples_per_crystal=settings.samples_per_crystal,
        batch_size=settings.batch_size,
        sampler=settings.sampler,
        seed=params.seed,
    )
    seconds = time.perf_counter() - clock
    folder = outputs["samples"]
    folder.mkdir(parents=True, exist_ok=True)
    write_samples(drawn, folder / "samples.parquet")
    write_cifs(drawn, folder / "cif")
    about = {
        "sampler": settings.sampler.name,
        "steps": settings.sampler.steps,
        "calls": calls,
        "samples_per_crystal": settings.samples_per_crystal,
        "num_test": len(drawn) // settings.samples_per_crystal,
        "seconds": seconds,
        "seed": params.seed,
        "model": {name: value for name, value in model.about.items() if name != "estimator"},
    }
    (folder / "sampling.json").write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")
    with recorded(tracker, params, "sample", data=inputs["data"]) as tracked:
        tracked.metrics({"sampling_seconds": seconds})
        tracked.artifact(folder / "sampling.json")
