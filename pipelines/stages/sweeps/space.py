"""The points of a sweep and their trials: one training run per point and seed."""

import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, final

from orbitdiff.errors import BadInput
from pipelines.stages.sweeps.config import ESTIMATOR_AXES, SweepConfig
from pipelines.stages.sweeps.settings import INEXACT, check, matters, only_used

__all__ = ["Origin", "Point", "Space", "Trial", "build_space"]

NOT_TRAINING = ("estimators", "sample", "evaluate", "curves", "data", "finetune")
"""Sections of a preset that no training run reads; the arm is named apart."""
LONGEST_NAME = 80

SettingsOf = Callable[[Sequence[str]], Any]
"""key=value changes to the validated config of the preset."""


@final
@dataclass(frozen=True)
class Origin:
    """What all trials of a sweep come from.

    Parameters
    ----------
    task : str
    version : str
        Number of the stage's code in params.yaml; another one is another trial.
    data : Path, optional
        Folder written by `prepare`, absolute.
    data_hash : str
        Of its manifest.
    """

    task: str
    version: str = ""
    data: Path | None = None
    data_hash: str = ""


@final
@dataclass(frozen=True)
class Trial:
    """One training run.

    Parameters
    ----------
    origin : Origin
    settings : dataclass
        The preset with the values of the point in it.
    estimator : str
        Arm that is trained.
    seed : int
    values : mapping of axis to value
        None where the axis has no effect on the trial's kind of estimator.
    reference : Trial, optional
        The exact trial that it is compared with; None for the exact ones themselves.
    """

    origin: Origin
    settings: Any
    estimator: str
    seed: int
    values: Mapping[str, Any]
    reference: "Trial | None" = None

    @property
    def exact(self) -> bool:
        """It trains the exact estimator."""
        return self.reference is None

    @property
    def arm(self) -> Any:
        """Entry of `estimators` that is trained."""
        return self.settings.estimators[self.estimator]

    @property
    def steps(self) -> int:
        """Optimiser steps of a trial that is not stopped."""
        own = self.settings.train if hasattr(self.settings, "train") else self.settings
        return int(own.steps)

    @property
    def num_workers(self) -> int:
        """Training processes; 0 for a training that knows no workers and runs in the trial."""
        return int(self.settings.train.num_workers) if hasattr(self.settings, "train") else 0

    @property
    def name(self) -> str:
        """Values and seed in words."""
        return f"{point_name(self.values, exact=self.exact)},seed={self.seed}"

    @property
    def identity(self) -> str:
        """Hash of all that decides the result."""
        settings = dataclasses.asdict(self.settings)
        content = {
            "task": self.origin.task,
            "version": self.origin.version,
            "data": self.origin.data_hash,
            "settings": {key: settings[key] for key in settings if key not in NOT_TRAINING},
            "arm": dataclasses.asdict(self.arm),
            "seed": self.seed,
        }
        return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def folder(self, root: Path) -> Path:
        """Where the trial keeps its state, the same in every sweep that has it."""
        words = re.sub(r"[^\w.,=+-]", "_", self.name)[:LONGEST_NAME]
        return root / "trials" / f"{words}-{self.identity}"


@final
@dataclass(frozen=True)
class Point:
    """One place of the space, with a trial per seed."""

    values: Mapping[str, Any]
    trials: tuple[Trial, ...]

    @property
    def exact(self) -> bool:
        """Its trials train the exact estimator."""
        return self.trials[0].exact

    @property
    def name(self) -> str:
        """Values in words."""
        return point_name(self.values, exact=self.exact)


@final
@dataclass(frozen=True)
class Space:
    """All points of a sweep.

    Parameters
    ----------
    exact : tuple of Point
        One for each value of the axes that are no settings of the estimator.
    points : tuple of Point
        Without the exact ones and without repetitions.
    axes : mapping of axis to values
    place : mapping of one value per axis to its point
        Several places share a point where an axis has no effect, or with an exact one.
    """

    exact: tuple[Point, ...]
    points: tuple[Point, ...]
    axes: Mapping[str, tuple[Any, ...]]
    place: Mapping[tuple[Any, ...], Point]

    @property
    def trials(self) -> list[Trial]:
        """Every trial, the exact ones first."""
        return [trial for point in (*self.exact, *self.points) for trial in point.trials]


