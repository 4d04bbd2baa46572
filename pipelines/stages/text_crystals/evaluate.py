"""Evaluate the samples of a text-guided run: against the truth, the text, and a shuffled text."""

import json
import shutil
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orbitdiff.data.crystals import Crystal, CrystalDataset
from orbitdiff.data.prompts import PromptFields
from orbitdiff.data.text_crystals import read_prompts
from orbitdiff.errors import BadInput
from orbitdiff.export import (
    SampleRow,
    read_json,
    read_samples,
    write_atomically,
    write_csv,
    write_samples,
)
from orbitdiff.metrics.base import MetricResult
from orbitdiff.metrics.crystal_coverage import CUTOFFS, DEFAULT_CUTOFFS
from orbitdiff.metrics.crystal_generation import Sample, judge_generation
from orbitdiff.metrics.crystals import Pair, Tolerances, compare_crystals
from orbitdiff.metrics.text_obedience import Asked, obedience, wanted_of
from orbitdiff.tasks.text_crystals import DENOISED
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.provenance import recorded
from pipelines.stages.text_crystals.sample import SHUFFLED

__all__ = ["PICTURED", "judge_text", "run"]

SHUFFLED_KEPT = ("match_rate_all", "rmse_all")
LISTED = 5
PICTURED = "pictured.parquet"
"""The first sample of the first test crystals, kept beside the figures: reports draw these."""
NUM_PICTURED = 24


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
        `results`: metrics.json, per_sample.csv, per_sample_text.csv, history.jsonl,
        pictured.parquet.
    executor : Executor
    tracker : Tracker
    """
    test = CrystalDataset.load(inputs["data"], "test")
    references = dict(zip(test.ids, test.crystals, strict=True))
    stated = read_prompts(inputs["data"], "test").fields
    samples = read_samples(inputs["samples"] / "samples.parquet")
    strangers = sorted({name for name, _, _ in samples} - set(references))
    if not samples or strangers:
        raise BadInput(
            f"expected samples of test crystals of {inputs['data']}, got {len(samples)} with the "
            f"ids {strangers[:LISTED]}; run the sample stage again"
        )
    tolerances = Tolerances(**asdict(params.settings.evaluate))
    if params.arm.types == DENOISED:
        training = CrystalDataset.load(inputs["data"], "train").crystals
        judged: MetricResult[Any] = judge_generation(
            [Sample(name, k, crystal) for name, k, crystal in samples],
            [references[name] for name in dict.fromkeys(name for name, _, _ in samples)],
            training,
            tolerances=tolerances,
            parallel=executor.map,
            cutoffs=CUTOFFS.get(params.dataset, DEFAULT_CUTOFFS),
        )
    else:
        judged = compare_crystals(pairs(samples, references, tolerances), parallel=executor.map)
    metrics = dict(judged.summary)
    wanted = wanted_by(stated, references, {name for name, _, _ in samples})
    texts = judge_text(samples, wanted, executor=executor)
    metrics["text"] = texts.summary
    other = inputs["samples"] / SHUFFLED
    if other.is_file():
        metrics["shuffled"] = judge_shuffled(
            read_samples(other), references, wanted, tolerances,
            matched=params.arm.types != DENOISED, executor=executor,
        )  # fmt: skip
    about = read_json(inputs["samples"] / "sampling.json", cure="run the sample stage again")
    names = ("sampler", "steps", "calls", "seconds", "guidance")
    metrics["sampler"] = {name: about[name] for name in names}
    manifest = read_json(inputs["data"] / "manifest.json", cure="run the texts stage again")
    metrics["note"] = manifest.get("note", "")
    metrics["prompts"] = manifest["prompts"]
    metrics["num_test"] = len(test)
    metrics["num_train"] = manifest["counts"]["train"]
    metrics["run"] = {
        "dataset": params.dataset,
        "estimator": params.estimator,
        "preset": params.preset,
        "seed": params.seed,
        "target": params.arm.target.kind,
        "text": params.arm.text,
        "types": params.arm.types,
    }
    folder = outputs["results"]
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(judged.rows(), folder / "per_sample.csv")
    write_csv(texts.rows(), folder / "per_sample_text.csv")
    write_samples([row for row in samples if row[1] == 0][:NUM_PICTURED], folder / PICTURED)
    content = json.dumps(metrics, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_atomically(folder / "metrics.json", content)
    shutil.copy(inputs["model"] / "history.jsonl", folder / "history.jsonl")
    with recorded(tracker, params, "evaluate", data=inputs["data"]) as tracked:
        figures = {**metrics, **{f"text.{key}": one for key, one in texts.summary.items()}}
        tracked.metrics({k: v for k, v in figures.items() if isinstance(v, int | float)})
        tracked.artifact(folder)


def pairs(
    samples: Sequence[SampleRow], references: Mapping[str, Crystal], tolerances: Tolerances
) -> list[Pair]:
    """Put each sample beside the crystal whose prompt it was drawn for."""
    return [Pair(name, k, crystal, references[name], tolerances) for name, k, crystal in samples]


def wanted_by(
    fields: Sequence[PromptFields], references: Mapping[str, Crystal], ids: Set[str]
) -> dict[str, PromptFields]:
    """Return what the texts of these crystals ask for, by id."""
    return {one.id: wanted_of(one, references[one.id]) for one in fields if one.id in ids}


def judge_text(
    samples: Sequence[SampleRow], wanted: Mapping[str, PromptFields], *, executor: Executor
) -> MetricResult[Any]:
    """Ask whether samples have the fields of the crystal whose composition or text they got."""
    asked = [Asked(name, k, crystal, wanted[name]) for name, k, crystal in samples]
    return obedience(asked, parallel=executor.map)


def judge_shuffled(
    samples: Sequence[SampleRow],
    references: Mapping[str, Crystal],
    wanted: Mapping[str, PromptFields],
    tolerances: Tolerances,
    *,
    matched: bool,
    executor: Executor,
) -> dict[str, Any]:
    """Measure samples that were drawn with another crystal's text against their own crystal."""
    found: dict[str, Any] = {"text": judge_text(samples, wanted, executor=executor).summary}
    if matched:
        summary = compare_crystals(
            pairs(samples, references, tolerances), parallel=executor.map
        ).summary
        found |= {name: summary[name] for name in SHUFFLED_KEPT}
    return found
