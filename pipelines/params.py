"""params.yaml, validated: pydantic over the library's own frozen config dataclasses."""

import dataclasses
import subprocess
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import yaml
from pydantic import TypeAdapter, ValidationError

from orbitdiff.errors import BadInput
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.orbit.registry import KINDS
from orbitdiff.tasks.base import CONFIGS, config_type

__all__ = ["Params", "RunParams", "load"]

SECTIONS = (
    "versions",
    "builds",
    "finetunes",
    "steps",
    "calls",
    "guidance",
    "whole",
    "baselines",
    "sweeps",
    "datasets",
    "texts",
    "reports",
)


@final
@dataclass(frozen=True)
class RunParams:
    """Everything a stage may read of params.yaml for one run.

    Parameters
    ----------
    task, preset, dataset, estimator : str
    seed : int
    settings : dataclass
        The preset's config of the task.
    start : str
        Run whose weights the training starts from, empty for none.
    """

    task: str
    preset: str
    dataset: str
    estimator: str
    seed: int
    settings: Any
    start: str = ""

    @property
    def run_name(self) -> str:
        """{preset}-{dataset}-{estimator}-{seed}."""
        return f"{self.preset}-{self.dataset}-{self.estimator}-{self.seed}"

    @property
    def arm(self) -> Any:
        """What this run is trained with: an entry of `estimators`."""
        known: dict[str, Any] = self.settings.estimators
        if self.estimator not in known:
            raise BadInput(
                f"expected an estimator of {self.task}.{self.preset} among {sorted(known)}, "
                f"got {self.estimator!r}"
            )
        return known[self.estimator]

    @property
    def train_config(self) -> Any:
        """Numbers of the training: section `train`, or `finetune` with a start."""
        return self.settings.finetune if self.start else self.settings.train

    @cached_property
    def revision(self) -> str:
        """Git revision, with a mark where the work tree has changes; empty outside git."""
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return ""
        return done.stdout.strip()

    def flat(self) -> dict[str, Any]:
        """All numbers under dotted names."""
        named = {"dataset": self.dataset, "estimator": self.estimator, "seed": self.seed}
        return {**named, "preset": self.preset, **_flatten(dataclasses.asdict(self.settings))}


