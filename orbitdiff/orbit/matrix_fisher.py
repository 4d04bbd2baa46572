"""Moments of the matrix Fisher distribution p(R) prop exp tr(F^T R) over rotations.

As a density of quaternions it is a Bingham distribution, exp(q^T K q) on the sphere S^3. Its
constant is an inverse Laplace transform whose singularities all lie at the negative gaps
-delta_j = lambda_j - max lambda of the eigenvalues of K:

    c(F) exp(-max lambda) = (1 / 2 pi i) int exp(z) prod_j (z + delta_j)^(-1/2) dz.

A Talbot contour with a fixed number of nodes is accurate for every F, from no signal to a point
mass and for planar, linear and mirror-image data, because the integrand is algebraic: its size
on the contour relative to that at z = 1 does not grow with the gaps. The second moments of the
quaternion are the derivatives with respect to the gaps, one more factor under the integral.
"""

import cmath
import math
from functools import lru_cache
from typing import NamedTuple

import torch

from orbitdiff.groups.quaternion import QuaternionEigen, quaternion_eigen, to_rotation
from orbitdiff.orbit.fisher_polynomial import polynomial_moments
from orbitdiff.orbit.singular_values import Invariants, invariants
from orbitdiff.orbit.talbot import talbot
from orbitdiff.typing import Float, Tensor

__all__ = [
    "OrthogonalMoments",
    "fisher_moments",
    "orthogonal_moments",
    "sphere_moments",
]

MANY = 256
"""From this many matrices on, polynomials of F cost less than eigenvectors."""

AT_ONCE = {False: 2**10, True: 2**17}
"""Matrices of one pass on the CPU and on CUDA: below 10 MB and 500 MB of work space."""


class OrthogonalMoments(NamedTuple):
    """Moments over SO(3) or O(3).

    Attributes
    ----------
    log_constant : (...,), log of the Haar average of exp tr(F^T g)
    mean : (..., 3, 3), E[g]
    reflected : (...,), probability of det g = -1
    """

    log_constant: Tensor
    mean: Tensor
    reflected: Tensor


CONTOUR = tuple(
    zip(*[(z.real, z.imag, math.log(abs(w)), cmath.phase(w)) for z, w in talbot()], strict=True)
)
"""Real and imaginary parts of the nodes, log size and phase of the weights."""


