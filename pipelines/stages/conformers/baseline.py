"""The baseline row: RDKit's ETKDGv3 on the test molecules, through the same evaluation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orbitdiff.data.ensembles import with_coords, write_ensembles
from orbitdiff.data.etkdg import etkdg_conformers
from orbitdiff.data.molecules import Ensemble, MoleculeDataset
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.conformers.evaluate import compare
from pipelines.stages.conformers.evaluate_files import write_results
from pipelines.stages.provenance import recorded

__all__ = ["run"]

SEED = 0


def run(
    params: Any,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    executor: Executor,
    tracker: Tracker,
) -> None:
    """Embed 2 L conformers of every test molecule and evaluate them.

    Parameters
    ----------
    params : RunParams
    inputs : mapping
        `data` (prepared folder).
    outputs : mapping
        `results`: metrics.json, per_sample.csv; `samples`: samples.sdf.gz.
    executor : Executor
        Embeds molecules in parallel.
    tracker : Tracker
    """
    test = MoleculeDataset.load(inputs["data"], "test")
    references = [record.ensemble for record in test.records]
    made = executor.map(embed, references, description="embed molecules")
    generated = {one.smiles: one for one in made if len(one.coords)}
    result = compare(references, generated, params.settings.evaluate, executor=executor)
    result.summary["num_test"] = len(test)
    folder = outputs["results"]
    write_results(folder, result, thresholds=params.settings.evaluate.thresholds)
    outputs["samples"].mkdir(parents=True, exist_ok=True)
    write_ensembles(generated.values(), outputs["samples"] / "samples.sdf.gz")
    with recorded(tracker, params, "baseline", data=inputs["data"], name="etkdg") as tracked:
        summary = result.summary
        tracked.metrics({k: v for k, v in summary.items() if isinstance(v, int | float)})


def embed(reference: Ensemble) -> Ensemble:
    """Embed twice as many conformers as the reference has."""
    coords = etkdg_conformers(reference.smiles, 2 * len(reference.coords), seed=SEED)
    return with_coords(reference, coords)
