"""The numbers of a diagnosis: what the average removes, and error, ESS and cost of estimators."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

import torch

from orbitdiff.diagnosis.noise import Level
from orbitdiff.diagnosis.problem import Problem
from orbitdiff.orbit.base import OrbitContext, OrbitEstimator, OrbitTarget
from orbitdiff.orbit.plain import PlainTarget
from orbitdiff.seeding import stream
from orbitdiff.typing import Tensor

__all__ = ["COUNTS", "LevelResult", "Row", "counts_of", "measure_level"]

COUNTS = (16, 64, 256, 1000, 10_000)
"""K, elements of sampled estimators."""
WORK = 2**20
"""Elements (times points, where clouds are transformed) of one call of a sampled estimator."""
REPEATS = 3
"""Times that a level is drawn and measured anew; the cost is the least of them."""


@final
@dataclass(frozen=True)
class Row:
    """One estimator at one noise level.

    Parameters
    ----------
    estimator : str
    num_samples : int or None
        K of sampled estimators.
    samples : int
        Noised samples it was measured on.
    error : float
        rms |T - T*| / rms |T_plain|, T* the exact mean.
    worse_than_plain : float
        Share of samples that it takes further away from T* than T_plain is.
    ess_median, ess_tenth : float or None
        Effective number of elements: median and 10 % quantile over samples.
    microseconds : float
        Per sample, least of the repeats.
    """

    estimator: str
    num_samples: int | None
    samples: int
    error: float
    worse_than_plain: float
    ess_median: float | None
    ess_tenth: float | None
    microseconds: float


@final
@dataclass(frozen=True)
class LevelResult:
    """One noise level.

    Parameters
    ----------
    level : Level
    share : float
        E|T_plain - T*|^2 / E|T_plain|^2, the share of the target's power that is symmetry noise.
    rows : tuple of Row
    """

    level: Level
    share: float
    rows: tuple[Row, ...]


def counts_of(problem: Problem) -> tuple[int, ...]:
    """Numbers of elements that are measured: those that one sample can take in a call or four."""
    work = problem.arms.work(problem.x_0.shape[1])
    fitting = tuple(count for count in COUNTS if count * work <= 4 * WORK)
    return fitting or COUNTS[:1]


def measure_level(problem: Problem, index: int, *, seed: int = 0) -> LevelResult:
    """Draw x_t at one level and run all estimators on it, in turn.

    Parameters
    ----------
    problem : Problem
    index : int
        Of the level.
    seed : int
        With the index it names the random streams: the order of levels does not matter.

    Returns
    -------
    LevelResult
    """
    level = problem.levels[index]
    trials = list(_trials(problem))
    parts: list[list[_Part]] = [[] for _ in trials]
    kernel = problem.noise.kernel_of(len(problem.x_0))
    for repeat in range(REPEATS):
        generator = stream(seed, "diagnose", index, repeat)
        t = torch.full((len(problem.x_0),), level.t, dtype=problem.x_0.dtype)
        noised = kernel.sample(problem.x_0, t, mask=problem.mask, generator=generator)
        targets, seconds = [], []
        for trial in trials:
            rows = slice(trial.rows)
            start = time.perf_counter()
            target = trial.estimator(
                noised.x_t[rows],
                problem.x_0[rows],
                t[rows],
                context=trial.context,
                noise=noised.noise[rows],
                mask=problem.mask[rows],
                generator=generator,
            )
            seconds.append(time.perf_counter() - start)
            targets.append(target)
        exact, plain = (target.value.double() for target in targets[:2])
        for found, target, spent in zip(parts, targets, seconds, strict=True):
            found.append(_part(target, plain, exact, spent))
    rows_found = tuple(_row(trial, part) for trial, part in zip(trials, parts, strict=True))
    share = rows_found[1].error ** 2
    return LevelResult(level, share, rows_found)


@dataclass(frozen=True)
class _Trial:
    """One estimator on the first samples."""

    name: str
    estimator: OrbitEstimator
    rows: int
    context: OrbitContext | None = None
    num_samples: int | None = None


@dataclass(frozen=True)
class _Part:
    """One call: squared distances to T* of the estimator and of T_plain, and |T_plain|^2, (B,)."""

    error: Tensor
    plain_error: Tensor
    power: Tensor
    ess: Tensor | None
    seconds: float


def _trials(problem: Problem) -> Iterator[_Trial]:
    """Yield exact, plain, and sampled estimators with ever more elements on ever fewer samples."""
    arms, rows = problem.arms, len(problem.x_0)
    kernel = problem.noise.kernel_of(rows)
    yield _Trial("exact", arms.exact(kernel), rows, problem.context)
    yield _Trial("plain", PlainTarget(kernel, parametrization=arms.parametrization), rows)
    for name, estimator in arms.partial(kernel).items():
        yield _Trial(name, estimator, rows)
    work = arms.work(problem.x_0.shape[1])
    for count in counts_of(problem):
        few = max(1, min(rows, WORK // (count * work)))
        kernel = problem.noise.kernel_of(few)
        for name, estimator in arms.sampled(kernel, count).items():
            yield _Trial(name, estimator, few, num_samples=count)


def _part(target: OrbitTarget, plain: Tensor, exact: Tensor, seconds: float) -> _Part:
    """Compare a target of the first samples with those of all."""
    value = target.value.double()
    plain, exact = plain[: len(value)], exact[: len(value)]

    def square(x: Tensor) -> Tensor:
        return x.square().flatten(1).sum(1)

    return _Part(
        square(value - exact),
        square(plain - exact),
        square(plain),
        target.info.ess,
        seconds,
    )


def _row(trial: _Trial, parts: list[_Part]) -> Row:
    """Put the repeats of one estimator together."""
    error = torch.cat([part.error for part in parts])
    plain_error = torch.cat([part.plain_error for part in parts])
    power = torch.cat([part.power for part in parts])
    row = Row(
        trial.name,
        trial.num_samples,
        len(error),
        float((error.sum() / power.sum()).sqrt()),
        float((error > plain_error).double().mean()),
        None,
        None,
        1e6 * min(part.seconds for part in parts) / trial.rows,
    )
    if trial.num_samples is None:
        return row
    ess = torch.cat([part.ess for part in parts if part.ess is not None]).double()
    return replace(row, ess_median=float(ess.median()), ess_tenth=float(ess.quantile(0.1)))
