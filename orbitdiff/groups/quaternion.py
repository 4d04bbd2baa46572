"""Rotations as unit quaternions: each trace tr(F^T R) is a quadratic form of the quaternion.

R(q)_ij = sum_ab FORM[i, j, a, b] q_a q_b, hence tr(F^T R(q)) = q^T K q with K_ab = sum_ij
FORM[i, j, a, b] F_ij. The eigenvalues and eigenvectors of K are all that a mean rotation, a
likelihood over rotations and an optimal superposition need.
"""

from functools import lru_cache
from typing import NamedTuple

import torch

from orbitdiff.typing import Float, Tensor

__all__ = ["QuaternionEigen", "davenport", "jacobi_eigen", "quaternion_eigen", "to_rotation"]

SWEEPS = 6
"""Sweeps after which a 4x4 matrix is diagonal to rounding (convergence is quadratic)."""

ROUNDS = (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2)))
"""Pairs of axes of one sweep; the two pairs of a round are disjoint."""


class QuaternionEigen(NamedTuple):
    """Eigenvalues (..., 4), in no order, and eigenvectors as columns (..., 4, 4)."""

    values: Tensor
    vectors: Tensor


@lru_cache(maxsize=16)
def _form(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Matrix (9, 16) of FORM for q = (w, x, y, z), symmetric in its two quaternion indices."""
    rows = [
        [(0, 0, 1), (1, 1, 1), (2, 2, -1), (3, 3, -1)],
        [(1, 2, 2), (0, 3, -2)],
        [(1, 3, 2), (0, 2, 2)],
        [(1, 2, 2), (0, 3, 2)],
        [(0, 0, 1), (1, 1, -1), (2, 2, 1), (3, 3, -1)],
        [(2, 3, 2), (0, 1, -2)],
        [(1, 3, 2), (0, 2, -2)],
        [(2, 3, 2), (0, 1, 2)],
        [(0, 0, 1), (1, 1, -1), (2, 2, -1), (3, 3, 1)],
    ]
    form = torch.zeros(9, 4, 4, dtype=torch.float64)
    for entry, terms in enumerate(rows):
        for a, b, factor in terms:
            form[entry, a, b] += factor / 2
            form[entry, b, a] += factor / 2
    return form.flatten(1).to(device=device, dtype=dtype)


def to_rotation(moment: Float[Tensor, "*B 4 4"]) -> Float[Tensor, "*B 3 3"]:
    """Rotation matrix that is linear in the outer product q q^T of a unit quaternion.

    Parameters
    ----------
    moment : (..., 4, 4)
        q q^T, or an average of it: the average of R comes out.

    Returns
    -------
    (..., 3, 3)
    """
    form = _form(moment.dtype, moment.device)
    return (moment.flatten(-2) @ form.T).unflatten(-1, (3, 3))


def davenport(cross: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 4 4"]:
    """Return K with q^T K q = tr(F^T R(q)), symmetric and traceless.

    Parameters
    ----------
    cross : (..., 3, 3)
        F.

    Returns
    -------
    (..., 4, 4)

    References
    ----------
    Davenport 1968; Horn 1987.
    """
    form = _form(cross.dtype, cross.device)
    return (cross.flatten(-2) @ form).unflatten(-1, (4, 4))


def quaternion_eigen(cross: Float[Tensor, "*B 3 3"]) -> QuaternionEigen:
    """Eigenvalues and eigenvectors of K(F), without host synchronisation on CUDA.

    Parameters
    ----------
    cross : (..., 3, 3)
        F, float64.

    Returns
    -------
    QuaternionEigen
    """
    matrix = davenport(cross)
    # eigh reads an error flag back from the device
    if matrix.is_cuda:
        return jacobi_eigen(matrix)
    return QuaternionEigen(*torch.linalg.eigh(matrix))


def jacobi_eigen(matrix: Float[Tensor, "*B 4 4"]) -> QuaternionEigen:
    """Eigenvalues and eigenvectors of symmetric 4x4 matrices by cyclic Jacobi rotations.

    A fixed number of sweeps of plain tensor operations: no branch depends on the data.

    Parameters
    ----------
    matrix : (..., 4, 4)
        Symmetric.

    Returns
    -------
    QuaternionEigen

    References
    ----------
    Golub and Van Loan, Matrix Computations, section 8.5.
    """
    vectors = torch.eye(4, dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
    for _ in range(SWEEPS):
        for pairs in ROUNDS:
            turn = _round(matrix, pairs)
            matrix = turn.mT @ matrix @ turn
            vectors = vectors @ turn
    return QuaternionEigen(torch.diagonal(matrix, dim1=-2, dim2=-1), vectors)


def _round(matrix: Tensor, pairs: tuple[tuple[int, int], ...]) -> Tensor:
    """Orthogonal matrix that zeroes the entry of each pair of axes."""
    zero = torch.zeros_like(matrix[..., 0, 0])
    entries = [[zero] * 4 for _ in range(4)]
    for p, q in pairs:
        gap = matrix[..., q, q] - matrix[..., p, p]
        twice = 2 * matrix[..., p, q]
        size = gap.abs() + torch.hypot(gap, twice)
        safe = torch.where(size > 0, size, 1.0)
        tangent = torch.where(gap < 0, -twice, twice) / safe
        cosine = torch.rsqrt(1 + tangent * tangent)
        sine = tangent * cosine
        entries[p][p] = entries[q][q] = cosine
        entries[p][q], entries[q][p] = sine, -sine
    return torch.stack([torch.stack(row, -1) for row in entries], -2)
