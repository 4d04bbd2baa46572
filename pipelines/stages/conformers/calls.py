"""Quality against network calls: every sampler of the preset's list on one finished model."""

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from orbitdiff.data.ensembles import with_coords
from orbitdiff.data.molecules import MoleculeDataset
from orbitdiff.errors import BadInput
from orbitdiff.export import write_atomically
from orbitdiff.inference.conformers import ConformerModel
from orbitdiff.samplers.flow import FlowConfig, FlowSampler
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.conformers.evaluate import compare
from pipelines.stages.conformers.sample import sample_test
from pipelines.stages.provenance import recorded

__all__ = ["run", "sampler_name"]

KEPT = (
    "amr_r_mean", "amr_p_mean", "amr_r_median", "amr_p_median", "cov_r_0.1_mean", "cov_r_0.5_mean",
    "cov_p_0.1_mean", "cov_p_0.5_mean", "stereo_conformers_right", "num_molecules",
    "molecules_without_conformer", "failures",
)  # fmt: skip


def sampler_name(sampler: FlowConfig) -> str:
    """Solver, with the grid and the noise where they are not the usual ones.

    Parameters
    ----------
    sampler : FlowConfig
    """
    parts = ["Euler" if sampler.order == 1 else "Heun"]
    if sampler.grid != "uniform":
        parts.append(f"{sampler.grid} grid")
    if sampler.noise_scale:
        parts.append(f"noise {sampler.noise_scale:g}")
    return ", ".join(parts)


def run(
    params: Any,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    executor: Executor,
    tracker: Tracker,
) -> None:
    """Sample the first `curves.num_test` test molecules with each sampler of `curves.samplers`.

    Parameters
    ----------
    params : RunParams
    inputs : mapping
        `data` and `model` folders.
    outputs : mapping
        `curve`, a JSON file: the run, and a point per sampler.
    executor : Executor
        Compares conformers.
    tracker : Tracker

    Raises
    ------
    BadInput
        The preset lists no sampler.
    """
    curves = params.settings.curves
    if not curves.samplers:
        raise BadInput(f"expected curves.samplers of preset {params.preset}, got an empty list")
    model = ConformerModel.load(inputs["model"])
    test = MoleculeDataset.load(inputs["data"], "test")
    points = [
        measure(params, model, test, sampler, executor=executor) for sampler in curves.samplers
    ]
    about = {
        "dataset": params.dataset,
        "estimator": params.estimator,
        "preset": params.preset,
        "seed": params.seed,
    }
    path = outputs["curve"]
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"run": about, "points": points}
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_atomically(path, text)
    with recorded(tracker, params, "calls", data=inputs["data"]) as tracked:
        for point in points:
            found = {f"{point['sampler']}.{key}": point[key] for key in KEPT[:2]}
            known = {key: value for key, value in found.items() if value is not None}
            tracked.metrics(known, step=point["calls"])
        tracked.artifact(path)
    print(f"{len(points)} samplers of {curves.num_test} molecules: {path}")


def measure(
    params: Any,
    model: ConformerModel,
    test: MoleculeDataset,
    sampler: FlowConfig,
    *,
    executor: Executor,
) -> dict[str, Any]:
    """One point: sample with a sampler and evaluate, without PoseBusters.

    Parameters
    ----------
    params : RunParams
    model : ConformerModel
    test : MoleculeDataset
    sampler : FlowConfig
    executor : Executor
    """
    settings = params.settings
    clock = time.perf_counter()
    drawn = sample_test(
        model,
        test,
        num_test=settings.curves.num_test,
        batch_size=settings.sample.batch_size,
        sampler=sampler,
        seed=params.seed,
    )
    seconds = time.perf_counter() - clock
    references = [record.ensemble for record in test.records[: len(drawn)]]
    finite = [with_coords(one, one.coords[np.isfinite(one.coords).all((1, 2))]) for one in drawn]
    generated = {one.smiles: one for one in finite if len(one.coords)}
    summary = compare(
        references, generated, replace(settings.evaluate, posebusters=0), executor=executor
    ).summary
    calls = FlowSampler(sampler).calls
    point = {
        "sampler": sampler_name(sampler),
        "steps": sampler.steps,
        "calls": calls,
        "seconds": seconds,
        **{key: summary.get(key) for key in KEPT},
    }
    print(f"{point['sampler']}, {calls} calls: AMR-R {point['amr_r_mean']}, "
          f"AMR-P {point['amr_p_mean']}, {seconds:.0f} s", flush=True)  # fmt: skip
    return point