@lru_cache(maxsize=16)
def _contour(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """Columns of the contour as tensors, copied to a device once."""
    return tuple(torch.tensor(column, dtype=dtype, device=device) for column in CONTOUR)


def sphere_moments(
    gaps: Float[Tensor, "*B 4"],
) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B 4"]]:
    """Constant and second moments of the density exp(-sum_j delta_j q_j^2) on S^3.

    Parameters
    ----------
    gaps : (..., 4)
        delta_j >= 0, the smallest zero; float64.

    Returns
    -------
    log_constant : (...,)
        Log of the average of the density over the sphere.
    moments : (..., 4)
        E[q_j^2], which sum to one.

    References
    ----------
    Trefethen, Weideman and Schmelzer 2006 (the contour); Bingham 1974.
    """
    real, imag, log_size, angle = _contour(gaps.dtype, gaps.device)
    shifted = gaps[..., None] + real
    square = shifted * shifted + imag * imag
    # half the sum of the arguments is that of the product of principal roots; each lies in
    # (0, pi), so that of a product of two in (0, 2 pi)
    first, second = shifted[..., :2, :], shifted[..., 2:, :]
    double = torch.atan2(imag * (first + second), first * second - imag * imag)
    double = torch.where(double < 0, double + 2 * math.pi, double)
    phase = angle - 0.5 * double.sum(-2)
    size = torch.exp(log_size - 0.25 * torch.log(square.prod(-2)))
    cosine, sine = size * torch.cos(phase), size * torch.sin(phase)
    constant = sine.sum(-1)
    moments = ((sine[..., None, :] * shifted - cosine[..., None, :] * imag) / square).sum(-1)
    return torch.log(constant), moments / moments.sum(-1, keepdim=True)


def fisher_moments(eigen: QuaternionEigen) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B 3 3"]]:
    """Log constant and mean rotation from the eigenvalues and eigenvectors of K(F).

    Parameters
    ----------
    eigen : QuaternionEigen
        Of K(F); float64.

    Returns
    -------
    log_constant : (...,)
        Log of the Haar average of exp tr(F^T R).
    mean : (..., 3, 3)
        E[R] = d log c / d F.
    """
    values, vectors = eigen
    largest = values.amax(-1)
    log_constant, moments = sphere_moments(largest[..., None] - values)
    return largest + log_constant, to_rotation((vectors * moments[..., None, :]) @ vectors.mT)


def orthogonal_moments(
    cross: Float[Tensor, "*B 3 3"],
    *,
    reflections: bool = False,
    known: Invariants | None = None,
) -> OrthogonalMoments:
    """Moments of p(g) prop exp tr(F^T g) over SO(3) or O(3).

    An improper element is -R, so that its half of O(3) has -F in place of F:
    E[g] = w E_F[R] - (1 - w) E_-F[R], w = c(F) / (c(F) + c(-F)).

    Parameters
    ----------
    cross : (..., 3, 3)
        F; float64.
    reflections : bool
        O(3) instead of SO(3).
    known : Invariants, optional
        Of F, where they have been computed already.

    Returns
    -------
    OrthogonalMoments
    """
    flat = cross.reshape(-1, 3, 3)
    size = AT_ONCE[cross.is_cuda]
    # which matrices need eigenvectors after all is known on the host alone
    if cross.is_cuda or len(flat) < MANY:
        parts = [_by_eigenvectors(part, reflections) for part in flat.split(size)]
    else:
        flat_known = None if known is None else known.flatten()
        parts = []
        for start in range(0, len(flat), size):
            rows = slice(start, start + size)
            some = invariants(flat[rows]) if flat_known is None else flat_known.rows(rows)
            parts.append(_by_polynomials(flat[rows], some, reflections))
    log_constant, mean, reflected = (torch.cat(part) for part in zip(*parts, strict=True))
    shape = cross.shape[:-2]
    return OrthogonalMoments(
        log_constant.view(shape), mean.view(cross.shape), reflected.view(shape)
    )


def _by_eigenvectors(cross: Tensor, reflections: bool) -> OrthogonalMoments:
    """K(-F) = -K(F) has the same eigenvectors."""
    eigen = quaternion_eigen(cross)
    found = fisher_moments(eigen)
    if not reflections:
        return _proper(*found)
    return _both(*found, *fisher_moments(QuaternionEigen(-eigen.values, eigen.vectors)))


def _by_polynomials(cross: Tensor, known: Invariants, reflections: bool) -> OrthogonalMoments:
    found = _polynomial_or_eigenvectors(cross, known)
    if not reflections:
        return _proper(*found)
    return _both(*found, *_polynomial_or_eigenvectors(-cross, known.of_mirror_image()))


def _polynomial_or_eigenvectors(cross: Tensor, known: Invariants) -> tuple[Tensor, Tensor]:
    log_constant, mean, accurate = polynomial_moments(cross, known)
    if not bool(accurate.all()):
        rest = ~accurate
        log_constant[rest], mean[rest] = fisher_moments(quaternion_eigen(cross[rest]))
    return log_constant, mean


def _proper(log_constant: Tensor, mean: Tensor) -> OrthogonalMoments:
    return OrthogonalMoments(log_constant, mean, torch.zeros_like(log_constant))


def _both(
    log_constant: Tensor, mean: Tensor, log_other: Tensor, other: Tensor
) -> OrthogonalMoments:
    """Mean of both halves of O(3), given those over rotations of F and of -F."""
    reflected = torch.sigmoid(log_other - log_constant)
    weight = reflected[..., None, None]
    return OrthogonalMoments(
        torch.logaddexp(log_constant, log_other) - math.log(2.0),
        (1 - weight) * mean - weight * other,
        reflected,
    )
