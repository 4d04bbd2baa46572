"""Match rate against training steps: the preset's sampler on the weights kept on the way."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orbitdiff.errors import BadInput
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
    """Measure every snapshot of one run.

    Parameters
    ----------
    params : RunParams
    inputs : mapping
        `data` and `model` (its `snapshots/STEP` folders).
    outputs : mapping
        `curve`, a JSON file.
    executor : Executor
    tracker : Tracker

    Raises
    ------
    BadInput
        The model has no snapshots.
    """
    folders = sorted((inputs["model"] / "snapshots").glob("[0-9]*"))
    if not folders:
        raise BadInput(
            f"expected snapshots/STEP folders in {inputs['model']}, got none; set "
            "train.snapshot_every above 0 and train again"
        )
    sampler = params.settings.sample.sampler
    settings = [({"step": int(folder.name)}, folder, sampler) for folder in folders]
    points = measure(params, inputs["data"], settings, executor=executor)
    write_curve(
        params, "steps", points, outputs["curve"], data=inputs["data"], tracker=tracker,
        step=lambda point: point["step"],
    )  # fmt: skip
