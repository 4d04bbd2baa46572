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

__all__ = ["WrappedNormalKernel", "images_needed", "score_power", "sum_images", "wrapped_normal"]

LOG_SQRT_2_PI = 0.5 * math.log(2 * math.pi)

IMAGES = ((1, 0.18), (2, 0.31), (3, 0.44), (4, 0.57))
"""Images |k| <= K and the largest sigma at which they leave out less than 1e-13."""

SMALLEST = -80.0
"""Exponents below it count as it, 2e-35 of the nearest image: where exp underflows it is ten to
twenty times slower."""

BLOCK = 2**15
"""Coordinates of `by_rows` evaluated at once on a CPU."""


def images_needed(sigma: float) -> int:
    """Smallest K whose images |k| <= K leave out less than 1e-13 of a wrapped normal."""
    return next((count for count, limit in IMAGES if sigma <= limit), math.ceil(8 * sigma))


def sum_images(z: Tensor, rate: Tensor, images: int) -> tuple[Tensor, Tensor]:
    """Sum over |k| <= images of w_k and k w_k, w_k = exp(-k (k/2 + z) rate), w_0 = 1.

    Images are taken relative to the nearest one: w_k is at most 1 for |z| <= 1/2, so nothing
    overflows and no density underflows.
    """
    total, moment = torch.ones_like(z), torch.zeros_like(z)
    for k in range(1, images + 1):
        after = torch.exp(((z + 0.5 * k) * (-k * rate)).clamp(min=SMALLEST))
        before = torch.exp(((z - 0.5 * k) * (k * rate)).clamp(min=SMALLEST))
        total = total + after + before
        moment = torch.add(moment, after - before, alpha=k)
    return total, moment


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
    if sigma.is_cuda or sigma.numel() == 0:
        images = IMAGES[-1][0]
    else:
        images = images_needed(float(sigma.detach().amax()))
    rate = 1.0 / sigma**2
    total, moment = sum_images(z, rate, images)
    score = -(z + moment / total) * rate
    log_density = torch.log(total) - 0.5 * z * z * rate - torch.log(sigma) - LOG_SQRT_2_PI
    return log_density, score


def by_rows(difference: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """`wrapped_normal` with one sigma per leading row, in blocks of rows of like sigma.

    Rows of a small sigma need few images, and a block's tensors stay in a core's cache.
    """
    shape = (-1, *[1] * (difference.ndim - 1))
    if difference.numel() <= BLOCK:
        return wrapped_normal(difference, sigma.reshape(shape))
    log_density, score = torch.empty_like(difference), torch.empty_like(difference)
    for rows in torch.argsort(sigma).split(max(1, BLOCK // difference[0].numel())):
        found = wrapped_normal(difference[rows], sigma[rows].reshape(shape))
        log_density[rows], score[rows] = found
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

    def _evaluate(self, x_t: Points, x_0: Points, t: PerSample) -> tuple[Tensor, Tensor]:
        """Log density and score of each coordinate."""
        difference = x_t - x_0
        sigma = self.schedule(t).sigma.to(difference.dtype)
        rows = len(difference) if difference.ndim > 2 else 0
        if sigma.is_cuda or sigma.requires_grad or difference.requires_grad or not rows:
            return wrapped_normal(difference, expand(sigma))
        if sigma.numel() == rows and len(sigma) == rows:
            return by_rows(difference, sigma.reshape(rows))
        return wrapped_normal(difference, expand(sigma))

    def log_prob_per_axis(
        self, x_t: Points, x_0: Points, t: PerSample, *, mask: Mask | None = None
    ) -> Tensor:
        """Log density of each axis, summed over real atoms, (..., D)."""
        log_density, _ = self._evaluate(x_t, x_0, t)
        return _sum_atoms(log_density, mask)

    def log_prob_and_target(
        self,
        x_t: Points,
        x_0: Points,
        t: PerSample,
        parametrization: Parametrization,
        *,
        mask: Mask | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`log_prob_per_axis` and `target` from one evaluation."""
        _check_score(parametrization)
        log_density, score = self._evaluate(x_t, x_0, t)
        return _sum_atoms(log_density, mask), score

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
        _check_score(parametrization)
        return self._evaluate(x_t, x_0, t)[1]

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


def _sum_atoms(value: Tensor, mask: Tensor | None) -> Tensor:
    return value.sum(-2) if mask is None else (value * mask[..., None]).sum(-2)


def _check_score(parametrization: Parametrization) -> None:
    if parametrization is not Parametrization.SCORE:
        raise BadInput(f"a wrapped normal kernel has a score only, not {parametrization.value}")
