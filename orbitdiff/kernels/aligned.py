"""Flow matching from a harmonic prior whose sample is first superposed on the data."""

from typing import Any, final

import torch

from orbitdiff.errors import BadInput, IncompatibleKernel
from orbitdiff.groups.base import Group
from orbitdiff.groups.kabsch import kabsch
from orbitdiff.groups.rotation import O3, SO3
from orbitdiff.kernels.base import (
    Density,
    Noised,
    NoiseKernel,
    Parametrization,
    expand,
    normal_like,
)
from orbitdiff.kernels.harmonic_prior import HarmonicPrior
from orbitdiff.kernels.interpolant import Interpolant
from orbitdiff.typing import Mask, PerSample, Points, Tensor

__all__ = ["AlignedCoupling"]


@final
class AlignedCoupling(NoiseKernel):
    """x_t = (1 - t) x_0 + t R y + s_t eps, R the rotation that superposes y on x_0.

    Parameters
    ----------
    harmonic : HarmonicPrior
        Law of y, for the molecules of this batch.
    sigma : float
        Scale of the bridge, angstrom.

    Notes
    -----
    The coupling is invariant under rotations, yet x_t given x_0 is not Gaussian: `density` is
    None. At sigma = 0 the rotation of x_0 is that of the superposition of x_0 on x_t, surely,
    so that the plain target needs no average over rotations.

    References
    ----------
    Hassan et al. 2024 (ET-Flow).
    """

    invariant_under: tuple[type[Group], ...] = (SO3, O3)
    density: Density | None = None

    def __init__(self, harmonic: HarmonicPrior, *, sigma: float = 0.0) -> None:
        self.harmonic = harmonic
        self.schedule: Interpolant = Interpolant(sigma)

    def sample(
        self,
        x_0: Points,
        t: PerSample,
        *,
        context: Any = None,
        mask: Mask | None = None,
        generator: torch.Generator | None = None,
    ) -> Noised:
        """Draw x_t; its noise is R y + s_t' eps, which is d x_t / dt + x_0."""
        drawn = self.harmonic.sample(x_0, generator=generator)
        eps = self.harmonic.centred(normal_like(x_0, generator)).to(x_0.dtype)
        aligned = drawn.double() @ kabsch(drawn, x_0).mT
        return self.schedule.mix(x_0, aligned.to(x_0.dtype), eps, t.to(x_0.dtype))

    def log_prob(
        self, x_t: Points, x_0: Points, t: PerSample, *, mask: Mask | None = None
    ) -> PerSample:
        """Raise IncompatibleKernel: the coupling depends on x_0."""
        raise IncompatibleKernel(
            "AlignedCoupling has no density of x_t given x_0: average its permutations with "
            "AlignedPermutationOrbit, or use HarmonicKernel, whose coupling is independent"
        )

    def target(
        self,
        x_t: Points,
        x_0: Points,
        t: PerSample,
        parametrization: Parametrization,
        *,
        noise: Points | None = None,
    ) -> Tensor:
        """DATA or VELOCITY given x_0; with sigma > 0 a velocity needs the noise."""
        if parametrization is Parametrization.VELOCITY and noise is not None:
            return noise - x_0
        return self.convert(x_0, Parametrization.DATA, parametrization, x_t, t)

    def convert(
        self, value: Points, src: Parametrization, dst: Parametrization, x_t: Points, t: PerSample
    ) -> Tensor:
        """Convert between DATA and VELOCITY at sigma = 0: x_0 = x_t - t velocity."""
        if src is dst:
            return value
        if {src, dst} != {Parametrization.DATA, Parametrization.VELOCITY}:
            raise BadInput(f"AlignedCoupling converts data and velocity, not {src} to {dst}")
        if self.schedule.sigma > 0:
            raise BadInput(
                "with a bridge the velocity is no function of x_0 and x_t: pass the noise, or "
                "use sigma = 0"
            )
        if src is Parametrization.VELOCITY:
            return x_t - expand(t) * value
        return (x_t - value) / expand(t)

    def prior(self, shape: tuple[int, ...], *, generator: torch.Generator | None = None) -> Tensor:
        """Draw x_1 from the harmonic prior."""
        like = torch.empty(shape, device=self.harmonic.vectors.device)
        return self.harmonic.sample(like, generator=generator)
