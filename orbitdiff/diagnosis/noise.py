"""Noise kernels by the names of the command line, each with its levels and its times."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.kernels.base import NoiseKernel
from orbitdiff.kernels.gaussian import GaussianKernel
from orbitdiff.kernels.harmonic import HarmonicKernel
from orbitdiff.kernels.harmonic_prior import HarmonicPrior
from orbitdiff.kernels.schedule import GeometricSigma, LinearSigma, ScaledPath
from orbitdiff.kernels.wrapped_normal import WrappedNormalKernel
from orbitdiff.typing import Bool, Mask, Tensor

__all__ = [
    "Level",
    "Noise",
    "flow",
    "gaussian",
    "harmonic",
    "levels_between",
    "variance_preserving",
    "wrapped_normal",
]

ANGSTROM = "noise level σ / α (Å)"


@final
@dataclass(frozen=True)
class Level:
    """One noise level.

    Parameters
    ----------
    noise : float
        What `Noise.label` says.
    t : float
        Time, 0 for data and 1 for noise.
    weight : float
        Share of training steps near this level, for t uniform between the ends.
    """

    noise: float
    t: float
    weight: float


class Noise(NamedTuple):
    """A kernel whose levels are known by one number.

    Attributes
    ----------
    label : what the number is, with its unit
    unit : to write after a number, with a space before it
    kernel_of : the kernel of the first so many samples
    time_of : levels (L,) to times (L,)
    """

    label: str
    unit: str
    kernel_of: Callable[[int], NoiseKernel]
    time_of: Callable[[Tensor], Tensor]


def gaussian(low: float, high: float) -> Noise:
    """Variance exploding: x_t = x_0 + sigma eps, log sigma uniform over time."""
    kernel = GaussianKernel(GeometricSigma(low, high))
    return Noise("noise level σ (Å)", " Å", lambda rows: kernel, _geometric(low, high))


def wrapped_normal(low: float, high: float) -> Noise:
    """Fractional coordinates on the torus, log sigma uniform over time."""
    kernel = WrappedNormalKernel(GeometricSigma(low, high))
    label = "noise level σ (fractions of a period)"
    return Noise(label, " of a period", lambda rows: kernel, _geometric(low, high))


def _geometric(low: float, high: float) -> Callable[[Tensor], Tensor]:
    start, span = torch.tensor(low).log(), torch.tensor(high / low).log()
    return lambda levels: ((levels.log() - start) / span).clamp(0, 1)


def flow(scale: float) -> Noise:
    """Flow matching from a normal prior: sigma / alpha = scale t / (1 - t)."""
    kernel = GaussianKernel(ScaledPath(scale))
    return Noise(ANGSTROM, " Å", lambda rows: kernel, lambda levels: levels / (scale + levels))


def harmonic(adjacency: Bool[Tensor, "B N N"], mask: Mask) -> Noise:
    """Flow matching from the harmonic prior: sigma / alpha = g t / (1 - t), g the prior's rms.

    Parameters
    ----------
    adjacency : (B, N, N) bool
        Bonds of each sample; springs of stiffness 1 / angstrom^2.
    mask : (B, N) bool
    """

    @lru_cache(maxsize=8)
    def kernel_of(rows: int) -> NoiseKernel:
        return HarmonicKernel(HarmonicPrior.from_bonds(adjacency[:rows], mask=mask[:rows]))

    kernel = kernel_of(len(mask))
    assert isinstance(kernel, HarmonicKernel)  # made above
    size = float((kernel.harmonic.variances.sum() / mask.sum()).sqrt())
    return Noise(ANGSTROM, " Å", kernel_of, lambda levels: levels / (size + levels))


def variance_preserving(low: float, high: float) -> Noise:
    """The toy: x_t = sqrt(1 - sigma^2) x_0 + sigma eps, sigma uniform over time."""
    kernel = GaussianKernel(LinearSigma(low, high))
    label = "noise level σ (data at ±1)"
    return Noise(label, "", lambda rows: kernel, lambda levels: (levels - low) / (high - low))


def levels_between(noise: Noise, low: float, high: float, num: int) -> tuple[Level, ...]:
    """Levels from low to high, evenly spaced in the logarithm.

    Parameters
    ----------
    noise : Noise
    low, high : float
    num : int
        At least 2.

    Raises
    ------
    BadInput
        A range that is empty, not positive or not finite; fewer than two levels.
    """
    if not 0 < low < high < float("inf"):
        raise BadInput(f"expected 0 < sigma-min < sigma-max, got {low} and {high}")
    if num < 2:
        raise BadInput(f"expected at least 2 noise levels, got {num}")
    ends = torch.tensor([low, high], dtype=torch.float64).log()
    values = torch.linspace(float(ends[0]), float(ends[1]), num, dtype=torch.float64).exp()
    times = noise.time_of(values)
    weights = _trapezoid(times.tolist())
    return tuple(
        Level(value, t, weight)
        for value, t, weight in zip(values.tolist(), times.tolist(), weights, strict=True)
    )


def _trapezoid(times: Sequence[float]) -> list[float]:
    """Weights of the trapezoid rule over increasing times, summing to one."""
    span = times[-1] - times[0]
    padded = [times[0], *times, times[-1]]
    return [(padded[i + 2] - padded[i]) / (2 * span) for i in range(len(times))]
