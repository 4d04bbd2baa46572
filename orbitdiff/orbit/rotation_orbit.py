"""Exact orbit mean over rotations (and listed conformers and permutations)."""

from typing import final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.base import Group
from orbitdiff.groups.rotation import O3, SO3
from orbitdiff.kernels.base import Density, NoiseKernel, Parametrization
from orbitdiff.kernels.gaussian import GaussianKernel
from orbitdiff.orbit.base import OrbitContext, OrbitEstimator, OrbitInfo, OrbitTarget
from orbitdiff.orbit.gaussian_form import GaussianForm
from orbitdiff.orbit.rotation import rotation_posterior
from orbitdiff.typing import Mask, PerSample, Points

__all__ = ["RotationOrbit"]


@final
class RotationOrbit(OrbitEstimator):
    """Mean of the target over rotations of x_0, by the matrix Fisher distribution.

    E[target(x_t, g x_0, t) | x_t] = target(x_t, E[g x_0 | x_t], t): every target is affine in
    x_0. `rotation_posterior` gives E[g x_0 | x_t].

    Parameters
    ----------
    kernel : NoiseKernel
        Gaussian, isotropic or with a covariance over atoms.
    parametrization : Parametrization
        DATA, or any other that the kernel converts DATA to; VELOCITY is then averaged over the
        prior sample and the bridge as well.
    reflections : bool
        Average over O(3). Chiral data need SO(3): O(3) mixes enantiomers.

    Raises
    ------
    IncompatibleKernel
        The kernel has no Gaussian density, for example an aligned coupling.
    BadInput
        NOISE with a covariance over atoms: that kernel has no such parametrization.

    Notes
    -----
    `context.permutations` are averaged over as well, and so are the data points
    `context.conformers` (B, C, N, 3), which hold x_0, with `context.log_prior` (B, C).
    `info.ess` and `info.max_weight` are those of this mixture, None without one: rotations are
    a continuum.
    """

    densities = (Density.ISOTROPIC_GAUSSIAN, Density.ATOM_COVARIANCE_GAUSSIAN)
    exact = True
    unbiased = True

    def __init__(
        self,
        kernel: NoiseKernel,
        *,
        parametrization: Parametrization = Parametrization.DATA,
        reflections: bool = False,
    ) -> None:
        self.group: type[Group] | None = O3 if reflections else SO3
        self.check(kernel)
        covers_atoms = kernel.density is Density.ATOM_COVARIANCE_GAUSSIAN
        if covers_atoms and parametrization is Parametrization.NOISE:
            raise BadInput(
                f"{type(kernel).__name__} has no noise parametrization: use DATA, SCORE or VELOCITY"
            )
        self.kernel = kernel
        self.parametrization = parametrization
        self.reflections = reflections

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
        """Return the exact mean target and its log evidence."""
        around = context or OrbitContext()
        wide, time = x_t.double(), t.double()
        form = GaussianForm.of(self.kernel, time)
        found = rotation_posterior(
            wide,
            (x_0 if around.conformers is None else around.conformers).double(),
            form.alpha,
            form.sigma,
            precision=form.precision,
            mask=mask,
            log_prior=around.log_prior,
            permutations=around.permutations,
            permutation_mask=around.permutation_mask,
            reflections=self.reflections,
        )
        data = Parametrization.DATA
        value = self.kernel.convert(found.mean_x0, data, self.parametrization, wide, time)
        if mask is not None:
            value = value * mask[..., None]
        weights = found.weights.flatten(1)
        evidence = found.log_evidence
        if isinstance(self.kernel, GaussianKernel) and self.kernel.centred:
            evidence = evidence - self.kernel.log_density_of_mean(time, 3)
        info = OrbitInfo(log_evidence=evidence)
        if weights.shape[1] > 1:
            info = info._replace(ess=1 / weights.square().sum(1), max_weight=weights.amax(1))
        return OrbitTarget(value.to(x_0.dtype), info)
