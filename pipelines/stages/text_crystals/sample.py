"""Sample the test split with a text-guided model: with its own prompts, and with shuffled ones."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from orbitdiff.data.crystals import Crystal, CrystalDataset
from orbitdiff.data.text_crystals import NONE, load_text_crystals, shuffled_texts
from orbitdiff.export import write_cifs, write_samples
from orbitdiff.inference.text_crystal_model import TextCrystalModel
from orbitdiff.samplers.config import SamplerConfig, build_sampler
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.crystals.sample import sample_test
from pipelines.stages.provenance import recorded

__all__ = ["SHUFFLED", "draw_test", "run"]

SHUFFLED = "shuffled.parquet"
"""Samples that were drawn with the text of another crystal."""


def draw_test(
    model: TextCrystalModel,
    dataset: CrystalDataset,
    *,
    num_test: int,
    samples_per_crystal: int,
    batch_size: int,
    sampler: SamplerConfig,
    guidance: float,
    seed: int,
    progress: bool = True,
) -> list[tuple[str, int, Crystal]]:
    """Draw structures for the prompts of the first test crystals, elements too where it can.

    Parameters
    ----------
    model : TextCrystalModel
    dataset : CrystalDataset
        Test split with the vectors of its prompts.
    num_test : int
        Crystals, the first by the hash of their id; 0 takes all.
    samples_per_crystal, batch_size : int
    sampler : SamplerConfig
    guidance : float
    seed : int
    progress : bool
        Print a line per batch.

    Returns
    -------
    list of (id of the crystal whose prompt it was, k, crystal)
    """
    if not model.draws_types:
        return sample_test(
            model.predictor(guidance), dataset, num_test=num_test,
            samples_per_crystal=samples_per_crystal, batch_size=batch_size, sampler=sampler,
            seed=seed, progress=progress,
        )  # fmt: skip
    rows = dataset.first_k_by_hash(num_test or len(dataset))
    names = [dataset.ids[row] for row in rows.tolist()]
    text = dataset.conditions.get("text", torch.zeros(len(dataset), 1))[rows]
    drawn: list[tuple[str, int, Crystal]] = []
    for k in range(samples_per_crystal):
        ids = rows + k * len(dataset)
        by_size = model.draw_sizes(ids.tolist(), seed=seed).argsort(stable=True)
        found: dict[int, Crystal] = {}
        for part in by_size.split(batch_size):
            crystals = model.generate(
                text[part], ids[part].tolist(), seed=seed, guidance=guidance, sampler=sampler
            )
            found |= zip(part.tolist(), crystals, strict=True)
            if progress:
                done = k * len(rows) + len(found)
                print(f"generated {done}/{len(rows) * samples_per_crystal}", flush=True)
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
        `data` and `model` folders.
    outputs : mapping
        `samples`: samples.parquet, shuffled.parquet (models that read a text), cif/,
        sampling.json.
    executor, tracker
        Unused but for the record of the run.
    """
    settings = params.settings.sample
    sampler = settings.sampler_of(params.arm)
    model = TextCrystalModel.load(inputs["model"])
    dataset = load_text_crystals(inputs["data"], "test", model.text)
    numbers = {
        "num_test": settings.num_test,
        "samples_per_crystal": settings.samples_per_crystal,
        "batch_size": settings.batch_size,
    }
    clock = time.perf_counter()
    drawn = draw_test(
        model, dataset, sampler=sampler, guidance=settings.guidance, seed=params.seed,
        **numbers,
    )  # fmt: skip
    seconds = time.perf_counter() - clock
    folder = outputs["samples"]
    folder.mkdir(parents=True, exist_ok=True)
    write_samples(drawn, folder / "samples.parquet")
    write_cifs(drawn, folder / "cif")
    if model.text != NONE:
        rows = dataset.first_k_by_hash(settings.num_test or len(dataset)).tolist()
        mixed = draw_test(
            model, shuffled_texts(dataset, rows), sampler=sampler,
            guidance=settings.guidance, seed=params.seed, **numbers,
        )  # fmt: skip
        write_samples(mixed, folder / SHUFFLED)
    about = {
        "sampler": sampler.name,
        "steps": sampler.steps,
        "calls": build_sampler(sampler, model.objective.fields).calls,
        "guidance": settings.guidance,
        "text": model.text,
        "types": params.arm.types,
        "samples_per_crystal": settings.samples_per_crystal,
        "num_test": len(drawn) // settings.samples_per_crystal,
        "seconds": seconds,
        "seed": params.seed,
        "model": model.about,
    }
    (folder / "sampling.json").write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")
    with recorded(tracker, params, "sample", data=inputs["data"]) as tracked:
        tracked.metrics({"sampling_seconds": seconds})
        tracked.artifact(folder / "sampling.json")
