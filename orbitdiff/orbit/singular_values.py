"""Singular values of 3x3 matrices in closed form, without an iteration or singular vectors."""

from typing import NamedTuple

import torch

from orbitdiff.typing import Float, Tensor

__all__ = ["Invariants", "invariants"]


class Invariants(NamedTuple):
    """What a function of F needs that turns with F.

    Attributes
    ----------
    first : (...,), the largest singular value s_1
    plus, minus : (...,), s_2 + s_3 and s_2 - s_3, s_3 with the sign of det F
    square : (...,), |F|^2
    gram : (..., 3, 3), F^T F
    cofactor : (..., 3, 3), of F; its transpose is the adjugate
    """

    first: Tensor
    plus: Tensor
    minus: Tensor
    square: Tensor
    gram: Tensor
    cofactor: Tensor

    def of_mirror_image(self) -> "Invariants":
        """Return those of -F, whose s_3 has the other sign."""
        return self._replace(plus=self.minus, minus=self.plus)

    def flatten(self) -> "Invariants":
        """Join the leading axes into one."""
        numbers, matrices = self[:4], self[4:]
        return Invariants(
            *(part.reshape(-1) for part in numbers),
            *(part.reshape(-1, 3, 3) for part in matrices),
        )

    def rows(self, index: slice | Tensor) -> "Invariants":
        """Return those of some matrices."""
        return Invariants(*(part[index] for part in self))


def invariants(cross: Float[Tensor, "*B 3 3"]) -> Invariants:
    """Return singular values and the products they are made of.

    s_1 is a root of the characteristic cubic of F^T F in trigonometric form; s_2 +- s_3 follow
    from |adj F|^2 = s_1^2 (s_2^2 + s_3^2) + s_2^2 s_3^2 and det F = s_1 s_2 s_3 without the loss
    of digits that the cubic's small roots have. Nearly equal values are split only to the root of
    the rounding error, in ways that leave symmetric functions of them alone.

    Parameters
    ----------
    cross : (..., 3, 3)
        F; float64.

    Returns
    -------
    Invariants
    """
    gram = cross.mT @ cross
    square = torch.diagonal(gram, dim1=-2, dim2=-1).sum(-1)
    eye = torch.eye(3, dtype=cross.dtype, device=cross.device)
    rest = gram - (square / 3)[..., None, None] * eye
    spread = torch.sqrt(rest.square().sum((-2, -1)) / 6)
    scaled = rest / torch.where(spread > 0, spread, 1.0)[..., None, None]
    angle = torch.acos((_determinant(scaled, _cofactor(scaled)) / 2).clamp(-1, 1)) / 3
    first = torch.sqrt(square / 3 + 2 * spread * torch.cos(angle))
    safe = torch.where(first > 0, first, 1.0)
    cofactor = _cofactor(cross)
    product = _determinant(cross, cofactor) / safe
    squares = (cofactor.square().sum((-2, -1)) - product**2) / safe**2
    plus, minus = (torch.sqrt((squares + 2 * p).clamp(min=0)) for p in (product, -product))
    return Invariants(first, plus, minus, square, gram, cofactor)


def _cofactor(matrix: Tensor) -> Tensor:
    a, b, c = matrix.unbind(-2)
    return torch.stack([torch.linalg.cross(*pair) for pair in ((b, c), (c, a), (a, b))], -2)


def _determinant(matrix: Tensor, cofactor: Tensor) -> Tensor:
    return (matrix[..., 0, :] * cofactor[..., 0, :]).sum(-1)
