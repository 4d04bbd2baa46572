"""Put a sweep together: the section of params.yaml and what the command line changes in it."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import yaml
from pydantic import TypeAdapter, ValidationError

from orbitdiff.errors import BadInput
from pipelines.assemble import make_executor, make_tracker
from pipelines.params import Params, RunParams
from pipelines.stages import sweep as stage
from pipelines.stages.sweeps.config import SweepConfig
from pipelines.stages.sweeps.space import Origin, Trial, build_space
from pipelines.stages.sweeps.tuner import LocalTuner, Tuner

__all__ = [
    "SweepParams",
    "change_section",
    "check_sweep",
    "make_tuner",
    "results_folder",
    "run_sweep",
    "section",
    "select_sweep",
]


@final
@dataclass(frozen=True)
class SweepParams:
    """Everything the stage `sweep` may read of params.yaml.

    Parameters
    ----------
    run : RunParams
        The preset that is varied, its swept estimator and the first seed.
    config : SweepConfig
    params : Params
    """

    run: RunParams
    config: SweepConfig
    params: Params

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.run.task

    @property
    def preset(self) -> str:
        """Name of the preset."""
        return self.run.preset

    @property
    def dataset(self) -> str:
        """Name of the data set, empty for the toy."""
        return self.run.dataset

    @property
    def estimator(self) -> str:
        """Arm that is varied."""
        return self.config.estimator

    @property
    def seed(self) -> str:
        """All seeds."""
        return ",".join(map(str, self.config.seeds))

    @property
    def run_name(self) -> str:
        """{preset}-{dataset}-sweep."""
        return "-".join(filter(None, (self.preset, self.dataset, "sweep")))

    @property
    def revision(self) -> str:
        """Git revision."""
        return self.run.revision

    @property
    def version(self) -> str:
        """Number of the code that trains."""
        numbers: Mapping[str, Any] = self.params.raw["versions"].get(self.task, {})
        return str(numbers.get("train", numbers.get("toy", "")))

    def settings_of(self, changes: Sequence[str]) -> Any:
        """Return the preset with key=value changes, validated."""
        return self.params.settings(self.task, self.preset, changes=changes)

    def flat(self) -> dict[str, Any]:
        """The sweep's own numbers under dotted names; each trial records its own."""
        return {
            "task": self.task,
            "preset": self.preset,
            "dataset": self.dataset,
            "estimator": self.config.estimator,
            "exact": self.config.exact,
            "seeds": self.seed,
            "changes": " ".join(self.config.changes),
            **{f"over.{axis}": list(values) for axis, values in self.config.over.items()},
            **{f"search.{k}": v for k, v in dataclasses.asdict(self.config.search).items()},
        }


def section(params: Params, task: str, preset: str) -> dict[str, Any]:
    """Section `sweeps.TASK.PRESET` of params.yaml; empty where there is none."""
    found: dict[str, Any] = ((params.raw.get("sweeps") or {}).get(task) or {}).get(preset) or {}
    return dict(found)


