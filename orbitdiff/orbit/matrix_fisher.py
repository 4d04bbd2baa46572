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
from orbitdiff.typing import Float, Tensor

__all__ = [
    "OrthogonalMoments",
    "fisher_moments",
    "orthogonal_moments",
    "sphere_moments",
]

NODES = 24
"""Nodes of the contour, half of them used by symmetry: the error of E[R] is below 2e-11."""


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


def _talbot(nodes: int) -> tuple[list[float], ...]:
    """Return parts of the upper nodes z_k; log size and phase of (2 / N) exp(z_k) z'_k."""
    scale, shift, slope, angle = 0.5017, 0.6122, 0.2645, 0.6407
    rows = []
    for k in range(nodes // 2):
        theta = (2 * k + 1) * math.pi / nodes
        turned = angle * theta
        cotangent = 1 / math.tan(turned)
        z = nodes * complex(scale * theta * cotangent - shift, slope * theta)
        derivative = complex(scale * (cotangent - turned / math.sin(turned) ** 2), slope)
        factor = 2 * derivative
        log_size, phase = z.real + math.log(abs(factor)), z.imag + cmath.phase(factor)
        rows.append((z.real, z.imag, log_size, phase))
    return tuple(list(column) for column in zip(*rows, strict=True))


CONTOUR = _talbot(NODES)


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
    cross: Float[Tensor, "*B 3 3"], *, reflections: bool = False
) -> OrthogonalMoments:
    """Moments of p(g) prop exp tr(F^T g) over SO(3) or O(3).

    An improper element is -R, so that its half of O(3) has -F in place of F:
    E[g] = w E_F[R] - (1 - w) E_-F[R], w = c(F) / (c(F) + c(-F)). K(-F) = -K(F) has the same
    eigenvectors.

    Parameters
    ----------
    cross : (..., 3, 3)
        F; float64.
    reflections : bool
        O(3) instead of SO(3).

    Returns
    -------
    OrthogonalMoments
    """
    eigen = quaternion_eigen(cross)
    log_constant, mean = fisher_moments(eigen)
    if not reflections:
        return OrthogonalMoments(log_constant, mean, torch.zeros_like(log_constant))
    log_other, other = fisher_moments(QuaternionEigen(-eigen.values, eigen.vectors))
    reflected = torch.sigmoid(log_other - log_constant)
    weight = reflected[..., None, None]
    return OrthogonalMoments(
        torch.logaddexp(log_constant, log_other) - math.log(2.0),
        (1 - weight) * mean - weight * other,
        reflected,
    )