@final
class Params:
    """The parsed params.yaml.

    Parameters
    ----------
    raw : mapping
    """

    def __init__(self, raw: Mapping[str, Any]) -> None:
        known = {*SECTIONS, *CONFIGS}
        unknown = sorted(set(raw) - known)
        if unknown:
            raise BadInput(f"params.yaml: unknown keys {unknown}; expected {sorted(known)}")
        self.raw = raw

    @property
    def builds(self) -> Mapping[str, Mapping[str, Any]]:
        """Runs that `dvc repro` builds, by name; those with `start` are fine-tunes."""
        return {**self.raw["builds"], **(self.raw.get("finetunes") or {})}

    def curves(self, name: str) -> Mapping[str, Any]:
        """Runs of the section `steps`, `calls` or `whole`."""
        return self.raw.get(name) or {}

    def report(self, task: str, preset: str) -> Mapping[str, Any]:
        """Runs and data set of a preset's table.

        Raises
        ------
        BadInput
            There is no such table, or it lists no run.
        """
        reports = self.raw["reports"].get(task, {})
        if preset not in reports:
            raise BadInput(
                f"expected a preset of `reports.{task}` among {sorted(reports)}, got {preset!r}"
            )
        found: Mapping[str, Any] = reports[preset]
        if not found["runs"]:
            raise BadInput(
                f"expected runs in `reports.{task}.{preset}.runs` of params.yaml, got none; list "
                "runs of `builds` or `finetunes`"
            )
        return found

    def presets(self, task: str) -> list[str]:
        """Names of a task's presets."""
        return sorted(self.raw.get(task, {}))

    def settings(self, task: str, preset: str, *, changes: Sequence[str] = ()) -> Any:
        """Return the validated config of a task's preset.

        Parameters
        ----------
        task, preset : str
        changes : sequence of str
            `key=value` overrides with dotted keys and YAML values.

        Raises
        ------
        BadInput
            Unknown task, preset or key, wrong type, value out of range.
        """
        if not isinstance(self.raw.get(task), Mapping):
            known = sorted(set(CONFIGS) & set(self.raw))
            raise BadInput(f"expected a task of params.yaml among {known}, got {task!r}")
        kind = config_type(task)
        if preset not in self.raw.get(task, {}):
            raise BadInput(
                f"expected a preset of {task} among {self.presets(task)}, got {preset!r}"
            )
        section = yaml.safe_load(yaml.safe_dump(self.raw[task][preset]))
        for change in changes:
            _apply(section, change)
        try:
            return TypeAdapter(kind).validate_python(section)
        except ValidationError as error:
            lines = [
                f"{task}.{preset}.{'.'.join(map(str, part['loc']))}: {part['msg']} "
                f"(got {part['input']!r}){_what_exists(kind, part)}"
                for part in error.errors()
            ]
            raise BadInput("params.yaml is not valid:\n  " + "\n  ".join(lines)) from error

    def select(
        self,
        task: str,
        preset: str,
        *,
        dataset: str,
        estimator: str,
        seed: int,
        changes: Sequence[str] = (),
        start: str = "",
    ) -> RunParams:
        """Return the parameters of one run, its estimator checked; by default the first one."""
        settings = self.settings(task, preset, changes=changes)
        estimator = estimator or next(iter(settings.estimators))
        run = RunParams(task, preset, dataset, estimator, seed, settings, start)
        if start and getattr(settings, "finetune", None) is None:
            raise BadInput(f"{task}.{preset} has no section `finetune`, which --start needs")
        spec: EstimatorSpec = run.arm.target
        if spec.kind not in KINDS:
            raise BadInput(
                f"expected estimators.{estimator}.kind among {list(KINDS)}, got {spec.kind!r}"
            )
        if spec.num_samples < 1:
            raise BadInput(
                f"estimators.{estimator}.num_samples must be at least 1, got {spec.num_samples}"
            )
        if not spec.temperature > 0:
            raise BadInput(
                f"estimators.{estimator}.temperature must be positive, got {spec.temperature}"
            )
        return run


def load(path: Path | str = "params.yaml") -> Params:
    """Read params.yaml.

    Raises
    ------
    BadInput
        Missing file, broken YAML, unknown top-level key.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"expected {path} in the current folder; run from the repository root")
    try:
        raw = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise BadInput(f"{path} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise BadInput(f"{path} must hold named sections, got {type(raw).__name__}")
    return Params(raw)


def _apply(section: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals:
        raise BadInput(f"expected --set key=value, got {change!r}")
    *parents, last = key.strip().split(".")
    place: Any = section
    for name in parents:
        if not isinstance(place.get(name), dict):
            raise BadInput(f"--set {change}: no section {name!r}; expected among {sorted(place)}")
        place = place[name]
    if not parents and last not in place:
        raise BadInput(f"--set {change}: no key {last!r}; expected among {sorted(place)}")
    try:
        place[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInput(f"--set {change}: {text!r} is not a YAML value") from error


def _what_exists(kind: Any, part: Mapping[str, Any]) -> str:
    """Name the keys of the section that a refused key stands in."""
    if part["type"] not in ("unexpected_keyword_argument", "extra_forbidden"):
        return ""
    for name in part["loc"][:-1]:
        if dataclasses.is_dataclass(kind):
            kind = typing.get_type_hints(kind)[name]
        else:
            kind = typing.get_args(kind)[-1]
    return f"; expected among {sorted(field.name for field in dataclasses.fields(kind))}"


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, Mapping):
            flat.update(_flatten(item, f"{prefix}{name}."))
        else:
            flat[prefix + name] = item
    return flat
