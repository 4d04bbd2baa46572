"""Isotropic Gaussian kernel x_t = alpha x_0 + sigma eps."""

import math
from typing import Any, final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.base import Group, LinearIsometry
from orbitdiff.groups.rotation import O3, SO3
from orbitdiff.kernels.base import (
    Density,
    Noised,
    NoiseKernel,
    Parametrization,
    expand,
    normal_like,
)
from orbitdiff.kernels.schedule import Schedule, SmoothSchedule
from orbitdiff.typing import Mask, PerSample, Points, Tensor

__all__ = ["GaussianKernel"]


@final
class GaussianKernel(NoiseKernel):
    """p(x_t | x_0) = N(alpha x_0, sigma^2 I), with alpha and sigma of the schedule at t.

    Parameters
    ----------
    schedule : Schedule
        `CosineVP` for DDPM, `LinearSigma` for the toy, `GeometricSigma` for variance exploding,
        `ScaledPath` for flow matching.
    centred : bool
        Noise without its mean over the real atoms, for data that are centred: x_t has the density
        in the 3(n - 1) dimensions of centred points, in which a mean over rotations is the same.

    Notes
    -----
    x_0 = (x_t - sigma eps) / alpha, score = (alpha x_0 - x_t) / sigma^2 = -eps / sigma,
    velocity = d x_t / dt = alpha' x_0 + sigma' eps where the schedule is smooth.
    """

    density = Density.ISOTROPIC_GAUSSIAN

    def __init__(self, schedule: Schedule, *, centred: bool = False) -> None:
        self.schedule = schedule
        self.centred = centred
        self.invariant_under: tuple[type[Group], ...] = (SO3, O3) if centred else (LinearIsometry,)

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
        if self.centred:
            noise = without_mean(noise, mask)
        elif mask is not None:
            noise = noise * mask[..., None]
        return Noised(expand(alpha) * x_0 + expand(sigma) * noise, noise)

    def log_prob(
        self, x_t: Points, x_0: Points, t: PerSample, *, mask: Mask | None = None
    ) -> PerSample:
        """-|x_t - alpha x_0|^2 / (2 sigma^2) - (d/2) log(2 pi sigma^2), d = real coordinates.

        Centred: of the difference without its mean, and d = 3(n - 1).
        """
        alpha, sigma = self.schedule(t)
        difference = x_t - expand(alpha) * x_0
        if self.centred:
            difference = without_mean(difference, mask)
        density = -0.5 * (difference / expand(sigma)) ** 2
        density = density - expand(torch.log(sigma)) - 0.5 * math.log(2 * math.pi)
        if mask is not None:
            density = density * mask[..., None]
        found = density.sum((-2, -1))
        return found - self.log_density_of_mean(t, x_t.shape[-1]) if self.centred else found

    def log_density_of_mean(self, t: PerSample, dim: int) -> PerSample:
        """What noise with its mean adds to the log density of centred points, (...,).

        Parameters
        ----------
        t : (...,)
        dim : int
            D, the dimension of space.
        """
        return -0.5 * dim * torch.log(2 * math.pi * self.schedule(t).sigma ** 2)

    def target(
        self,
        x_t: Points,
        x_0: Points,
        t: PerSample,
        parametrization: Parametrization,
        *,
        noise: Points | None = None,
    ) -> Tensor:
        """Training target given the true x_0, a function of (x_t, x_0, t) alone.

        `noise` spares the velocity the division by sigma.
        """
        if parametrization is Parametrization.VELOCITY and noise is not None:
            rise, gain = self._slope(t)
            return rise * x_0 + gain * noise
        return self.convert(x_0, Parametrization.DATA, parametrization, x_t, t)

    def convert(
        self, value: Points, src: Parametrization, dst: Parametrization, x_t: Points, t: PerSample
    ) -> Tensor:
        """Convert between DATA, NOISE, SCORE and VELOCITY through x_t = alpha x_0 + sigma eps."""
        alpha, sigma = (expand(part) for part in self.schedule(t))
        if src is dst:
            return value
        if Parametrization.VELOCITY in (src, dst):
            return self._convert_velocity(value, src, dst, x_t, t)
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

    def _convert_velocity(
        self, value: Points, src: Parametrization, dst: Parametrization, x_t: Points, t: PerSample
    ) -> Tensor:
        """Solve x_t = alpha x_0 + sigma eps and v = alpha' x_0 + sigma' eps for what is unknown."""
        alpha, sigma = (expand(part) for part in self.schedule(t))
        rise, gain = self._slope(t)
        if dst is Parametrization.VELOCITY:
            data = self.convert(value, src, Parametrization.DATA, x_t, t)
            return rise * data + gain * self.convert(value, src, Parametrization.NOISE, x_t, t)
        width = alpha * gain - sigma * rise
        if dst is Parametrization.DATA:
            return (gain * x_t - sigma * value) / width
        noise = (alpha * value - rise * x_t) / width
        return noise if dst is Parametrization.NOISE else -noise / sigma

    def _slope(self, t: PerSample) -> tuple[Tensor, Tensor]:
        """Return alpha' and sigma' with axes of atoms and space."""
        if not isinstance(self.schedule, SmoothSchedule):
            raise BadInput(
                f"a velocity needs a schedule with slopes, such as ScaledPath; "
                f"{type(self.schedule).__name__} has none"
            )
        rise, gain = self.schedule.slope(t)
        return expand(rise), expand(gain)

    def prior(self, shape: tuple[int, ...], *, generator: torch.Generator | None = None) -> Tensor:
        """Draw x_1 from N(0, sigma(1)^2 I), without its mean where centred."""
        sigma = self.schedule(torch.ones(())).sigma
        drawn = torch.randn(shape, generator=generator)
        return sigma * (without_mean(drawn, None) if self.centred else drawn)


def without_mean(x: Points, mask: Mask | None) -> Tensor:
    """Points without the mean over the real atoms, zero in padding."""
    if mask is None:
        return x - x.mean(-2, keepdim=True)
    real = mask[..., None].to(x.dtype)
    mean = (x * real).sum(-2, keepdim=True) / real.sum(-2, keepdim=True).clamp(min=1)
    return (x - mean) * real
