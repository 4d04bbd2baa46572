"""Sweep: train an estimator over K, temperature or any other number, and exact beside it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from orbitdiff.errors import BadInput, OrbitDiffError
from orbitdiff.export import write_atomically
from orbitdiff.training.checkpoint import file_sha256
from orbitdiff.training.lock import only_writer
from orbitdiff.viz.sweep import sweep_maps
from pipelines.stages.base import Executor, TrackedRun, Tracker
from pipelines.stages.provenance import recorded
from pipelines.stages.sweeps.advice import advise, markdown
from pipelines.stages.sweeps.config import Search
from pipelines.stages.sweeps.gradient import gradient_variance, measure
from pipelines.stages.sweeps.record import Children
from pipelines.stages.sweeps.space import Origin, Point, Space, Trial, build_space
from pipelines.stages.sweeps.table import FIGURES, point_rows, trial_row, write_tables
from pipelines.stages.sweeps.tuner import Plan, Tuner

__all__ = ["read_space", "run"]

PATIENCE = 5.0
"""Seconds to wait for another run of the same sweep to end."""

Row = dict[str, Any]


def run(
    params: Any,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    executor: Executor,
    tracker: Tracker,
    tuner: Tuner,
) -> None:
    """Train every point of the space and write tables, maps and advice.

    Parameters
    ----------
    params : SweepParams
    inputs : mapping
        `data`, a folder written by `prepare`; nothing for the toy.
    outputs : mapping
        `running`, state from which an interrupted sweep goes on, and which sweeps of a preset
        share: a trial that one of them has finished is not repeated by another. `results`, the
        folder to write: trials.parquet, .csv and .json, sweep.json, advice.md, maps.png.
    executor : Executor
        Measures what no trial has measured itself.
    tracker : Tracker
        Gets a run of the sweep with a child for each trial.
    tuner : Tuner
        Runs the trials.

    Raises
    ------
    BadInput
        The space is refused; nothing was started.
    OrbitDiffError
        A trial broke off; tables of the others are written.
    """
    config, root = params.config, outputs["running"].absolute()
    space = read_space(params, inputs.get("data"))
    tuner.check(space.trials)
    name = sha256("".join(trial.identity for trial in space.trials).encode())
    name.update(json.dumps(dataclasses.asdict(config.search)).encode())
    short = name.hexdigest()[:8]
    with (
        only_writer(root, patience=PATIENCE),
        recorded(
            tracker, params, "sweep", data=inputs.get("data"), name=f"{params.preset} {short}"
        ) as parent,
    ):
        children = Children(tracker, parent, params, root)
        every = Search(scheduler="none")
        plans = [
            Plan(f"exact-{short}", space.exact, every, {}, {}),
            Plan(f"points-{short}", space.points, config.search, space.axes, space.place),
        ]
        tried: list[str] = []
        failed: list[str] = []
        for plan in plans:
            found = tuner.run(plan, root, on_end=children.ended_now)
            tried += found["tried"]
            failed += found["failed"]
        trials = [trial for trial in space.trials if trial.name in {*tried, *failed}]
        measure_rest(trials, root, executor)
        rows = {t.name: trial_row(t, root, failed=t.name in failed) for t in trials}
        for trial in trials:
            children.record(trial, status=rows[trial.name]["status"])
        write_results(params, space, rows, outputs["results"], parent)
        if failed:  # the record stays open: the sweep goes on in it
            raise OrbitDiffError(
                f"{len(failed)} of {len(trials)} trials broke off ({failed[0]}, ...); tables of "
                "the others are written. Run the same command again: it tries these alone"
            )


def read_space(params: Any, data: Path | None) -> Space:
    """Build the trials of a sweep, on prepared data where the task has any.

    Parameters
    ----------
    params : SweepParams
    data : Path, optional
        Folder written by `prepare`.

    Raises
    ------
    BadInput
    """
    digest = ""
    if data is not None:
        if not (data / "manifest.json").is_file():
            raise BadInput(f"expected prepared data with manifest.json in {data}; run prepare")
        digest = file_sha256(data / "manifest.json")
    origin = Origin(params.task, params.version, data and data.absolute(), digest)
    return build_space(params.config, origin, params.settings_of)


def measure_rest(trials: Sequence[Trial], root: Path, executor: Executor) -> None:
    """Measure the gradient noise of trials that did not come to it: those that were stopped."""
    missing = [trial for trial in trials if gradient_variance(trial, root) is None]
    for trial in missing:
        trial.folder(root).mkdir(parents=True, exist_ok=True)
    if missing:
        executor.map(partial(measure, root=root), missing, description="gradient noise")


def write_results(
    params: Any, space: Space, rows: Mapping[str, Row], folder: Path, record: TrackedRun
) -> None:
    """Write tables, maps and advice; show them, and give them to the record."""
    every: list[Point] = [*space.exact, *space.points]
    points = point_rows(every, rows)
    advice = advise(points)
    title = f"{params.task} {params.preset}: {', '.join(params.config.over)}"
    write_tables(list(rows.values()), folder)
    content = {"advice": advice, "points": points, "settings": params.flat()}
    write_atomically(folder / "sweep.json", json.dumps(content, indent=1) + "\n")
    text = markdown(points, advice, title=title)
    write_atomically(folder / "advice.md", text)
    sweep_maps(points, folder / "maps.png", title=title)
    for point in points:
        means = {key: point[key]["mean"] for key in FIGURES if point[key] is not None}
        record.metrics({f"{point['name']}/{key}".replace("=", "_").replace(",", " "): value
                        for key, value in means.items()})  # fmt: skip
    record.artifact(folder)
    print(text)
