"""Noise schedules: alpha(t) and sigma(t) for t in [0, 1], t = 0 data and t = 1 noise."""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, final, runtime_checkable

import torch

from orbitdiff.errors import BadInput
from orbitdiff.typing import PerSample, Tensor

__all__ = [
    "CosineVP",
    "GeometricSigma",
    "LinearSigma",
    "ScaledPath",
    "Schedule",
    "ScheduleValue",
    "SmoothSchedule",
]


class ScheduleValue(NamedTuple):
    """Signal scale and noise standard deviation at one time, same shape as t."""

    alpha: Tensor
    sigma: Tensor


@runtime_checkable
class Schedule(Protocol):
    """A pair of functions (alpha, sigma) of t."""

    def __call__(self, t: PerSample) -> ScheduleValue:
        """Return alpha(t) and sigma(t)."""
        ...


@runtime_checkable
class SmoothSchedule(Schedule, Protocol):
    """A schedule with known slopes, which a velocity d x_t / dt needs."""

    def slope(self, t: PerSample) -> ScheduleValue:
        """Return alpha'(t) and sigma'(t)."""
        ...


@final
@dataclass(frozen=True)
class LinearSigma:
    """The toy's schedule: sigma linear in t, alpha = sqrt(1 - sigma^2).

    Parameters
    ----------
    sigma_min, sigma_max : float
        Noise level at t = 0 and t = 1 (published: 0.01 and 0.999).
    """

    sigma_min: float = 0.01
    sigma_max: float = 0.999

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < 1:
            raise BadInput(f"expected 0 < sigma_min < sigma_max < 1, got {self}")

    def __call__(self, t: PerSample) -> ScheduleValue:
        """Return alpha(t) and sigma(t)."""
        sigma = self.sigma_min + (self.sigma_max - self.sigma_min) * t
        return ScheduleValue(torch.sqrt(1.0 - sigma**2), sigma)


@final
@dataclass(frozen=True)
class CosineVP:
    """DDPM cosine schedule: alpha^2 = cos^2(pi/2 (t+s)/(1+s)) / cos^2(pi/2 s/(1+s)).

    Parameters
    ----------
    offset : float
        s of the formula (published: 0.008).
    alpha_min : float
        Floor of alpha, so that the score stays finite at t = 1.

    References
    ----------
    Nichol and Dhariwal 2021, equation 17.
    """

    offset: float = 0.008
    alpha_min: float = 1e-3

    def __call__(self, t: PerSample) -> ScheduleValue:
        """Return alpha(t) and sigma(t)."""
        angle = math.pi / 2 * (t + self.offset) / (1 + self.offset)
        scale = math.cos(math.pi / 2 * self.offset / (1 + self.offset))
        alpha = (torch.cos(angle) / scale).clamp(min=self.alpha_min, max=1.0)
        return ScheduleValue(alpha, torch.sqrt(torch.clamp(1.0 - alpha**2, min=1e-10)))


@final
@dataclass(frozen=True)
class GeometricSigma:
    """Variance-exploding schedule: alpha = 1, sigma = sigma_min (sigma_max/sigma_min)^t.

    Parameters
    ----------
    sigma_min, sigma_max : float
        Noise level at t = 0 and t = 1 (fractional coordinates; published: 0.005 and 0.5).
    """

    sigma_min: float = 0.005
    sigma_max: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise BadInput(f"expected 0 < sigma_min < sigma_max, got {self}")

    def __call__(self, t: PerSample) -> ScheduleValue:
        """Return alpha(t) = 1 and sigma(t)."""
        sigma = self.sigma_min * torch.exp(t * math.log(self.sigma_max / self.sigma_min))
        return ScheduleValue(torch.ones_like(sigma), sigma)


@final
@dataclass(frozen=True)
class ScaledPath:
    """x_t = (1 - t) x_0 + t scale eps: flow matching from a normal prior of this deviation.

    Parameters
    ----------
    scale : float
        Angstrom.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise BadInput(f"expected a positive, finite scale of the prior, got {self.scale}")

    def __call__(self, t: PerSample) -> ScheduleValue:
        """Return alpha = 1 - t and sigma = t scale."""
        return ScheduleValue(1.0 - t, self.scale * t)

    def slope(self, t: PerSample) -> ScheduleValue:
        """Return alpha' = -1 and sigma' = scale."""
        return ScheduleValue(-torch.ones_like(t), torch.full_like(t, self.scale))
