"""One run on the whole test set, where the preset's table takes the first molecules of it only."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.stages.base import Executor, Tracker
from pipelines.stages.conformers import evaluate, sample

__all__ = ["run"]


def run(
    params: Any,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    executor: Executor,
    tracker: Tracker,
) -> None:
    """Sample and evaluate every test molecule.

    Parameters
    ----------
    params : RunParams
    inputs : mapping
        `data` and `model` folders.
    outputs : mapping
        `samples` and `results`, as of the stages sample and evaluate.
    executor : Executor
    tracker : Tracker
    """
    settings = params.settings
    every = replace(params, settings=replace(settings, sample=replace(settings.sample, num_test=0)))
    samples = {"samples": outputs["samples"]}
    sample.run(every, inputs, samples, executor=executor, tracker=tracker)
    results = {"results": outputs["results"]}
    evaluate.run(every, {**inputs, **samples}, results, executor=executor, tracker=tracker)
