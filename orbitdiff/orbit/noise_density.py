"""The Gaussian density of x_t = alpha x_0 + noise, as a mean over rotations needs it."""

import math
from typing import NamedTuple

import torch

from orbitdiff.orbit.rotation_checks import check_precision
from orbitdiff.typing import Bool, Float, Tensor

__all__ = ["NoiseDensity", "noise_density"]


class NoiseDensity(NamedTuple):
    """log p = log_norm - quadratic_t / 2 - alpha^2 quadratic_0 / 2 + alpha tr(whitened^T x_0).

    Attributes
    ----------
    whitened : (B, N, 3), Sigma^+ x_t
    quadratic_t : (B,), tr(x_t^T Sigma^+ x_t)
    quadratic_0 : (B, C), the same of each data point
    log_norm : (B,)
    precision : (B, N, N), Sigma^+, zero in padding; None with sigma
    """

    whitened: Tensor
    quadratic_t: Tensor
    quadratic_0: Tensor
    log_norm: Tensor
    precision: Tensor | None

    def rows(self, some: slice) -> "NoiseDensity":
        """Return some samples."""
        return NoiseDensity(
            self.whitened[some],
            self.quadratic_t[some],
            self.quadratic_0[some],
            self.log_norm[some],
            None if self.precision is None else self.precision[some],
        )


def noise_density(
    x_t: Float[Tensor, "B N 3"],
    points: Float[Tensor, "B C N 3"],
    real: Bool[Tensor, "B N"],
    *,
    sigma: Float[Tensor, " B"] | None,
    precision: Float[Tensor, "B N N"] | None,
    checked: bool,
) -> NoiseDensity:
    """Return the parts of the density with covariance sigma^2 I or Sigma (x) I_3.

    Parameters
    ----------
    x_t, points
        Float64, zero in padding.
    real : (B, N) bool
    sigma : (B,), float64
        In 3n dimensions, n real atoms.
    precision : (B, N, N)
        Sigma^+, instead of sigma; in the 3(n - 1) centred dimensions.
    checked : bool
        Look at the values of `precision`, which synchronises on CUDA.

    Raises
    ------
    BadInput
        A precision that is none.
    """
    if sigma is not None:
        rate = sigma**-2
        return NoiseDensity(
            rate[:, None, None] * x_t,
            rate * x_t.square().sum((1, 2)),
            rate[:, None] * points.square().sum((2, 3)),
            1.5 * real.sum(1).double() * torch.log(rate / (2 * math.pi)),
            None,
        )
    assert precision is not None  # one of the two is given
    pairs = real[:, :, None] & real[:, None, :]
    matrix = precision.double().masked_fill(~pairs, 0.0)
    size = real.sum(1).clamp(min=1).double()
    # the mean direction and padding get eigenvalue one, so that det is the pseudo-determinant
    filled = matrix + pairs / size[:, None, None] + torch.diag_embed((~real).double())
    factor, info = torch.linalg.cholesky_ex(filled)
    if checked:
        check_precision(matrix, info)
    log_det = 2 * torch.log(torch.diagonal(factor, dim1=1, dim2=2)).sum(1)
    whitened = matrix @ x_t
    return NoiseDensity(
        whitened,
        (x_t * whitened).sum((1, 2)),
        (points * (matrix[:, None] @ points)).sum((2, 3)),
        1.5 * (log_det - (size - 1) * math.log(2 * math.pi)),
        matrix,
    )
