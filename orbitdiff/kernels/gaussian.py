"""Isotropic Gaussian kernel x_t = alpha x_0 + sigma eps."""

import math
from typing import Any, final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.base import Group, LinearIsometry
from orbitdiff.kernels.base import (
    Density,
    Noised,
    NoiseKernel,
    Parametrization,
    expand,
    normal_like,
)
from orbitdiff.kernels.schedule import Schedule
from orbitdiff.typing import Mask, PerSample, Points, Tensor

__all__ = ["GaussianKernel"]


@final
class GaussianKernel(NoiseKernel):
    """p(x_t | x_0) = N(alpha x_0, sigma^2 I), with alpha and sigma of the schedule at t.

    Parameters
    ----------
    schedule : Schedule
        `CosineVP` for DDPM, `LinearSigma` for the toy, `GeometricSigma` for variance exploding.

    Notes
    -----
    x_0 = (x_t - sigma eps) / alpha, score = (alpha x_0 - x_t) / sigma^2 = -eps / sigma.
    """

    invariant_under: tuple[type[Group], ...] = (LinearIsometry,)
    density = Density.ISOTROPIC_GAUSSIAN

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def sample(
        self,
        x_0: Points,
        t: PerSample,
        *,
        context: Any = None,
        mask: Mask | None = None,
        generator: torch.Generator | None = None,
    ) -> Noised:
        """Draw x_t given x_0."""
        alpha, sigma = self.schedule(t)
        noise = normal_like(x_0, generator)
        if mask is not None:
            noise = noise * mask[..., None]
        return Noised(expand(alpha) * x_0 + expand(sigma) * noise, noise)

    def log_prob(
        self, x_t: Points, x_0: Points, t: PerSample, *, mask: Mask | None = None
    ) -> PerSample:
        """-|x_t - alpha x_0|^2 / (2 sigma^2) - (d/2) log(2 pi sigma^2), d = real coordinates."""
        alpha, sigma = self.schedule(t)
        density = -0.5 * ((x_t - expand(alpha) * x_0) / expand(sigma)) ** 2
        density = density - expand(torch.log(sigma)) - 0.5 * math.log(2 * math.pi)
        if mask is not None:
            density = density * mask[..., None]
        return density.sum((-2, -1))

    def target(
        self,
        x_t: Points,
        x_0: Points,
        t: PerSample,
        parametrization: Parametrization,
        *,
        noise: Points | None = None,
    ) -> Tensor:
        """Training target given the true x_0, a function of (x_t, x_0, t) alone."""
        return self.convert(x_0, Parametrization.DATA, parametrization, x_t, t)

    def convert(
        self, value: Points, src: Parametrization, dst: Parametrization, x_t: Points, t: PerSample
    ) -> Tensor:
        """Convert between DATA, NOISE and SCORE through x_t = alpha x_0 + sigma eps."""
        alpha, sigma = (expand(part) for part in self.schedule(t))
        if src is dst:
            return value
        match src:
            case Parametrization.DATA:
                noise = (x_t - alpha * value) / sigma
            case Parametrization.NOISE:
                noise = value
            case Parametrization.SCORE:
                noise = -sigma * value
            case _:
                raise BadInput(f"GaussianKernel has no {src.value} parametrization")
        match dst:
            case Parametrization.DATA:
                return (x_t - sigma * noise) / alpha
            case Parametrization.NOISE:
                return noise
            case Parametrization.SCORE:
                return -noise / sigma
            case _:
                raise BadInput(f"GaussianKernel has no {dst.value} parametrization")

    def prior(self, shape: tuple[int, ...], *, generator: torch.Generator | None = None) -> Tensor:
        """Draw x_1 from N(0, sigma(1)^2 I)."""
        sigma = self.schedule(torch.ones(())).sigma
        return sigma * torch.randn(shape, generator=generator)
