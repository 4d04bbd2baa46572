"""Exact rotation moments of those components of a mixture that carry any weight.

With hundreds of permutations nearly all have a vanishing posterior weight at low noise. Their
weights are known well enough from the singular values alone, without eigenvectors or moments.
"""

import math

import torch

from orbitdiff.orbit.matrix_fisher import (
    ROUGH_NODES,
    OrthogonalMoments,
    orthogonal_moments,
    sphere_moments,
)
from orbitdiff.typing import Float, Tensor

__all__ = ["mixture_moments", "rough_log_constant"]

NEGLIGIBLE = 30.0
"""A component is dropped below exp(-30) of the largest weight."""

FEW = 8
"""Up to this many components the rough pass costs more than it saves."""


def rough_log_constant(
    cross: Float[Tensor, "*B 3 3"], *, reflections: bool = False
) -> Float[Tensor, "*B"]:
    """Log constant of the matrix Fisher distribution to about 1e-4 + 3e-8 s_1.

    The largest singular value s_1 is a root of the characteristic cubic of F^T F in
    trigonometric form; s_2 +- s_3 follow from |adj F|^2 = s_1^2 (s_2^2 + s_3^2) + s_2^2 s_3^2
    and det F = s_1 s_2 s_3 without the loss of digits that the cubic's small roots have.

    Parameters
    ----------
    cross : (..., 3, 3)
        F; float64.
    reflections : bool
        O(3) instead of SO(3).

    Returns
    -------
    (...,)
    """
    gram = cross.mT @ cross
    mean = torch.diagonal(gram, dim1=-2, dim2=-1).sum(-1) / 3
    eye = torch.eye(3, dtype=cross.dtype, device=cross.device)
    rest = gram - mean[..., None, None] * eye
    spread = torch.sqrt(rest.square().sum((-2, -1)) / 6)
    scaled = rest / torch.where(spread > 0, spread, 1.0)[..., None, None]
    angle = torch.acos((_adjugate_and_determinant(scaled)[1] / 2).clamp(-1, 1)) / 3
    first = torch.sqrt(mean + 2 * spread * torch.cos(angle))
    safe = torch.where(first > 0, first, 1.0)
    adjugate, determinant = _adjugate_and_determinant(cross)
    product = determinant / safe
    squares = (adjugate - product**2) / safe**2
    plus = torch.sqrt((squares + 2 * product).clamp(min=0))
    minus = torch.sqrt((squares - 2 * product).clamp(min=0))
    proper = _log_constant(first, plus, minus)
    if not reflections:
        return proper
    # the other half of O(3) has -s_3 for s_3
    return torch.logaddexp(proper, _log_constant(first, minus, plus)) - math.log(2.0)


def _adjugate_and_determinant(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Squared Frobenius norm of the adjugate, and the determinant."""
    a, b, c = matrix.unbind(-2)
    minors = torch.stack([torch.linalg.cross(*pair) for pair in ((a, b), (b, c), (c, a))], -2)
    return minors.square().sum((-2, -1)), (minors[..., 0, :] * c).sum(-1)


def _log_constant(first: Tensor, plus: Tensor, minus: Tensor) -> Tensor:
    """Log constant from s_1, s_2 + s_3 and s_2 - s_3."""
    middle = 2 * first + plus
    gaps = torch.stack([torch.zeros_like(first), 2 * plus, middle - minus, middle + minus], -1)
    return first + plus + sphere_moments(gaps.clamp(min=0), ROUGH_NODES)[0]


def mixture_moments(
    cross: Float[Tensor, "B M 3 3"], log_factor: Float[Tensor, "B M"], *, reflections: bool
) -> OrthogonalMoments:
    """Moments of the components of mixtures with weights c(F_m) exp(log_factor_m).

    On CUDA every component is computed, because a choice would synchronise.

    Parameters
    ----------
    cross : (B, M, 3, 3)
        F of each component; float64.
    log_factor : (B, M)
        Log of the remaining factor of the weight, -inf for a component that does not count.
    reflections : bool
        O(3) instead of SO(3).

    Returns
    -------
    OrthogonalMoments
        Zeros, with a log constant of -inf, for dropped components.
    """
    if cross.is_cuda or cross.shape[1] <= FEW or cross.shape[0] == 0:
        return orthogonal_moments(cross, reflections=reflections)
    rough = rough_log_constant(cross, reflections=reflections) + log_factor
    kept = rough >= rough.amax(1, keepdim=True) - NEGLIGIBLE
    found = orthogonal_moments(cross[kept], reflections=reflections)
    log_constant = torch.full_like(log_factor, -torch.inf)
    log_constant[kept] = found.log_constant
    mean, reflected = torch.zeros_like(cross), torch.zeros_like(log_factor)
    mean[kept], reflected[kept] = found.mean, found.reflected
    return OrthogonalMoments(log_constant, mean, reflected)
