"""The interface of a noise kernel p(x_t | x_0), with the facts that estimators check."""

from abc import ABC, abstractmethod
from enum import Enum
from typing import Any, NamedTuple

import torch

from orbitdiff.groups.base import Group
from orbitdiff.kernels.schedule import Schedule
from orbitdiff.typing import Mask, PerSample, Points, Tensor

__all__ = ["Density", "NoiseKernel", "Noised", "Parametrization", "expand"]


class Parametrization(Enum):
    """What a denoiser predicts."""

    DATA = "data"
    NOISE = "noise"
    SCORE = "score"
    VELOCITY = "velocity"


class Density(Enum):
    """The family of p(x_t | x_0), as far as exact estimators use it."""

    ISOTROPIC_GAUSSIAN = "isotropic gaussian"
    ATOM_COVARIANCE_GAUSSIAN = "gaussian with a covariance over atoms"
    WRAPPED_NORMAL = "wrapped normal"
    CATEGORICAL = "categorical"


class Noised(NamedTuple):
    """A noised sample and the noise that made it (unit scale, shape of x_0)."""

    x_t: Tensor
    noise: Tensor


def expand(per_sample: PerSample) -> Tensor:
    """Append an atom and a space axis: (..., ) -> (..., 1, 1)."""
    return per_sample[..., None, None]


class NoiseKernel(ABC):
    """p(x_t | x_0) on points (..., N, D).

    Attributes
    ----------
    invariant_under : tuple of Group types
        Groups with p(g x_t | g x_0) = p(x_t | x_0); estimators refuse any other.
    density : Density or None
        Family of the density, None where there is none (a coupling that depends on x_0).
    schedule : Schedule
        alpha(t) and sigma(t).
    """

    invariant_under: tuple[type[Group], ...]
    density: Density | None
    schedule: Schedule

    @abstractmethod
    def sample(
        self,
        x_0: Points,
        t: PerSample,
        *,
        context: Any = None,
        mask: Mask | None = None,
        generator: torch.Generator | None = None,
    ) -> Noised:
        """Draw x_t given x_0; padding stays zero."""

    @abstractmethod
    def log_prob(
        self, x_t: Points, x_0: Points, t: PerSample, *, mask: Mask | None = None
    ) -> PerSample:
        """Log density of x_t given x_0, summed over real atoms and axes."""

    def log_prob_per_axis(
        self, x_t: Points, x_0: Points, t: PerSample, *, mask: Mask | None = None
    ) -> Tensor:
        """Log density by independent block (..., A); one block unless the kernel factorises."""
        return self.log_prob(x_t, x_0, t, mask=mask)[..., None]

    @abstractmethod
    def target(
        self,
        x_t: Points,
        x_0: Points,
        t: PerSample,
        parametrization: Parametrization,
        *,
        noise: Points | None = None,
    ) -> Tensor:
        """What a denoiser with this parametrization regresses on, given the true x_0."""

    def log_prob_and_target(
        self,
        x_t: Points,
        x_0: Points,
        t: PerSample,
        parametrization: Parametrization,
        *,
        mask: Mask | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`log_prob_per_axis` and `target` together, for kernels that share work."""
        log_prob = self.log_prob_per_axis(x_t, x_0, t, mask=mask)
        return log_prob, self.target(x_t, x_0, t, parametrization)

    @abstractmethod
    def convert(
        self, value: Points, src: Parametrization, dst: Parametrization, x_t: Points, t: PerSample
    ) -> Tensor:
        """Convert a prediction or target from one parametrization to another."""

    @abstractmethod
    def prior(self, shape: tuple[int, ...], *, generator: torch.Generator | None = None) -> Tensor:
        """Draw x_1, the noise that sampling starts from."""


def normal_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of the shape of x, drawn on the generator's device."""
    where = generator.device if generator is not None else x.device
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=where).to(x.device)
