"""The velocity of which only the data end is averaged: an exact mean, the prior sample kept."""

from typing import final

import torch

from orbitdiff.errors import BadInput, IncompatibleKernel
from orbitdiff.groups.base import Group
from orbitdiff.groups.rotation import SO3
from orbitdiff.kernels.base import Density, NoiseKernel, Parametrization
from orbitdiff.kernels.harmonic import HarmonicKernel
from orbitdiff.orbit.automorphism_orbit import AutomorphismOrbit
from orbitdiff.orbit.base import OrbitContext, OrbitEstimator, OrbitTarget
from orbitdiff.typing import Mask, PerSample, Points

__all__ = ["KeptPriorOrbit"]


@final
class KeptPriorOrbit(OrbitEstimator):
    """(1 - 2t) / (2t (1 - t)) x_t - E[x_0 | x_t] / (2t) + y / (2 (1 - t)), over SO(3) x Aut.

    The published form of the velocity with the exact mean of the data in it, for comparison with
    `AutomorphismOrbit`, whose velocity averages the prior sample y as well.

    Parameters
    ----------
    kernel : NoiseKernel
        `HarmonicKernel`.
    parametrization : Parametrization
        VELOCITY: the other targets hold no prior sample.

    Raises
    ------
    IncompatibleKernel
        Another kernel.
    BadInput
        Another parametrization.

    Notes
    -----
    Unbiased; but y is tied to the rotation given x_t: without a bridge the value is half way from
    the drawn velocity to the mean one, so that a quarter of its variance stays. Without the noise
    of the draw y is its mean given x_t and x_0, the same where there is no bridge.

    References
    ----------
    arXiv 2502.09890, code of the conformers (folder IEF), for the form.
    """

    group: type[Group] | None = SO3
    densities = (Density.ATOM_COVARIANCE_GAUSSIAN,)
    exact = False
    unbiased = True

    def __init__(
        self, kernel: NoiseKernel, *, parametrization: Parametrization = Parametrization.VELOCITY
    ) -> None:
        if parametrization is not Parametrization.VELOCITY:
            raise BadInput(f"KeptPriorOrbit gives VELOCITY, not {parametrization.value}")
        self.check(kernel)
        assert isinstance(kernel, HarmonicKernel)  # checked
        self.kernel, self.path = kernel, kernel.schedule
        self.parametrization = parametrization
        self.data = AutomorphismOrbit(kernel, parametrization=Parametrization.DATA)

    def check(self, kernel: NoiseKernel) -> None:
        """Raise IncompatibleKernel unless x_t lies between a prior sample and the data."""
        super().check(kernel)
        if not isinstance(kernel, HarmonicKernel):
            raise IncompatibleKernel(
                f"KeptPriorOrbit needs HarmonicKernel, got {type(kernel).__name__}"
            )

    @torch.no_grad()
    def __call__(
        self,
        x_t: Points,
        x_0: Points,
        t: PerSample,
        *,
        context: OrbitContext | None = None,
        noise: Points | None = None,
        mask: Mask | None = None,
        generator: torch.Generator | None = None,
    ) -> OrbitTarget:
        """Return the target and the diagnostics of the mean; t in (0, 1)."""
        wide, points, time = x_t.double(), x_0.double(), t.double()
        mean, info = self.data(x_t, x_0, t, context=context, mask=mask, generator=generator)
        if noise is None:
            prior = self.kernel.mean_prior_sample(wide, points, time)
        else:
            prior = self.path.prior_sample(wide, points, noise.double(), time)
        value = self.path.velocity_with(mean.double(), wide, prior, time)
        if mask is not None:
            value = value * mask[..., None]
        return OrbitTarget(value.to(x_0.dtype), info)
