"""Exact rotation moments of those components of a mixture that carry any weight.

With hundreds of permutations nearly all have a vanishing posterior weight at low noise. Singular
values bound each weight within a factor of five, without an integral or eigenvectors.
"""

import torch

from orbitdiff.orbit.matrix_fisher import OrthogonalMoments, orthogonal_moments
from orbitdiff.orbit.singular_values import Invariants, invariants
from orbitdiff.typing import Float, Int, Tensor

__all__ = ["SLACK", "log_constant_bound", "mixture_moments", "ragged_mixture_moments"]

NEGLIGIBLE = 30.0
"""A component is dropped below exp(-30) of the largest weight."""

SLACK = 1.62
"""The bound of a log constant is too large by at most this: log(2 (2 pi)^(1/2))."""

FEW = 4
"""Up to this many components the bounds cost more than they save."""


def log_constant_bound(known: Invariants) -> Float[Tensor, "*B"]:
    """Upper bound of log c(F) over SO(3): lambda - log prod_j (1 + delta_j / 2) / 2.

    c exp(-lambda) is the mean of exp(-sum_j delta_j q_j^2) over the sphere. A normal 4-vector g
    has the direction q and, independently of it, a mean |g|^2 / 4 of one, so that by Jensen's
    inequality the mean of exp(-sum_j delta_j g_j^2 / 4) is larger. The two differ most, by
    `SLACK`, where all three gaps are infinite.

    Parameters
    ----------
    known : Invariants
        Of F (...).

    Returns
    -------
    (...,)
    """
    largest, outer = known.first + known.plus, known.first + 0.5 * known.plus
    half = 0.5 * known.minus
    gaps = (1 + known.plus) * (1 + outer - half) * (1 + outer + half)
    return largest - 0.5 * torch.log(gaps)


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
    known = invariants(cross)
    above = log_constant_bound(known)
    if reflections:
        above = torch.maximum(above, log_constant_bound(known.of_mirror_image()))
    above = above + log_factor
    kept = above >= above.amax(1, keepdim=True) - (NEGLIGIBLE + SLACK)
    return _moments_of_kept(cross, kept, known, reflections)


def ragged_mixture_moments(
    cross: Float[Tensor, "M 3 3"], log_factor: Float[Tensor, " M"], owner: Int[Tensor, " M"]
) -> OrthogonalMoments:
    """As `mixture_moments` over SO(3), for mixtures of unequal size one after the other.

    Parameters
    ----------
    cross : (M, 3, 3)
    log_factor : (M,)
    owner : (M,)
        Mixture of each component.

    Returns
    -------
    OrthogonalMoments
    """
    if cross.is_cuda or len(cross) == 0:
        return orthogonal_moments(cross)
    known = invariants(cross)
    above = log_constant_bound(known) + log_factor
    best = torch.full_like(above, -torch.inf).scatter_reduce(0, owner, above, "amax")
    kept = above >= best[owner] - (NEGLIGIBLE + SLACK)
    return _moments_of_kept(cross, kept, known, reflections=False)


def _moments_of_kept(
    cross: Tensor, kept: Tensor, known: Invariants, reflections: bool
) -> OrthogonalMoments:
    if bool(kept.all()):
        return orthogonal_moments(cross, reflections=reflections, known=known)
    found = orthogonal_moments(cross[kept], reflections=reflections, known=known.rows(kept))
    log_constant = torch.full_like(known.first, -torch.inf)
    log_constant[kept] = found.log_constant
    mean, reflected = torch.zeros_like(cross), torch.zeros_like(known.first)
    mean[kept], reflected[kept] = found.mean, found.reflected
    return OrthogonalMoments(log_constant, mean, reflected)
