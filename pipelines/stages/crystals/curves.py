"""Match rate of a model under some sampler settings: the points of the curves of a report."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orbitdiff.data.crystals import CrystalDataset
from orbitdiff.inference import CrystalModel
from orbitdiff.metrics.crystals import Pair, Tolerances, compare_crystals
from orbitdiff.samplers.config import SamplerConfig, build_sampler
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.crystals.sample import sample_test
from pipelines.stages.provenance import recorded
from pipelines.stages.results import write_points

__all__ = ["measure", "write_curve"]

KEPT = ("match_rate_all", "match_rate_valid", "rmse_all", "num_references", "failures")


def measure(
    params: Any,
    data: Path,
    settings: Sequence[tuple[Mapping[str, Any], Path, SamplerConfig]],
    *,
    executor: Executor,
) -> list[dict[str, Any]]:
    """Sample the first test crystals under each setting and match them with the truth.

    Parameters
    ----------
    params : RunParams
        `curves.num_test` crystals, one sample each.
    data : Path
        Prepared data.
    settings : sequence of (label, model folder, sampler)
        The label is copied into the point.
    executor : Executor
        Matches structures.

    Returns
    -------
    list of dict
        `calls`, `seconds` of sampling, match rates and RMSE, one dict per setting.
    """
    test = CrystalDataset.load(data, "test")
    references = dict(zip(test.ids, test.crystals, strict=True))
    tolerances = Tolerances(**asdict(params.settings.evaluate))
    points = []
    for label, folder, sampler in settings:
        model = CrystalModel.load(folder)
        clock = time.perf_counter()
        drawn = sample_test(
            model,
            test,
            num_test=params.settings.curves.num_test,
            samples_per_crystal=1,
            batch_size=params.settings.sample.batch_size,
            sampler=sampler,
            seed=params.seed,
            progress=False,
        )
        seconds = time.perf_counter() - clock
        pairs = [Pair(name, k, crystal, references[name], tolerances) for name, k, crystal in drawn]
        summary = compare_crystals(pairs, parallel=executor.map).summary
        point = {
            **label,
            "sampler": sampler.name,
            "calls": build_sampler(sampler, model.objective.fields).calls,
            "seconds": seconds,
            **{name: summary[name] for name in KEPT},
        }
        print(f"{label} {sampler.name}, {point['calls']} calls: "
              f"match rate {point['match_rate_all']:.3f}, {seconds:.0f} s", flush=True)  # fmt: skip
        points.append(point)
    return points


def write_curve(
    params: Any,
    name: str,
    points: Sequence[Mapping[str, Any]],
    out: Path,
    *,
    data: Path,
    tracker: Tracker,
    step: Callable[[Mapping[str, Any]], int],
) -> None:
    """Write the points with the run they belong to, and record the match rates."""
    write_points(params, points, out)
    with recorded(tracker, params, name, data=data) as tracked:
        for point in points:
            found = {f"{point['sampler']}.match_rate_all": point["match_rate_all"]}
            tracked.metrics(found, step=step(point))
        tracked.artifact(out)
