"""Sampled orbit mean over rotations, through the 3x3 sufficient statistic of the cloud."""

import math
from typing import final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.base import Group
from orbitdiff.groups.quaternion import to_rotation
from orbitdiff.groups.rotation import SO3
from orbitdiff.kernels.base import Density, NoiseKernel, Parametrization, expand
from orbitdiff.orbit.base import OrbitContext, OrbitEstimator, OrbitInfo, OrbitTarget
from orbitdiff.orbit.rotation_orbit import AtomPrecision
from orbitdiff.typing import Float, Mask, PerSample, Points, Tensor

__all__ = ["RotationSamples", "super_fibonacci"]

WEIGHTS_AT_ONCE = 2**22
"""Weights of a chunk of samples: bounds the memory, whatever the batch."""
PSI = 1.533751168755204288118041


def super_fibonacci(num: int, *, device: torch.device | str = "cpu") -> Float[Tensor, "K 3 3"]:
    """Evenly spread rotations, the super-Fibonacci spiral of quaternions.

    Parameters
    ----------
    num : int
        K.
    device : device

    References
    ----------
    Alexa, Super-Fibonacci Spirals, CVPR 2022.
    """
    place = torch.arange(num, dtype=torch.float64, device=device) + 0.5
    near, far = torch.sqrt(place / num), torch.sqrt(1 - place / num)
    first, second = 2 * math.pi * place / math.sqrt(2), 2 * math.pi * place / PSI
    parts = [near * first.sin(), near * first.cos(), far * second.sin(), far * second.cos()]
    quaternions = torch.stack(parts, -1)
    return to_rotation(quaternions[:, :, None] * quaternions[:, None, :])


@final
class RotationSamples(OrbitEstimator):
    """sum_k w_k target(x_t, R_k x_0), w_k proportional to exp(tr(F^T R_k)), R_k uniform.

    F = alpha x_t^T Sigma^-1 x_0 is all that the weights need of a cloud: no cloud is rotated,
    and the cost per rotation is nine multiplications whatever the number of atoms.

    Parameters
    ----------
    kernel : NoiseKernel
        Gaussian, isotropic or with a covariance over atoms.
    parametrization : Parametrization
    num_samples : int
        K, the true element included where `include_true`.
    include_true : bool
        First element is the identity, which made x_t. Without it the target is biased, and at
        small noise far worse than no averaging.
    spread : str
        `haar`: independent uniform rotations; `super_fibonacci`: the even spiral, turned as a
        whole by a uniform rotation of each sample.
    temperature : float
        Divides the log weights; anything but 1 is biased.

    Notes
    -----
    Rotations are shared by the batch and turned by a uniform rotation per sample, so each
    sample sees uniform ones. Unbiased for every K with the true element, `haar`, temperature 1
    (i-SIR); the points of a spiral are not independent, so that argument does not cover it.

    References
    ----------
    Orbit Diffusion, arXiv 2502.09890 (SNIS); docs/estimators.md (i-SIR).
    """

    densities = (Density.ISOTROPIC_GAUSSIAN, Density.ATOM_COVARIANCE_GAUSSIAN)
    exact = False
    group: type[Group] | None = SO3

    def __init__(
        self,
        kernel: NoiseKernel,
        *,
        parametrization: Parametrization = Parametrization.DATA,
        num_samples: int,
        include_true: bool = True,
        spread: str = "haar",
        temperature: float = 1.0,
    ) -> None:
        self.check(kernel)
        if num_samples < 1:
            raise BadInput(f"num_samples (K) must be at least 1, got {num_samples}")
        if spread not in ("haar", "super_fibonacci"):
            raise BadInput(f"expected spread haar or super_fibonacci, got {spread!r}")
        if not temperature > 0:
            raise BadInput(f"temperature must be positive, got {temperature}")
        self.kernel = kernel
        self.parametrization = parametrization
        self.num_samples = num_samples
        self.include_true = include_true
        self.spread = spread
        self.temperature = temperature
        self.unbiased = include_true and temperature == 1.0 and spread == "haar"

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
        """Return the weighted mean, ESS, log evidence and largest weight.

        Raises
        ------
        BadInput
            Permutations or conformers in the context: they would be passed over.
        """
        if context is not None and not (context.permutations is context.conformers is None):
            raise BadInput("RotationSamples averages over rotations alone; take RotationOrbit")
        wide, points, time = x_t.double(), x_0.double(), t.double()
        real = torch.ones_like(wide[..., :1]) if mask is None else mask[..., None].double()
        cross = self._statistic(wide * real, points * real, time)
        drawn = self.num_samples - int(self.include_true)
        if self.spread == "haar":
            grid = SO3().sample(drawn, generator=generator, device=x_t.device)
        else:
            grid = super_fibonacci(drawn, device=x_t.device)
        turn = SO3().sample(len(x_0), generator=generator, device=x_t.device)
        rows = max(1, WEIGHTS_AT_ONCE // self.num_samples)
        parts = [
            self._average(cross[start : start + rows], turn[start : start + rows], grid)
            for start in range(0, max(1, len(cross)), rows)
        ]
        rotation, log_mean, ess, largest = (torch.cat(part) for part in zip(*parts, strict=True))
        mean = points @ rotation.mT
        value = self.kernel.convert(mean, Parametrization.DATA, self.parametrization, wide, time)
        own = self.kernel.log_prob(wide, points, time, mask=mask)
        at_truth = cross.diagonal(dim1=-2, dim2=-1).sum(-1)
        info = OrbitInfo(
            ess=ess,
            log_evidence=own - at_truth + log_mean if self.temperature == 1.0 else None,
            max_weight=largest,
        )
        return OrbitTarget((value * real).to(x_0.dtype), info)

    def _statistic(self, x_t: Tensor, x_0: Tensor, t: Tensor) -> Tensor:
        """F (B, 3, 3)."""
        alpha, sigma = self.kernel.schedule(t)
        if isinstance(self.kernel, AtomPrecision):
            weighed = self.kernel.precision(t) @ x_0
        else:
            weighed = x_0 / expand(sigma) ** 2
        return expand(alpha) * x_t.mT @ weighed

    def _average(self, cross: Tensor, turn: Tensor, grid: Tensor) -> tuple[Tensor, ...]:
        """Mean rotation, log mean weight, ESS and largest weight of some samples."""
        logits = (cross @ turn.mT).flatten(1) @ grid.flatten(1).mT / self.temperature
        if self.include_true:
            truth = cross.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True) / self.temperature
            logits = torch.cat([logits, truth], 1)
        log_mean = torch.logsumexp(logits, 1) - math.log(self.num_samples)
        weights = torch.softmax(logits, 1)
        drawn = weights[:, : len(grid)]
        rotation = (drawn @ grid.flatten(1)).unflatten(1, (3, 3)) @ turn
        if self.include_true:
            one = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
            rotation = rotation + weights[:, -1, None, None] * one
        return rotation, log_mean, 1 / weights.square().sum(1), weights.amax(1)
