"""Exact mean over permutations for flow matching with a superposed prior sample.

Given the permutation p, x_t fixes the rotation: it superposes Y = p x_0 on x_t. With s the
points x_t in the frame of Y, the prior sample was s_0 = (s - (1 - t) Y) / t, and M_0 = s_0^T Y
is symmetric with positive sums of pairs of eigenvalues, because s_0 is superposed on Y. The
law of s_0 is that of the prior times prod_{i<j} (mu_i + mu_j)(M_0), the volume of the rotations
that superposing takes away; the same product of M_t = s^T Y divides it as the volume of x_t.
"""

from typing import final

import torch

from orbitdiff.errors import BadInput, IncompatibleKernel
from orbitdiff.groups.base import Group
from orbitdiff.groups.kabsch import kabsch
from orbitdiff.groups.rotation import SO3
from orbitdiff.kernels.aligned import AlignedCoupling
from orbitdiff.kernels.base import NoiseKernel, Parametrization
from orbitdiff.orbit.base import OrbitContext, OrbitEstimator, OrbitInfo, OrbitTarget
from orbitdiff.typing import Bool, Float, Int, Mask, PerSample, Points, Tensor

__all__ = ["AlignedPermutationOrbit", "aligned_permutation_weights"]

AT_ONCE = {False: 2**20, True: 2**26}
"""Coordinates of images of one pass on the CPU and on CUDA: about 60 MB and 4 GB in all."""

LINEAR = 1e-6
"""Ratio of the second to the first singular value below which points count as collinear."""


@torch.no_grad()
def aligned_permutation_weights(
    kernel: AlignedCoupling,
    x_t: Float[Tensor, "B N 3"],
    x_0: Float[Tensor, "B N 3"],
    t: Float[Tensor, "B"],
    permutations: Int[Tensor, "B P N"],
    *,
    permutation_mask: Bool[Tensor, "B P"] | None = None,
) -> tuple[Float[Tensor, "B P"], Float[Tensor, "B P N 3"]]:
    """Posterior of each permutation, and its image of x_0 superposed on x_t.

    w_p prop p_H(s_0) prod_{i<j} (mu_i + mu_j)(M_0) / prod_{i<j} (mu_i + mu_j)(M_t), zero where
    a sum for M_0 is not positive.

    Parameters
    ----------
    kernel : AlignedCoupling
        With sigma = 0.
    x_t, x_0 : (B, N, 3)
        Points, angstrom, zero in padding; centred.
    t : (B,)
        Time in (0, 1].
    permutations : (B, P, N) long
        A subgroup of the automorphisms of the graph of bonds.
    permutation_mask : (B, P) bool, optional
        Real entries.

    Returns
    -------
    weights : (B, P), float64
        All zero where no entry could have made x_t, and for collinear points.
    images : (B, P, N, 3), float64
    """
    logits, rotation = _log_weights(kernel, x_t, x_0, t, permutations)
    if permutation_mask is not None:
        logits = logits.masked_fill(~permutation_mask, -torch.inf)
    return _normalised(logits), _images(x_0, permutations) @ rotation.mT


def _images(x_0: Tensor, permutations: Tensor) -> Tensor:
    index = permutations[..., None].expand(-1, -1, -1, 3)
    return x_0.double()[:, None].expand(-1, permutations.shape[1], -1, -1).gather(2, index)


def _log_weights(
    kernel: AlignedCoupling, x_t: Tensor, x_0: Tensor, t: Tensor, permutations: Tensor
) -> tuple[Tensor, Tensor]:
    """Log weight (B, P), -inf where x_t is out of reach, and the superposing rotation."""
    images = _images(x_0, permutations)
    noised, time = x_t.double()[:, None], t.double()[:, None, None, None]
    rotation = kabsch(images, noised)
    framed = noised @ rotation
    before = (framed - (1 - time) * images) / time
    feasible, log_before = _log_pair_sums(before.mT @ images)
    _, log_now = _log_pair_sums(framed.mT @ images)
    feasible = feasible & ~_collinear(x_0)[:, None]
    logits = kernel.harmonic.log_prob(before) + log_before - log_now
    return logits.masked_fill(~feasible, -torch.inf), rotation


def _normalised(logits: Tensor) -> Tensor:
    """Weights (B, P); zeros where no entry is feasible."""
    largest = logits.amax(1, keepdim=True)
    raw = torch.exp(logits - torch.where(largest > -torch.inf, largest, 0.0))
    total = raw.sum(1, keepdim=True)
    return raw / torch.where(total > 0, total, 1.0)


