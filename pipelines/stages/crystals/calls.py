"""Match rate against network calls: every sampler of the preset's list on the finished model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orbitdiff.errors import BadInput
from orbitdiff.samplers.config import SamplerConfig
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.crystals.curves import measure, write_curve

__all__ = ["run"]


def run(
    params: Any,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    executor: Executor,
    tracker: Tracker,
) -> None:
    """Measure one model under each sampler of `curves.samplers`.

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
        The preset lists no sampler.
    """
    samplers = params.settings.curves.samplers
    if not samplers:
        raise BadInput(f"expected curves.samplers of preset {params.preset}, got an empty list")
    model = inputs["model"]
    settings: list[tuple[dict[str, int], Path, SamplerConfig]] = [
        ({}, model, sampler) for sampler in samplers
    ]
    points = measure(params, inputs["data"], settings, executor=executor)
    write_curve(
        params, "calls", points, outputs["curve"], data=inputs["data"], tracker=tracker,
        step=lambda point: point["calls"],
    )  # fmt: skip
