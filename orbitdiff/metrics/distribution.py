"""Distances between distributions on the line, for the toy experiment."""

import torch

from orbitdiff.errors import BadInput
from orbitdiff.typing import Float, Tensor

__all__ = ["mean_distance_to_orbit", "wasserstein2_sorted"]


def wasserstein2_sorted(x: Float[Tensor, "... M"], y: Float[Tensor, "... M_y"]) -> Tensor:
    """Wasserstein-2 distance of two samples of equal size on the line.

    W2^2 = 1/M sum_i (x_(i) - y_(i))^2 with both samples sorted

    Parameters
    ----------
    x, y : (..., M)
        Leading axes broadcast: one distance each.

    Returns
    -------
    (...)
        W2, not its square.

    Raises
    ------
    BadInput
        Empty samples, or of different size.
    """
    if x.shape[-1] != y.shape[-1] or x.shape[-1] == 0:
        raise BadInput(
            f"expected two samples of equal size, at least one point each, got {x.shape[-1]} and "
            f"{y.shape[-1]}; draw as many points of both"
        )
    return (x.sort(-1).values - y.sort(-1).values).square().mean(-1).sqrt()


def mean_distance_to_orbit(x: Float[Tensor, "... M"]) -> Tensor:
    """Mean distance of points to the nearer one of -1 and +1.

    1/M sum_i |x_i - sign(x_i)|

    Parameters
    ----------
    x : (..., M)

    Returns
    -------
    (...)

    Raises
    ------
    BadInput
        No points.
    """
    if x.shape[-1] == 0:
        raise BadInput("expected at least one point, got none")
    signs = torch.where(x < 0, -torch.ones_like(x), torch.ones_like(x))
    return (x - signs).abs().mean(-1)