def _log_pair_sums(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Whether all sums of two eigenvalues of (..., 3, 3) are positive; log of their product.

    They are the eigenvalues of tr(M) I - M, positive if and only if its leading minors are.
    """
    symmetric = 0.5 * (matrix + matrix.mT)
    trace = torch.diagonal(symmetric, dim1=-2, dim2=-1).sum(-1)
    eye = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    sums = trace[..., None, None] * eye - symmetric
    rows = sums.unbind(-2)
    crossed = torch.linalg.cross(rows[0], rows[1])
    determinant = (crossed * rows[2]).sum(-1)
    positive = (sums[..., 0, 0] > 0) & (crossed[..., 2] > 0) & (determinant > 0)
    return positive, torch.log(torch.where(positive, determinant, 1.0))


def _collinear(x_0: Tensor) -> Tensor:
    """Points (B, N, 3) on a line through the origin: the second invariant of the Gram vanishes."""
    gram = x_0.double().mT @ x_0.double()
    trace = torch.diagonal(gram, dim1=-2, dim2=-1).sum(-1)
    second = 0.5 * (trace**2 - gram.square().sum((-2, -1)))
    return second <= LINEAR**2 * trace**2


@final
class AlignedPermutationOrbit(OrbitEstimator):
    """Mean of the target over rotations and listed permutations, for `AlignedCoupling`.

    The rotation needs no average (see the module): without permutations the value is that of
    x_0 superposed on x_t. For collinear points, and where no permutation could have made x_t,
    it is the plain target.

    Parameters
    ----------
    kernel : AlignedCoupling
        With sigma = 0: with a bridge the weights would be an approximation.
    parametrization : Parametrization
        DATA or VELOCITY.

    Raises
    ------
    IncompatibleKernel
        Another kernel, or sigma > 0.
    BadInput
        Another parametrization.
    """

    group: type[Group] | None = SO3
    densities = None
    exact = True
    unbiased = True

    def __init__(
        self, kernel: NoiseKernel, *, parametrization: Parametrization = Parametrization.DATA
    ) -> None:
        if parametrization not in (Parametrization.DATA, Parametrization.VELOCITY):
            raise BadInput(
                f"AlignedPermutationOrbit averages DATA or VELOCITY, not {parametrization.value}"
            )
        self.check(kernel)
        assert isinstance(kernel, AlignedCoupling)
        self.kernel = kernel
        self.parametrization = parametrization

    def check(self, kernel: NoiseKernel) -> None:
        """Raise IncompatibleKernel unless the kernel is an aligned coupling without a bridge."""
        super().check(kernel)
        if not isinstance(kernel, AlignedCoupling) or kernel.schedule.sigma > 0:
            raise IncompatibleKernel(
                "AlignedPermutationOrbit needs AlignedCoupling with sigma = 0, got "
                f"{type(kernel).__name__}; use RotationOrbit for a Gaussian kernel"
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
        """Return the exact mean target and the diagnostics of the permutations."""
        permutations = None if context is None else context.permutations
        listed = None if context is None else context.permutation_mask
        if permutations is None:
            atoms = torch.arange(x_0.shape[1], device=x_0.device)
            permutations = atoms.expand(len(x_0), 1, -1)
        some = permutations.split(max(1, AT_ONCE[x_t.is_cuda] // max(1, x_0.numel())), 1)
        found = [_log_weights(self.kernel, x_t, x_0, t, part) for part in some]
        logits = torch.cat([log_weight for log_weight, _ in found], 1)
        if listed is not None:
            logits = logits.masked_fill(~listed, -torch.inf)
        weights = _normalised(logits)
        mean, done = torch.zeros_like(x_0, dtype=torch.float64), 0
        for part, (_, rotation) in zip(some, found, strict=True):
            share = weights[:, done : done + part.shape[1], None, None]
            mean = mean + (_images(x_0, part) @ (share * rotation).mT).sum(1)
            done += part.shape[1]
        averaged = weights.sum(1) > 0
        value = torch.where(averaged[:, None, None], mean, x_0.double())
        square = torch.where(averaged, weights.square().sum(1), 1.0)
        largest = torch.where(averaged, weights.amax(1), 1.0)
        data = Parametrization.DATA
        value = self.kernel.convert(value, data, self.parametrization, x_t.double(), t.double())
        if mask is not None:
            value = value * mask[..., None]
        return OrbitTarget(value.to(x_0.dtype), OrbitInfo(ess=1 / square, max_weight=largest))
