"""Evaluate the sampled conformers of one run against the test ensembles."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orbitdiff.data.ensembles import read_ensembles
from orbitdiff.data.molecules import Ensemble, MoleculeDataset
from orbitdiff.errors import BadInput
from orbitdiff.export import read_json
from orbitdiff.metrics.base import MetricResult
from orbitdiff.metrics.conformers import ConformerScores, compare_conformers
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.conformers.evaluate_files import add_validity, molecule_pair, write_results
from pipelines.stages.conformers.sample import SAMPLES
from pipelines.stages.provenance import recorded

__all__ = ["compare", "run"]


def compare(
    references: Sequence[Ensemble],
    generated: Mapping[str, Ensemble],
    settings: Any,
    *,
    executor: Executor,
) -> MetricResult[ConformerScores]:
    """COV and AMR of the reference molecules, and PoseBusters on a sample.

    Parameters
    ----------
    references : sequence of Ensemble
    generated : mapping of SMILES to Ensemble
        A molecule without any counts as not covered.
    settings : ConformerEvaluateConfig
    executor : Executor
    """
    pairs = [molecule_pair(one, generated.get(one.smiles)) for one in references]
    result = compare_conformers(pairs, thresholds=settings.thresholds, parallel=executor.map)
    if settings.posebusters:
        drawn = [generated[one.smiles] for one in references if one.smiles in generated]
        add_validity(result.summary, drawn, num=settings.posebusters, executor=executor)
    return result


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
        `results`: metrics.json, per_sample.csv (a row per molecule), history.jsonl.
    executor : Executor
    tracker : Tracker
    """
    settings = params.settings.evaluate
    about = read_json(inputs["samples"] / "sampling.json", cure="run the sample stage again")
    test = MoleculeDataset.load(inputs["data"], "test")
    references = [record.ensemble for record in test.records[: about["num_test"]]]
    found = read_ensembles(inputs["samples"] / SAMPLES).ensembles.values()
    generated = {one.smiles: one for one in found}
    strangers = sorted(set(generated) - {one.smiles for one in references})
    if strangers or not generated:
        raise BadInput(
            f"expected samples of the first {about['num_test']} test molecules of "
            f"{inputs['data']}, got {strangers[:5] or 'none'}; run the sample stage again"
        )
    result = compare(references, generated, settings, executor=executor)
    metrics = result.summary
    metrics["sampler"] = {
        name: about[name] for name in ("sampler", "order", "steps", "calls", "seconds")
    }
    metrics["num_not_finite"] = about["num_not_finite"]
    manifest = read_json(inputs["data"] / "manifest.json", cure="run the prepare stage again")
    metrics["note"] = manifest.get("note", "")
    metrics["num_test"] = len(test)
    metrics["run"] = {
        "dataset": params.dataset,
        "estimator": params.estimator,
        "preset": params.preset,
        "seed": params.seed,
    }
    folder = outputs["results"]
    write_results(folder, result, thresholds=settings.thresholds)
    shutil.copy(inputs["model"] / "history.jsonl", folder / "history.jsonl")
    with recorded(tracker, params, "evaluate", data=inputs["data"]) as tracked:
        tracked.metrics({k: v for k, v in metrics.items() if isinstance(v, int | float)})
        tracked.artifact(folder)
