"""Mean rotation of a matrix Fisher distribution as a polynomial of F, without eigenvectors.

The second moments of the quaternion are a function of the matrix of gaps D = max lambda - K,

    E[q q^T] = (1 / 2 c) (1 / 2 pi i) int exp(z) det(z + D)^(-1/2) (z + D)^(-1) dz,

and (z + D)^(-1) is a cubic polynomial of D. In Newton's form, with the gaps as nodes from the
largest down, its coefficients r_3, r_32, r_321, r_3210 are contour sums of one sign over one, two,
three and four factors 1 / (z + delta_j), so that equal gaps need no limit. As a rotation,
K is 4 F, K^2 is 8 cof F and K^3 is 12 |F|^2 F - 8 F F^T F, hence

    E[R] = 4 (r_32 + 2 s_1 r_321 + (lambda^2 + |F|^2) r_3210) F + 8 (r_321 + lambda r_3210) cof F
           - 8 r_3210 F F^T F,   lambda = s_1 + s_2 + s_3, signs of the r absorbed.
"""

import cmath
from functools import lru_cache
from typing import NamedTuple

import torch

from orbitdiff.orbit.singular_values import Invariants
from orbitdiff.orbit.talbot import talbot
from orbitdiff.typing import Bool, Float, Tensor

__all__ = ["PolynomialMoments", "polynomial_moments"]

CONDITION = 1e3
"""Largest loss of digits that passes: the error of E[R] is below 1e-11."""


class PolynomialMoments(NamedTuple):
    """Log constant and mean of each F, and where they are accurate.

    Attributes
    ----------
    log_constant : (...,)
    mean : (..., 3, 3)
    accurate : (...,) bool
        False where gaps differ by orders of magnitude or nearly vanish at low noise: flat
        molecules with a tiny width, and images close to a mirror image. Others need eigenvectors.
    """

    log_constant: Float[Tensor, "*B"]
    mean: Float[Tensor, "*B 3 3"]
    accurate: Bool[Tensor, "*B"]


class _Contour(NamedTuple):
    """Parts of z_k, (Im z_k)^2, and parts of w_k z_k^(-1/2) and 1 / z_k, each (nodes,)."""

    real: Tensor
    imag: Tensor
    imag_square: Tensor
    weight: tuple[Tensor, Tensor]
    inverse: tuple[Tensor, Tensor]


@lru_cache(maxsize=16)
def _contour(device: torch.device) -> _Contour:
    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=device)

    def parts(values: list[complex]) -> tuple[Tensor, Tensor]:
        return column([v.real for v in values]), column([v.imag for v in values])

    real, imag = parts([z for z, _ in talbot()])
    weight = parts([w / cmath.sqrt(z) for z, w in talbot()])
    return _Contour(real, imag, imag * imag, weight, parts([1 / z for z, _ in talbot()]))


def polynomial_moments(cross: Float[Tensor, "*B 3 3"], known: Invariants) -> PolynomialMoments:
    """Moments of p(R) prop exp tr(F^T R) from the singular values and products of F.

    Parameters
    ----------
    cross : (..., 3, 3)
        F; float64.
    known : Invariants
        Of F.

    Returns
    -------
    PolynomialMoments
    """
    largest = known.first + known.plus
    # from the smallest: 2 (s_2 + s_3), 2 (s_1 + s_3), 2 (s_1 + s_2)
    outer = 2 * known.first + known.plus
    gaps = torch.stack([2 * known.plus, outer - known.minus, outer + known.minus])
    constant, (r_3, r_32, r_321, r_3210) = _newton_coefficients(gaps)
    one, two, three = gaps
    trace = (
        4 * r_3
        + (3 * three - two - one) * r_32
        + (three * two + (three - one) * (two - one)) * r_321
        + one * two * three * r_3210
    )
    linear = 4 * (r_32 + 2 * known.first * r_321 + (largest**2 + known.square) * r_3210)
    quadratic, cubic = 8 * (r_321 + largest * r_3210), -8 * r_3210
    a, b, c = ((part / trace)[..., None, None] for part in (linear, quadratic, cubic))
    mean = a * cross + b * known.cofactor + c * (cross @ known.gram)
    return PolynomialMoments(largest + torch.log(constant), mean, _accurate(known, gaps))


def _newton_coefficients(gaps: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Constant, and twice c times r_3 to r_3210, of gaps (3, ...) from the smallest up."""
    nodes = _contour(gaps.device)
    real = gaps[..., None] + nodes.real
    square = torch.addcmul(nodes.imag_square, real, real)
    size = torch.sqrt(square)
    # each argument lies in (0, pi), so that of a product of two in (0, 2 pi)
    one, two, three = real
    root = _upper_root(
        torch.addcmul(-nodes.imag_square, one, two), nodes.imag * (one + two), size[0] * size[1]
    )
    other = _upper_root(three, nodes.imag, size[2])
    under_real = root[0] * other[0] - root[1] * other[1]
    under_imag = root[0] * other[1] + root[1] * other[0]
    scale = size.prod(0).reciprocal()
    weight = nodes.weight
    cosine = (weight[0] * under_real + weight[1] * under_imag) * scale
    sine = (weight[1] * under_real - weight[0] * under_imag) * scale
    constant = sine.sum(-1)
    inverse = square.reciprocal()
    by_real, by_imag = real * inverse, nodes.imag * inverse
    found = []
    for gap in (2, 1, 0):
        cosine, sine = (
            torch.addcmul(cosine * by_real[gap], sine, by_imag[gap]),
            torch.addcmul(sine * by_real[gap], cosine, by_imag[gap], value=-1),
        )
        found.append(sine.sum(-1))
    found.append(sine @ nodes.inverse[0] + cosine @ nodes.inverse[1])
    return constant, tuple(found)


def _upper_root(real: Tensor, imag: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Square root in the upper half plane of a number of a given size."""
    large = torch.sqrt(0.5 * (size + real.abs()))
    small = 0.5 * imag / large
    left = real < 0
    return (
        torch.where(left, small, torch.copysign(large, imag)),
        torch.where(left, large, small.abs()),
    )


def _accurate(known: Invariants, gaps: Tensor) -> Tensor:
    """Where neither the polynomial nor s_2 + s_3 loses more digits than CONDITION."""
    one, two, three = gaps
    wide = three**2 <= CONDITION * one.clamp(min=1) * two.clamp(min=1)
    return wide & (known.minus**2 <= CONDITION * known.plus * known.plus.clamp(min=1))
