"""Sampled orbit mean over rotations, through the 3x3 sufficient statistic of the cloud."""

import math
from typing import NamedTuple, final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.base import Group
from orbitdiff.groups.rotation import SO3
from orbitdiff.kernels.base import Density, NoiseKernel, Parametrization, expand
from orbitdiff.orbit.base import OrbitContext, OrbitEstimator, OrbitInfo, OrbitTarget
from orbitdiff.orbit.gaussian_form import GaussianForm
from orbitdiff.orbit.rotation_proposals import (
    EvenRotations,
    HaarRotations,
    RotationDraws,
    RotationProposal,
)
from orbitdiff.orbit.rotation_proposals_near import LaplaceRotations, WrappedNormalRotations
from orbitdiff.orbit.streaming import WeightedSums
from orbitdiff.typing import Float, Mask, PerSample, Points, Tensor

__all__ = ["PROPOSALS", "RotationMean", "RotationSamples", "sampled_rotation"]

NUMBERS_AT_ONCE = 24 * 2**20
"""Numbers of a chunk, over the batch: 200 MB, whatever K."""

PROPOSALS: dict[str, RotationProposal] = {
    "haar": HaarRotations(),
    "super_fibonacci": EvenRotations(),
    "laplace": LaplaceRotations(),
    "wrapped_normal": WrappedNormalRotations(),
}
"""Proposals by the names that params.yaml uses."""


class RotationMean(NamedTuple):
    """Weighted mean of sampled rotations.

    Attributes
    ----------
    rotation : (B, 3, 3)
    log_mean : (B,), log of the mean weight, an estimate of the log of the Haar average
    ess, max_weight : (B,)
    """

    rotation: Tensor
    log_mean: Tensor
    ess: Tensor
    max_weight: Tensor


@torch.no_grad()
def sampled_rotation(
    cross: Float[Tensor, "B 3 3"],
    gram: Float[Tensor, "B 3 3"],
    *,
    proposal: RotationProposal,
    num_samples: int,
    include_true: bool,
    generator: torch.Generator | None,
) -> RotationMean:
    """sum_k w_k R_k with w_k proportional to exp(tr(F^T R_k)) / q(R_k).

    Parameters
    ----------
    cross : (B, 3, 3)
        F, float64.
    gram : (B, 3, 3)
        alpha^2 x_0^T Sigma^+ x_0.
    proposal : RotationProposal
    num_samples : int
        K.
    include_true : bool
        The identity is one of the K.
    generator : torch.Generator or None

    Returns
    -------
    RotationMean
    """
    drawn = num_samples - int(include_true)
    most = max(1, NUMBERS_AT_ONCE // (proposal.numbers * max(1, len(cross))))
    sizes = [min(most, drawn - start) for start in range(0, drawn, most)]
    sums: WeightedSums | None = None
    if include_true:
        one = torch.eye(3, dtype=cross.dtype, device=cross.device).expand_as(cross)
        own = cross.diagonal(dim1=-2, dim2=-1).sum(-1)
        own = (own - proposal.log_density_of_identity(cross, gram))[:, None]
        sums = WeightedSums(own, torch.ones_like(own), torch.ones_like(own), one)
    for part in proposal.draws(cross, gram, sizes, generator=generator):
        found = _sums(part)
        sums = found if sums is None else sums.merged(found)
    assert sums is not None  # num_samples is at least 1
    log_mean = sums.log_total[:, 0] - math.log(num_samples)
    return RotationMean(sums.mean, log_mean, sums.ess, sums.max_weight)


def _sums(draws: RotationDraws) -> WeightedSums:
    peak = draws.log_w.amax(1, keepdim=True)
    scaled = torch.exp(draws.log_w - peak)
    total, square = scaled.sum(1, keepdim=True), scaled.square().sum(1, keepdim=True)
    return WeightedSums(peak, total, square, draws.mean(scaled))


@final
class RotationSamples(OrbitEstimator):
    """sum_k w_k target(x_t, R_k x_0), w_k proportional to exp(tr(F^T R_k)) / q(R_k).

    F = alpha x_t^T Sigma^-1 x_0 is all that the weights need of a cloud: no cloud is rotated,
    and the cost per rotation does not depend on the number of atoms.

    Parameters
    ----------
    kernel : NoiseKernel
        Gaussian, isotropic or with a covariance over atoms.
    parametrization : Parametrization
    num_samples : int
        K, the true element included where `include_true`.
    include_true : bool
        One of the elements is the identity, which made x_t, weighed by its own density. Without
        it the target is biased, and at small noise far worse than no averaging.
    proposal : str
        `haar`: uniform rotations, shared by the batch and turned by a uniform rotation per
        sample; `super_fibonacci`: an even spiral, turned likewise; `laplace`: around the mode of
        the posterior; `wrapped_normal`: around the true element.

    Notes
    -----
    Unbiased for every K with the true element and `haar` or `laplace` (i-SIR). The points of a
    spiral are not independent and `wrapped_normal` depends on the true element, so that
    argument covers neither. At other temperatures see `TemperedRotationOrbit`.

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
        proposal: str = "haar",
    ) -> None:
        self.check(kernel)
        if num_samples < 1:
            raise BadInput(f"num_samples (K) must be at least 1, got {num_samples}")
        if proposal not in PROPOSALS:
            raise BadInput(f"expected a proposal among {sorted(PROPOSALS)}, got {proposal!r}")
        self.kernel = kernel
        self.parametrization = parametrization
        self.num_samples = num_samples
        self.include_true = include_true
        self.proposal = PROPOSALS[proposal]
        self.unbiased = include_true and self.proposal.independent

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
        form = GaussianForm.of(self.kernel, time)
        cross = form.cross(wide * real, points * real)
        found = sampled_rotation(
            cross,
            form.cross(expand(form.alpha) * points * real, points * real),
            proposal=self.proposal,
            num_samples=self.num_samples,
            include_true=self.include_true,
            generator=generator,
        )
        mean = points @ found.rotation.mT
        value = self.kernel.convert(mean, Parametrization.DATA, self.parametrization, wide, time)
        own = self.kernel.log_prob(wide, points, time, mask=mask)
        at_truth = cross.diagonal(dim1=-2, dim2=-1).sum(-1)
        info = OrbitInfo(
            ess=found.ess,
            log_evidence=own - at_truth + found.log_mean,
            max_weight=found.max_weight,
        )
        return OrbitTarget((value * real).to(x_0.dtype), info)
