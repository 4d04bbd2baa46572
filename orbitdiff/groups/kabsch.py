"""Optimal superposition: the temperature -> 0 limit of the posterior mean rotation.

The mean of the matrix Fisher distribution exp(tr(F^T R) / temperature) tends to the rotation
that maximises tr(F^T R), which superposes the points. It is no posterior mean at temperature 1.
"""

import torch

from orbitdiff.groups.quaternion import quaternion_eigen, to_rotation
from orbitdiff.typing import Float, Tensor

__all__ = ["kabsch", "superposing"]


@torch.no_grad()
def kabsch(
    source: Float[Tensor, "*#B N 3"], target: Float[Tensor, "*#B N 3"]
) -> Float[Tensor, "*B 3 3"]:
    """Rotation R about the origin that minimises sum_i |R source_i - target_i|^2.

    Parameters
    ----------
    source, target : (..., N, 3)
        Points, angstrom, zero in padding; one of the two centred. Leading axes broadcast.

    Returns
    -------
    (..., 3, 3)
        Proper, float64. Any of the best ones where there are several (collinear points).

    References
    ----------
    Kabsch 1976; Horn 1987 (as the leading eigenvector of a quaternion matrix).
    """
    return superposing(target.double().mT @ source.double())


@torch.no_grad()
def superposing(cross: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 3 3"]:
    """Rotation R that maximises tr(F^T R).

    Parameters
    ----------
    cross : (..., 3, 3)
        F = target^T source, float64.

    Returns
    -------
    (..., 3, 3)
    """
    values, vectors = quaternion_eigen(cross)
    best = values.argmax(-1)[..., None, None].expand(*values.shape, 1)
    quaternion = vectors.gather(-1, best)
    return to_rotation(quaternion @ quaternion.mT)
