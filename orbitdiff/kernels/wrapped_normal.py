"""Wrapped normal kernel on the unit torus: x_t = (x_0 + sigma eps) mod 1."""

import math
from functools import lru_cache
from typing import Any, final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.base import Group
from orbitdiff.groups.torus import TorusTranslation, wrap
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

__all__ = ["WrappedNormalKernel", "score_power", "wrapped_normal"]

IMAGES = 4
"""Images |k| <= 4: relative error below 1e-16 for sigma <= 0.53 after wrapping to [-1/2, 1/2]."""


def wrapped_normal(difference: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Log density and score of WN(difference; sigma) of period 1, elementwise.

    log WN(z) = log sum_k N(z + k; 0, sigma^2), score = d log WN / dz.

    Parameters
    ----------
    difference : tensor
        z, any real representative.
    sigma : tensor
        Standard deviation, broadcasting with `difference`.

    Returns
    -------
    tuple of tensors
        Log density and score.
    """
    z = wrap(difference)
    k = torch.arange(-IMAGES, IMAGES + 1, dtype=z.dtype, device=z.device)
    images = z[..., None] + k
    logits = -0.5 * (images / sigma[..., None]) ** 2
    score = -(torch.softmax(logits, -1) * images).sum(-1) / sigma**2
    log_density = torch.logsumexp(logits, -1) - torch.log(sigma) - 0.5 * math.log(2 * math.pi)
    return log_density, score


LOG_SIGMA_MIN, LOG_SIGMA_MAX, NODES = math.log(1e-3), math.log(4.0), 513


@lru_cache(maxsize=8)
def _power_table(device: torch.device) -> Tensor:
    """sigma^2 E[score^2] on a grid uniform in log sigma, by the midpoint rule over a period."""
    sigma = torch.linspace(LOG_SIGMA_MIN, LOG_SIGMA_MAX, NODES, dtype=torch.float64).exp()
    half_width = torch.clamp(12 * sigma, max=0.5)
    midpoints = (torch.arange(512, dtype=torch.float64) + 0.5) / 256 - 1
    z = midpoints[:, None] * half_width
    log_density, score = wrapped_normal(z, sigma.expand_as(z))
    power = (log_density.exp() * score**2).mean(0) * 2 * half_width
    return (power * sigma**2).to(device)


def score_power(sigma: PerSample) -> PerSample:
    """E[score^2] of one coordinate under WN(sigma), by quadrature (1/sigma^2 for small sigma).

    The loss of every estimator is divided by this same number, so that losses are comparable.

    Parameters
    ----------
    sigma : tensor
        Noise level, period 1, between 0.001 and 4.
    """
    table = _power_table(sigma.device)
    step = (LOG_SIGMA_MAX - LOG_SIGMA_MIN) / (NODES - 1)
    position = ((torch.log(sigma.double()) - LOG_SIGMA_MIN) / step).clamp(0, NODES - 1.001)
    index = position.long()
    scaled = torch.lerp(table[index], table[index + 1], position - index)
    return scaled.to(sigma.dtype) / sigma**2


@final
class WrappedNormalKernel(NoiseKernel):
    """p(x_t | x_0) = prod over atoms and axes of WN(x_t - x_0; sigma), period 1.

    Parameters
    ----------
    schedule : Schedule
        alpha must be 1; sigma(t) in fractional units, at most 0.5.

    Notes
    -----
    The kernel factorises over axes, hence `log_prob_per_axis` has one block per axis.
    The score is the gradient of the log density; DiffCSP trains on its negative.
    """

    invariant_under: tuple[type[Group], ...] = (TorusTranslation,)
    density = Density.WRAPPED_NORMAL

    def __init__(self, schedule: Schedule) -> None:
        alpha, sigma = schedule(torch.linspace(0, 1, 11, dtype=torch.float64))
        if bool((alpha != 1).any()):
            raise BadInput("a wrapped normal kernel needs alpha = 1; take GeometricSigma")
        if float(sigma.max()) > 0.53:
            raise BadInput(f"sigma is at most 0.53 of a period, got {float(sigma.max()):.3g}")
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
        sigma = expand(self.schedule(t).sigma)
        noise = normal_like(x_0, generator)
        x_t = torch.remainder(x_0 + sigma * noise, 1.0)
        if mask is not None:
            x_t, noise = x_t * mask[..., None], noise * mask[..., None]
        return Noised(x_t, noise)

    def log_prob_per_axis(
        self, x_t: Points, x_0: Points, t: PerSample, *, mask: Mask | None = None
    ) -> Tensor:
        """Log density of each axis, summed over real atoms, (..., D)."""
        sigma = expand(self.schedule(t).sigma).to(x_t.dtype)
        difference = x_t - x_0
        log_density, _ = wrapped_normal(difference, sigma.expand_as(difference))
        if mask is not None:
            log_density = log_density * mask[..., None]
        return log_density.sum(-2)

    def log_prob(
        self, x_t: Points, x_0: Points, t: PerSample, *, mask: Mask | None = None
    ) -> PerSample:
        """Log density summed over real atoms and axes."""
        return self.log_prob_per_axis(x_t, x_0, t, mask=mask).sum(-1)

    def target(
        self,
        x_t: Points,
        x_0: Points,
        t: PerSample,
        parametrization: Parametrization,
        *,
        noise: Points | None = None,
    ) -> Tensor:
        """Score d log p(x_t | x_0) / d x_t, (..., N, D)."""
        if parametrization is not Parametrization.SCORE:
            raise BadInput(f"a wrapped normal kernel has a score only, not {parametrization.value}")
        difference = x_t - x_0
        sigma = expand(self.schedule(t).sigma).to(x_t.dtype).expand_as(difference)
        return wrapped_normal(difference, sigma)[1]

    def convert(
        self, value: Points, src: Parametrization, dst: Parametrization, x_t: Points, t: PerSample
    ) -> Tensor:
        """Return `value`; only the score exists on the torus."""
        if src is not Parametrization.SCORE or dst is not Parametrization.SCORE:
            raise BadInput("a wrapped normal kernel has a score only")
        return value

    def prior(self, shape: tuple[int, ...], *, generator: torch.Generator | None = None) -> Tensor:
        """Draw x_1 uniformly on the torus."""
        return torch.rand(shape, generator=generator)