def change_section(
    found: Mapping[str, Any],
    *,
    over: str = "",
    values: Sequence[str] = (),
    changes: Sequence[str] = (),
    search: Mapping[str, Any] | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Change a section by what the command line says; without options it stays as it is.

    Parameters
    ----------
    found : mapping
        From `section`.
    over : str
        Axes, separated by commas; the section's values of an axis are taken unless `values`
        names others. Without it: the axes of the section and of `values`.
    values : sequence of str
        axis=a,b,c with YAML values.
    changes : sequence of str
        key=value that all trials share, after the section's own.
    search : mapping, optional
        Fields of Search.
    others
        Fields of SweepConfig; empty ones change nothing.

    Raises
    ------
    BadInput
        An axis has no values, or is named by `values` but not by `over`.
    """
    known = {axis: list(given) for axis, given in (found.get("over") or {}).items()}
    given = dict(map(parse_values, values))
    axes = [axis.strip() for axis in over.split(",")] if over else [*known]
    if not over:
        axes += [axis for axis in given if axis not in axes]
    unasked = [axis for axis in given if axis not in axes]
    if unasked:
        raise BadInput(f"--values names {unasked}, which --over {over} does not")
    chosen = {**known, **given}
    missing = [axis for axis in axes if axis not in chosen]
    if missing:
        raise BadInput(
            f"no values for {missing}: add --values {missing[0]}=a,b,c; the section of params.yaml "
            f"has {sorted(known)}"
        )
    changed = {**found, "over": {axis: chosen[axis] for axis in axes}}
    if changes:
        changed["changes"] = [*(found.get("changes") or ()), *changes]
    if search:
        changed["search"] = {**(found.get("search") or {}), **search}
    empty: tuple[Any, ...] = ("", None, (), [])
    return changed | {name: value for name, value in others.items() if value not in empty}


def parse_values(text: str) -> tuple[str, list[Any]]:
    """Split axis=a,b,c."""
    axis, equals, rest = text.partition("=")
    try:
        found = yaml.safe_load(f"[{rest}]") if equals else None
    except yaml.YAMLError as error:
        raise BadInput(f"--values {text}: {rest!r} is no list of YAML values") from error
    if not found or not axis.strip():
        raise BadInput(f"expected --values axis=a,b,c, got {text!r}")
    return axis.strip(), found


def select_sweep(params: Params, task: str, preset: str, found: Mapping[str, Any]) -> SweepParams:
    """Validate a section.

    Parameters
    ----------
    params : Params
    task, preset : str
    found : mapping
        From `section` or `change_section`.

    Raises
    ------
    BadInput
        No such sweep, unknown key, wrong type, value out of range.
    """
    where = f"sweeps.{task}.{preset}"
    if not found:
        known = params.raw.get("sweeps") or {}
        names = sorted(f"{name}.{each}" for name, presets in known.items() for each in presets)
        raise BadInput(
            f"params.yaml has no {where}; it has {names}. Or give --over, --values and --estimator"
        )
    try:
        config = TypeAdapter(SweepConfig).validate_python(dict(found))
    except ValidationError as error:
        lines = [
            f"{where}.{'.'.join(map(str, part['loc']))}: {part['msg']} (got {part['input']!r})"
            for part in error.errors()
        ]
        raise BadInput("the sweep is not valid:\n  " + "\n  ".join(lines)) from error
    run = params.select(
        task, preset, dataset=config.dataset, estimator=config.estimator, seed=config.seeds[0],
        changes=config.changes,
    )  # fmt: skip
    return SweepParams(run, config, params)


def make_tuner() -> Tuner:
    """Ray Tune, unless ORBITDIFF_EXECUTOR=local."""
    if os.environ.get("ORBITDIFF_EXECUTOR") == "local":
        return LocalTuner()
    from pipelines.distributed.tune import RayTuner

    return RayTuner()


def results_folder(task: str, preset: str, root: Path) -> Path:
    """Where a sweep writes its tables."""
    return root / "results/sweeps" / task / preset


def sweep_paths(sweep: SweepParams, root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Inputs and outputs of the stage; running state is shared by all sweeps of a preset."""
    data = Path("data/prepared") / sweep.task / sweep.dataset
    running = Path(".runs/sweeps") / sweep.task / sweep.preset
    results = results_folder(sweep.task, sweep.preset, root)
    return {"data": data} if sweep.dataset else {}, {"running": running, "results": results}


def check_sweep(sweep: SweepParams, tuner: Tuner) -> list[Trial]:
    """Return the trials that a sweep would start; refuse what could not start, on any data.

    Parameters
    ----------
    sweep : SweepParams
    tuner : Tuner

    Raises
    ------
    BadInput
    """
    touched = [*sweep.config.over, *(change.partition("=")[0] for change in sweep.config.changes)]
    if prepared := [key for key in touched if key.split(".")[0] == "data"]:
        raise BadInput(f"{prepared} would mix data sets: data are prepared once for all runs")
    known = sweep.params.raw["datasets"]
    if sweep.dataset and sweep.dataset not in known:
        raise BadInput(f"expected a data set among {sorted(known)}, got {sweep.dataset!r}")
    trials = build_space(sweep.config, Origin(sweep.task), sweep.settings_of).trials
    if not sweep.dataset and any(trial.num_workers for trial in trials):
        raise BadInput(f"{sweep.task} is trained on prepared data: give --dataset")
    if sweep.config.search.scheduler != "none" and not any(trial.num_workers for trial in trials):
        raise BadInput(f"{sweep.task} says nothing before its end: take search.scheduler none")
    tuner.check(trials)
    return trials


def run_sweep(sweep: SweepParams, *, root: Path = Path(), tuner: Tuner | None = None) -> Path:
    """Run a sweep on the files of the layout; return the folder of its results.

    Parameters
    ----------
    sweep : SweepParams
    root : Path
        Results of sweeps outside DVC go below it.
    tuner : Tuner, optional
    """
    inputs, outputs = sweep_paths(sweep, root)
    stage.run(
        sweep, inputs, outputs, executor=make_executor(), tracker=make_tracker(),
        tuner=tuner or make_tuner(),
    )  # fmt: skip
    return outputs["results"]
