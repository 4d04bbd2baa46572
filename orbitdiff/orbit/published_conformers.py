"""The target of the paper's conformer code, with real rotations: biased, for comparison.

It weighs rotations and automorphisms as if x_t given x_0 were an isotropic Gaussian, whatever the
prior and the coupling, sharpens the weights at high noise, and keeps the prior sample that made
x_t in the velocity.
"""

from typing import final

import torch

from orbitdiff.errors import BadInput, IncompatibleKernel
from orbitdiff.groups.base import Group
from orbitdiff.groups.rotation import SO3
from orbitdiff.kernels.base import NoiseKernel, Parametrization, expand
from orbitdiff.kernels.interpolant import Interpolant
from orbitdiff.orbit.base import OrbitContext, OrbitEstimator, OrbitInfo, OrbitTarget
from orbitdiff.orbit.streaming import WeightedSums
from orbitdiff.orbit.temperature import PublishedTemperature, Temperature
from orbitdiff.typing import Mask, PerSample, Points, Tensor

__all__ = ["PublishedConformerOrbit"]

WEIGHTS_AT_ONCE = 2**20
"""Weights (sample, permutation, rotation) of a chunk: about 32 MB, whatever K."""


@final
class PublishedConformerOrbit(OrbitEstimator):
    """A = sum w R p x_0 over K rotations x P permutations, w isotropic and tempered.

    log w = -|x_t - (1 - t) R p x_0|^2 / (2 (t^2 + s_t^2) T(t)), s_t = sigma sqrt(t (1 - t)).
    DATA is A; VELOCITY is (1 - 2t) / (2t (1 - t)) x_t - A / (2t) + y / (2 (1 - t)) with the
    prior sample y that made x_t.

    Parameters
    ----------
    kernel : NoiseKernel
        `HarmonicKernel` or `AlignedCoupling`; neither has the assumed density.
    parametrization : Parametrization
        DATA or VELOCITY.
    num_samples : int
        K, the identity among them (published: 200).
    temperature : Temperature
        Published: min(1, 0.4 / t).

    Raises
    ------
    IncompatibleKernel
        A kernel that is no interpolant.
    BadInput
        Another parametrization, K below 1, or a velocity without the noise.

    Notes
    -----
    `context.permutations` are the automorphisms (published: up to 50), the identity first.
    The published code multiplies each coordinate by a row sum of R instead of rotating; here
    the rotations are real.

    References
    ----------
    arXiv 2502.09890, section on conformers and its code (folder IEF).
    """

    group: type[Group] | None = SO3
    densities = None
    exact = False
    unbiased = False

    def __init__(
        self,
        kernel: NoiseKernel,
        *,
        parametrization: Parametrization = Parametrization.VELOCITY,
        num_samples: int = 200,
        temperature: Temperature | None = None,
    ) -> None:
        if parametrization not in (Parametrization.DATA, Parametrization.VELOCITY):
            raise BadInput(
                f"PublishedConformerOrbit gives DATA or VELOCITY, not {parametrization.value}"
            )
        if num_samples < 1:
            raise BadInput(f"num_samples (K) must be at least 1, got {num_samples}")
        self.check(kernel)
        assert isinstance(kernel.schedule, Interpolant)  # checked
        self.path = kernel.schedule
        self.parametrization = parametrization
        self.num_samples = num_samples
        self.temperature = temperature or PublishedTemperature()

    def check(self, kernel: NoiseKernel) -> None:
        """Raise IncompatibleKernel unless x_t lies on an interpolant between prior and data."""
        super().check(kernel)
        if not isinstance(kernel.schedule, Interpolant):
            raise IncompatibleKernel(
                "PublishedConformerOrbit needs HarmonicKernel or AlignedCoupling, got "
                f"{type(kernel).__name__}"
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
        """Return the published target, ESS and largest weight over rotations x permutations."""
        real = 1.0 if mask is None else mask[..., None].double()
        wide, points, time = x_t.double() * real, x_0.double() * real, t.double()
        images = points[:, None]
        if context is not None and context.permutations is not None:
            index = context.permutations[..., None].expand(-1, -1, -1, 3)
            images = images.expand(-1, index.shape[1], -1, -1).gather(2, index)
        alpha = 1 - time
        variance = self.path.variance(time, torch.ones_like(time)) * self.temperature(time)
        cross = expand(alpha / variance)[:, None] * (wide.mT[:, None] @ images)
        drawn = SO3().sample(self.num_samples - 1, generator=generator, device=x_t.device)
        turn = SO3().sample(len(x_t), generator=generator, device=x_t.device)
        rotations = torch.cat(
            [
                torch.eye(3, dtype=drawn.dtype, device=drawn.device).expand(len(x_t), 1, 3, 3),
                drawn @ turn[:, None],
            ],
            1,
        ).double()
        listed = None if context is None else context.permutation_mask
        flat, sums = cross.flatten(2), None
        for part in rotations.split(max(1, WEIGHTS_AT_ONCE // max(1, flat[..., 0].numel())), 1):
            logits = flat @ part.flatten(2).mT
            if listed is not None:
                logits = logits.masked_fill(~listed[..., None], -torch.inf)
            found = _sums(logits, part.flatten(2))
            sums = found if sums is None else sums.merged(found)
        assert sums is not None  # num_samples is at least 1
        mean = (images @ sums.mean.unflatten(-1, (3, 3)).mT).sum(1)
        value = mean
        if self.parametrization is Parametrization.VELOCITY:
            if noise is None:
                raise BadInput("the published velocity keeps the prior sample: pass noise=")
            prior = self.path.prior_sample(wide, points, noise.double() * real, time)
            value = self.path.velocity_with(mean, wide, prior, time)
        info = OrbitInfo(ess=sums.ess, max_weight=sums.max_weight)
        return OrbitTarget((value * real).to(x_0.dtype), info)


def _sums(logits: Tensor, rotations: Tensor) -> WeightedSums:
    """Sums of a chunk: logits (B, P, k), flat rotations (B, k, 9); the value is (B, P, 9)."""
    peak = logits.amax((1, 2))[:, None]
    scaled = torch.exp(logits - peak[..., None])
    total, square = scaled.sum((1, 2)), scaled.square().sum((1, 2))
    return WeightedSums(peak, total[:, None], square[:, None], scaled @ rotations)
