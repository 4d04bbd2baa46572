"""No averaging: the target at the true x_0, the baseline of every comparison."""

from typing import final

import torch

from orbitdiff.kernels.base import NoiseKernel, Parametrization
from orbitdiff.orbit.base import OrbitContext, OrbitEstimator, OrbitInfo, OrbitTarget
from orbitdiff.typing import Mask, PerSample, Points

__all__ = ["PlainTarget"]


@final
class PlainTarget(OrbitEstimator):
    """target(x_t, x_0, t), one Monte Carlo draw of the orbit mean.

    Parameters
    ----------
    kernel : NoiseKernel
    parametrization : Parametrization
    """

    group = None
    densities = None
    exact = False
    unbiased = True

    def __init__(self, kernel: NoiseKernel, *, parametrization: Parametrization) -> None:
        self.check(kernel)
        self.kernel = kernel
        self.parametrization = parametrization

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
        """Return the plain target; ESS and largest weight are one."""
        value = self.kernel.target(x_t, x_0, t, self.parametrization, noise=noise)
        if mask is not None:
            value = value * mask[..., None]
        one = torch.ones_like(t)
        return OrbitTarget(value, OrbitInfo(ess=one, max_weight=one))
