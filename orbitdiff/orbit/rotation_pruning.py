"""Exact rotation moments of those components of a mixture that carry any weight.

With hundreds of permutations nearly all have a vanishing posterior weight at low noise. The
largest exponent max_R tr(F^T R), which singular values give without eigenvectors or moments,
bounds the weight of a component from above; the exact weight of the most promising one bounds
the total from below.
"""

import torch

from orbitdiff.orbit.matrix_fisher import OrthogonalMoments, orthogonal_moments
from orbitdiff.typing import Float, Tensor

__all__ = ["largest_exponent", "mixture_moments"]

NEGLIGIBLE = 30.0
"""A component is dropped below exp(-30) of the largest weight."""

FEW = 4
"""Up to this many components the bounds cost more than they save."""


def largest_exponent(
    cross: Float[Tensor, "*B 3 3"], *, reflections: bool = False
) -> Float[Tensor, "*B"]:
    """Return max_R tr(F^T R) = s_1 + s_2 + s_3, s_3 with the sign of det F.

    The largest singular value s_1 is a root of the characteristic cubic of F^T F in
    trigonometric form; s_2 +- s_3 follow from |adj F|^2 = s_1^2 (s_2^2 + s_3^2) + s_2^2 s_3^2
    and det F = s_1 s_2 s_3 without the loss of digits that the cubic's small roots have.

    Parameters
    ----------
    cross : (..., 3, 3)
        F; float64.
    reflections : bool
        Over O(3) instead of SO(3): s_3 without its sign.

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
    if reflections:
        product = product.abs()
    squares = (adjugate - product**2) / safe**2
    return first + torch.sqrt((squares + 2 * product).clamp(min=0))


def _adjugate_and_determinant(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Squared Frobenius norm of the adjugate, and the determinant."""
    a, b, c = matrix.unbind(-2)
    minors = torch.stack([torch.linalg.cross(*pair) for pair in ((a, b), (b, c), (c, a))], -2)
    return minors.square().sum((-2, -1)), (minors[..., 0, :] * c).sum(-1)


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
    above = largest_exponent(cross, reflections=reflections) + log_factor
    rows = torch.arange(len(cross), device=cross.device)
    best = above.argmax(1)
    known = orthogonal_moments(cross[rows, best], reflections=reflections).log_constant
    below = known + log_factor[rows, best]
    kept = above >= below[:, None] - NEGLIGIBLE
    if bool(kept.all()):
        return orthogonal_moments(cross, reflections=reflections)
    found = orthogonal_moments(cross[kept], reflections=reflections)
    log_constant = torch.full_like(log_factor, -torch.inf)
    log_constant[kept] = found.log_constant
    mean, reflected = torch.zeros_like(cross), torch.zeros_like(log_factor)
    mean[kept], reflected[kept] = found.mean, found.reflected
    return OrthogonalMoments(log_constant, mean, reflected)
