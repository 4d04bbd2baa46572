"""Biased means over rotations: tempered weights, and superposition as their zero limit."""

from typing import final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.base import Group
from orbitdiff.groups.kabsch import superposing
from orbitdiff.groups.rotation import SO3
from orbitdiff.kernels.base import Density, NoiseKernel, Parametrization, expand
from orbitdiff.orbit.base import OrbitContext, OrbitEstimator, OrbitInfo, OrbitTarget
from orbitdiff.orbit.gaussian_form import GaussianForm
from orbitdiff.orbit.matrix_fisher import orthogonal_moments
from orbitdiff.orbit.rotation_proposals import HaarRotations
from orbitdiff.orbit.rotation_samples import sampled_rotation
from orbitdiff.orbit.temperature import Temperature
from orbitdiff.typing import Mask, PerSample, Points, Tensor

__all__ = ["KabschOrbit", "TemperedRotationOrbit"]


class _BiasedRotation(OrbitEstimator):
    """Target at R x_0 with a rotation or mean rotation R that is no posterior mean."""

    group: type[Group] | None = SO3
    densities = (Density.ISOTROPIC_GAUSSIAN, Density.ATOM_COVARIANCE_GAUSSIAN)
    exact = False
    unbiased = False

    kernel: NoiseKernel

    def _target(
        self,
        rotation: Tensor,
        x_t: Points,
        x_0: Points,
        t: PerSample,
        mask: Mask | None,
        info: OrbitInfo,
    ) -> OrbitTarget:
        data = Parametrization.DATA
        mean = x_0.double() @ rotation.mT
        value = self.kernel.convert(mean, data, self.parametrization, x_t.double(), t.double())
        if mask is not None:
            value = value * mask[..., None]
        return OrbitTarget(value.to(x_0.dtype), info)


def _wide(
    x_t: Points, x_0: Points, mask: Mask | None, context: OrbitContext | None
) -> tuple[Tensor, Tensor]:
    """Both clouds in float64 without padding; refuse what would be passed over."""
    if context is not None and not (context.permutations is context.conformers is None):
        raise BadInput("this estimator takes rotations alone; RotationOrbit takes lists as well")
    real = 1.0 if mask is None else mask[..., None].double()
    return x_t.double() * real, x_0.double() * real


@final
class TemperedRotationOrbit(_BiasedRotation):
    """Mean over rotations with weights p(x_t | R x_0)^(1 / temperature): biased unless it is 1.

    Of all R it is the mean of the matrix Fisher distribution with F / temperature.

    Parameters
    ----------
    kernel : NoiseKernel
        Gaussian, isotropic or with a covariance over atoms.
    temperature : Temperature
        `ConstantTemperature` or `PublishedTemperature`.
    parametrization : Parametrization
    num_samples : int, optional
        K uniform rotations, the true one among them; by default the mean over all, exactly.

    Notes
    -----
    Tempering trades the variance of a mean with few samples for bias; with the mean over all
    rotations it is bias alone.
    """

    def __init__(
        self,
        kernel: NoiseKernel,
        temperature: Temperature,
        *,
        parametrization: Parametrization = Parametrization.DATA,
        num_samples: int | None = None,
    ) -> None:
        self.check(kernel)
        if num_samples is not None and num_samples < 1:
            raise BadInput(f"num_samples (K) must be at least 1, got {num_samples}")
        self.kernel = kernel
        self.temperature = temperature
        self.parametrization = parametrization
        self.num_samples = num_samples

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
        """Return the tempered mean; ESS and largest weight where it is sampled."""
        noised, points = _wide(x_t, x_0, mask, context)
        time = t.double()
        form = GaussianForm.of(self.kernel, time).tempered(self.temperature(time))
        cross = form.cross(noised, points)
        if self.num_samples is None:
            rotation, info = orthogonal_moments(cross).mean, OrbitInfo()
        else:
            found = sampled_rotation(
                cross,
                form.cross(expand(form.alpha) * points, points),
                proposal=HaarRotations(),
                num_samples=self.num_samples,
                include_true=True,
                generator=generator,
            )
            rotation = found.rotation
            info = OrbitInfo(ess=found.ess, max_weight=found.max_weight)
        return self._target(rotation, x_t, x_0, t, mask, info)


@final
class KabschOrbit(_BiasedRotation):
    """Target at the image of x_0 superposed on x_t: the tempered mean at temperature zero.

    The rotation maximises tr(F^T R), the mode of the posterior. It is no mean: it never shrinks
    the target, however much noise.

    Parameters
    ----------
    kernel : NoiseKernel
        Gaussian, isotropic or with a covariance over atoms.
    parametrization : Parametrization

    References
    ----------
    Kabsch 1976.
    """

    def __init__(
        self, kernel: NoiseKernel, *, parametrization: Parametrization = Parametrization.DATA
    ) -> None:
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
        """Return the target at the superposed x_0."""
        noised, points = _wide(x_t, x_0, mask, context)
        form = GaussianForm.of(self.kernel, t.double())
        rotation = superposing(form.cross(noised, points))
        return self._target(rotation, x_t, x_0, t, mask, OrbitInfo())
