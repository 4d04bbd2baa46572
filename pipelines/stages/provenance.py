"""The record of a stage: its numbers, and which data and code it came from."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orbitdiff.training.checkpoint import file_sha256
from pipelines.stages.base import TrackedRun, Tracker

__all__ = ["provenance", "recorded"]


def provenance(params: Any, data: Path | None = None) -> dict[str, str]:
    """Data set, preset, estimator, seed, git revision, and the hash of the prepared data.

    Parameters
    ----------
    params : RunParams
    data : Path, optional
        Folder written by `prepare`.
    """
    found = {
        "dataset": params.dataset,
        "estimator_name": params.estimator,
        "preset": params.preset,
        "revision": params.revision,
        "seed": str(params.seed),
    }
    if data is not None and (data / "manifest.json").is_file():
        found["data_manifest_sha256"] = file_sha256(data / "manifest.json")
    return found


@contextmanager
def recorded(
    tracker: Tracker, params: Any, stage: str, *, data: Path | None = None, name: str = ""
) -> Iterator[TrackedRun]:
    """Open the run `STAGE NAME` of the task's experiment.

    Parameters
    ----------
    tracker : Tracker
    params : RunParams
    stage : str
    data : Path, optional
        Folder written by `prepare`.
    name : str
        Default: the name of the run.
    """
    tags = {"stage": stage, **provenance(params, data)}
    with tracker.run(
        f"{stage} {name or params.run_name}",
        experiment=params.task,
        params=params.flat(),
        tags=tags,
    ) as tracked:
        yield tracked
