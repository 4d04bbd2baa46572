"""Exact orbit mean over a finite group, by enumeration in log space."""

import math
from typing import final

import torch

from orbitdiff.groups.finite import FiniteGroup
from orbitdiff.kernels.base import NoiseKernel, Parametrization
from orbitdiff.orbit.base import OrbitContext, OrbitEstimator, OrbitInfo, OrbitTarget
from orbitdiff.typing import Mask, PerSample, Points

__all__ = ["FiniteOrbit"]


@final
class FiniteOrbit(OrbitEstimator):
    """sum_g w_g target(x_t, g x_0, t), w = softmax over g of log p(x_t | g x_0).

    Parameters
    ----------
    kernel : NoiseKernel
        Must be invariant under the group.
    group : FiniteGroup
        Enumerated.
    parametrization : Parametrization

    References
    ----------
    Orbit Diffusion, arXiv 2502.09890, equation of phi* with a counting measure.
    """

    densities = None
    exact = True
    unbiased = True

    def __init__(
        self, kernel: NoiseKernel, group: FiniteGroup, *, parametrization: Parametrization
    ) -> None:
        self.group = type(group)
        self.check(kernel)
        self.kernel = kernel
        self.elements = group.elements()
        self.act = group.act
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
        """Return the exact mean, its ESS and log evidence (weights in float64)."""
        elements = self.elements.to(x_0.device)
        images = self.act(elements.to(x_0.dtype), x_0[:, None])
        x_bk, t_bk = x_t[:, None], t[:, None]
        mask_bk = None if mask is None else mask[:, None]
        logits = self.kernel.log_prob(x_bk.double(), images.double(), t_bk.double(), mask=mask_bk)
        weights = torch.softmax(logits, 1)
        targets = self.kernel.target(x_bk, images, t_bk, self.parametrization)
        value = (weights[..., None, None].to(targets.dtype) * targets).sum(1)
        if mask is not None:
            value = value * mask[..., None]
        info = OrbitInfo(
            ess=1.0 / (weights**2).sum(1),
            log_evidence=torch.logsumexp(logits, 1) - math.log(len(elements)),
            max_weight=weights.amax(1),
        )
        return OrbitTarget(value, info)