def point_name(values: Mapping[str, Any], *, exact: bool) -> str:
    """`exact` or axis=value, joined by commas; axes without effect are left out."""
    said = [f"{axis}={value}" for axis, value in values.items() if value is not None]
    return ",".join(["exact"] * exact + said) or "fixed"


def build_space(config: SweepConfig, origin: Origin, settings_of: SettingsOf) -> Space:
    """Build every trial of a sweep and refuse what could not train.

    Parameters
    ----------
    config : SweepConfig
    origin : Origin
    settings_of : callable
        key=value changes to the preset's config; refuses unknown keys and wrong values.

    Raises
    ------
    BadInput
        Unknown key, arm or kind, K below 1, temperature not positive, an axis without effect.
    """
    first = settings_of(config.changes)
    for arm in (config.estimator, config.exact):
        arm_of(first, arm)
    kind = arm_of(first, config.exact).target.kind
    if kind in INEXACT:
        raise BadInput(
            f"expected an exact estimator as exact={config.exact!r}, whose kind is {kind!r}; "
            "name another arm with --exact"
        )
    others = {axis: v for axis, v in config.over.items() if axis not in ESTIMATOR_AXES}
    exact: dict[tuple[Any, ...], Point] = {}
    for values in products(others):
        point = make_point(config, origin, settings_of, values, config.exact)
        exact[tuple(values.values())] = point
    known = {point.trials[0].identity: point for point in exact.values()}
    points: list[Point] = []
    place: dict[tuple[Any, ...], Point] = {}
    for values in products(config.over):
        arm = values.get("estimator", config.estimator)
        reference = exact[tuple(values[axis] for axis in others)]
        point = make_point(config, origin, settings_of, values, arm, reference=reference)
        identity = point.trials[0].identity
        if identity not in known:
            known[identity] = point
            points.append(point)
        place[tuple(values.values())] = known[identity]
    for axis, found in config.over.items():
        if axis in ESTIMATOR_AXES and all(point.values[axis] is None for point in points):
            kinds = sorted({point.trials[0].arm.target.kind for point in points})
            raise BadInput(
                f"axis {axis} = {list(found)} has no effect on estimators of kind {kinds}; leave "
                "it out, or sweep another arm with --estimator"
            )
    return Space(tuple(exact.values()), tuple(points), config.over, place)


def products(axes: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of one value per axis."""
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def make_point(
    config: SweepConfig,
    origin: Origin,
    settings_of: SettingsOf,
    values: Mapping[str, Any],
    arm: str,
    *,
    reference: Point | None = None,
) -> Point:
    """Apply the values to the preset; settings that the estimator does not read are reset."""
    nested = arm_of(settings_of(config.changes), arm)
    place = f"estimators.{arm}" + ("" if nested.target is nested else ".target")
    changes = list(config.changes)
    for axis, value in values.items():
        if axis == "estimator":
            continue
        key = f"{place}.{axis}" if axis in ESTIMATOR_AXES else axis
        changes.append(f"{key}={json.dumps(value)}")
    settings = settings_of(changes)
    found = settings.estimators[arm]
    check(found.target, arm)
    spec = only_used(found.target)
    found = spec if found.target is found else dataclasses.replace(found, target=spec)
    settings = dataclasses.replace(settings, estimators={**settings.estimators, arm: found})
    kept = {
        axis: values[axis] if axis in values and matters(axis, spec) else None
        for axis in config.over
    }
    partners = [None] * len(config.seeds) if reference is None else reference.trials
    trials = tuple(
        Trial(origin, for_one_run(settings, arm, seed), arm, seed, kept, partner)
        for seed, partner in zip(config.seeds, partners, strict=True)
    )
    return Point(kept, trials)


def arm_of(settings: Any, name: str) -> Any:
    """Entry of `estimators`, or a refusal that names those that exist."""
    if name not in settings.estimators:
        raise BadInput(
            f"expected an estimator of the preset among {sorted(settings.estimators)}, got {name!r}"
        )
    return settings.estimators[name]


def for_one_run(settings: Any, arm: str, seed: int) -> Any:
    """Settings of a single arm and seed; the toy's name arms and seeds themselves."""
    if not hasattr(settings, "seeds"):
        return settings
    return dataclasses.replace(
        settings,
        estimators={arm: settings.estimators[arm]},
        augmented=tuple(name for name in settings.augmented if name == arm),
        seeds=(seed,),
    )
