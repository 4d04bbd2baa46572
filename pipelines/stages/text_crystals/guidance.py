"""Match rate and obedience to the text at several guidance weights of one finished model."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orbitdiff.data.crystals import CrystalDataset
from orbitdiff.data.prompts import PromptFields
from orbitdiff.data.text_crystals import NONE, load_text_crystals, read_prompts
from orbitdiff.errors import BadInput
from orbitdiff.inference.text_crystal_model import TextCrystalModel
from orbitdiff.metrics.crystals import Tolerances, compare_crystals, valid_crystal
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.provenance import recorded
from pipelines.stages.results import write_points
from pipelines.stages.text_crystals.evaluate import judge_text, pairs, wanted_by
from pipelines.stages.text_crystals.sample import draw_test

__all__ = ["run"]

KEPT = ("match_rate_all", "rmse_all", "valid_generated", "num_references")


def run(
    params: Any,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    executor: Executor,
    tracker: Tracker,
) -> None:
    """Measure one model at each weight of `curves.guidance`.

    Parameters
    ----------
    params : RunParams
    inputs : mapping
        `data` and `model` folders.
    outputs : mapping
        `curve`, a JSON file.
    executor : Executor
    tracker : Tracker

    Raises
    ------
    BadInput
        The model reads no text.
    """
    model = TextCrystalModel.load(inputs["model"])
    if model.text == NONE:
        raise BadInput(f"expected a run that reads a text, got {params.run_name}")
    dataset = load_text_crystals(inputs["data"], "test", model.text)
    truth = CrystalDataset.load(inputs["data"], "test")
    references = dict(zip(truth.ids, truth.crystals, strict=True))
    stated = read_prompts(inputs["data"], "test").fields
    wanted: dict[str, PromptFields] = {}
    settings, curves = params.settings.sample, params.settings.curves
    tolerances = Tolerances(**asdict(params.settings.evaluate))
    points = []
    for weight in curves.guidance:
        drawn = draw_test(
            model, dataset, num_test=curves.num_test, samples_per_crystal=1,
            batch_size=settings.batch_size, sampler=settings.sampler_of(params.arm),
            guidance=weight, seed=params.seed, progress=False,
        )  # fmt: skip
        wanted = wanted or wanted_by(stated, references, {name for name, _, _ in drawn})
        point: dict[str, Any] = {"guidance": weight}
        point["text"] = judge_text(drawn, wanted, executor=executor).summary
        if model.draws_types:
            valid = [valid_crystal(crystal) for _, _, crystal in drawn]
            point["valid_generated"] = sum(valid) / len(valid)
        else:
            paired = pairs(drawn, references, tolerances)
            summary = compare_crystals(paired, parallel=executor.map).summary
            point |= {name: summary[name] for name in KEPT}
        points.append(point)
        print(f"guidance {weight:g}: {point}", flush=True)
    write_points(params, points, outputs["curve"])
    with recorded(tracker, params, "guidance", data=inputs["data"]) as tracked:
        for index, point in enumerate(points):
            figures = {**point, **{f"text.{key}": one for key, one in point["text"].items()}}
            tracked.metrics(
                {k: float(v) for k, v in figures.items() if isinstance(v, int | float)}, step=index
            )
        tracked.artifact(outputs["curve"])
