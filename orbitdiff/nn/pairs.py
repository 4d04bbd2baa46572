"""Sums over ordered pairs (i, j) of atoms from terms of atoms and of unordered pairs i < j.

A function of the difference f_j - f_i splits into an even part, equal for (i, j) and (j, i), and
an odd part that changes sign; both are computed once per unordered pair.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from orbitdiff.typing import Float, Tensor

__all__ = ["PairIndex", "pair_index", "pair_sum"]


class PairIndex(NamedTuple):
    """Unordered pairs i < j of N atoms, (P,) each.

    Attributes
    ----------
    first, second : i and j
    upper, lower : places of (i, j) and (j, i) among the N^2 ordered pairs
    diagonal : (N,), places of (i, i)
    """

    first: Tensor
    second: Tensor
    upper: Tensor
    lower: Tensor
    diagonal: Tensor


@lru_cache(maxsize=256)
def pair_index(count: int, device: torch.device) -> PairIndex:
    """Return the pairs of `count` atoms.

    Parameters
    ----------
    count : int
        N.
    device : device
    """
    first, second = torch.triu_indices(count, count, 1, device=device)
    diagonal = torch.arange(count, device=device) * (count + 1)
    return PairIndex(first, second, first * count + second, second * count + first, diagonal)


class _PairSum(torch.autograd.Function):
    """The sum and its adjoint, each with one buffer of N^2 pairs."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, even: Tensor, odd: Tensor, diagonal: Tensor
    ) -> Tensor:
        index = pair_index(rows.shape[1], rows.device)
        table = rows[:, :, None] + columns[:, None]
        flat = table.flatten(1, 2)
        flat.index_add_(1, index.upper, even + odd)
        flat.index_add_(1, index.lower, even - odd)
        flat[:, :: rows.shape[1] + 1] += diagonal
        return table

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        index = pair_index(grad.shape[1], grad.device)
        flat = grad.flatten(1, 2)
        upper, lower = flat.index_select(1, index.upper), flat.index_select(1, index.lower)
        diagonal = flat[:, :: grad.shape[1] + 1].sum((0, 1))
        return grad.sum(2), grad.sum(1), upper + lower, upper - lower, diagonal


def pair_sum(
    rows: Float[Tensor, "B N H"],
    columns: Float[Tensor, "B N H"],
    even: Float[Tensor, "B P H"],
    odd: Float[Tensor, "B P H"],
    diagonal: Float[Tensor, " H"],
) -> Float[Tensor, "B N N H"]:
    """rows_i + columns_j + even_ij + odd_ij for i < j, - odd_ji for i > j, `diagonal` for i = j.

    Parameters
    ----------
    rows, columns : (B, N, H)
        Terms of i and of j.
    even, odd : (B, P, H)
        Terms of the unordered pairs in the order of `pair_index`.
    diagonal : (H,)
        Even part at i = j, where the odd part vanishes.
    """
    total: Tensor = _PairSum.apply(rows, columns, even, odd, diagonal)
    return total
