"""The straight interpolant of flow matching, with a Brownian bridge around it."""

from dataclasses import dataclass
from typing import final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.kernels.base import Noised, expand
from orbitdiff.kernels.schedule import ScheduleValue
from orbitdiff.typing import PerSample, Points, Tensor

__all__ = ["Interpolant"]


@final
@dataclass(frozen=True)
class Interpolant:
    """x_t = (1 - t) x_0 + t y + s_t eps with y a prior sample, s_t = sigma sqrt(t (1 - t)).

    Parameters
    ----------
    sigma : float
        Scale of the bridge, angstrom; zero for a straight line (published: 0.1).
    """

    sigma: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma < float("inf"):
            raise BadInput(f"expected a finite bridge sigma >= 0, got {self.sigma}")

    def __call__(self, t: PerSample) -> ScheduleValue:
        """Return the scales 1 - t of the data and t of the prior sample."""
        return ScheduleValue(1.0 - t, t)

    def mix(self, x_0: Points, prior: Points, eps: Points, t: PerSample) -> Noised:
        """Return x_t and, as its noise, y + s_t' eps, so that d x_t / dt = noise - x_0.

        With sigma > 0 the slope of the bridge is infinite at t = 0 and t = 1.
        """
        alpha, scale = (expand(part) for part in self(t))
        x_t = alpha * x_0 + scale * prior
        if self.sigma == 0:
            return Noised(x_t, prior)
        bridge = self.sigma * torch.sqrt(scale * alpha)
        slope = 0.5 * self.sigma**2 * (1 - 2 * scale) / bridge
        return Noised(x_t + bridge * eps, prior + slope * eps)

    def prior_sample(self, x_t: Points, x_0: Points, noise: Points, t: PerSample) -> Tensor:
        """Return y of a draw of `mix`, given its noise; t in (0, 1)."""
        if self.sigma == 0:
            return noise
        alpha, scale = (expand(part) for part in self(t))
        # with r = t y + s_t eps and the noise y + s_t' eps: r - t noise = (s_t - t s_t') eps, and
        # s_t' / (s_t - t s_t') = (1 - 2t) / t
        rest = x_t - alpha * x_0 - scale * noise
        return noise - (1 - 2 * scale) / scale * rest

    def velocity_with(self, x_0: Points, x_t: Points, prior: Points, t: PerSample) -> Tensor:
        """Mean velocity at x_t of data x_0 that start from y = prior, the bridge's noise given.

        (1 - 2t) / (2t (1 - t)) x_t - x_0 / (2t) + y / (2 (1 - t)), which is noise - x_0 of the
        draw that made x_t; t in (0, 1).
        """
        time = expand(t)
        drift = (1 - 2 * time) / (2 * time * (1 - time)) * x_t
        return drift - x_0 / (2 * time) + prior / (2 * (1 - time))

    def variance(self, t: PerSample, prior_variance: Tensor) -> Tensor:
        """Variance of x_t given x_0 along a mode of the prior, t^2 var + s_t^2."""
        return t**2 * prior_variance + self.sigma**2 * t * (1 - t)

    def variance_slope(self, t: PerSample, prior_variance: Tensor) -> Tensor:
        """Derivative of `variance` with respect to t."""
        return 2 * t * prior_variance + self.sigma**2 * (1 - 2 * t)
