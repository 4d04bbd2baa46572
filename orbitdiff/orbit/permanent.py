"""Permanents of positive matrices by dynamic programming over subsets of columns.

F_S = sum over j in S of A_{|S|-1, j} F_{S without j} sums over the ways to give the first |S| rows
the columns S; per(A) = F of all columns, in n 2^(n-1) terms that are all positive. Sums are formed
in log space: at twice the time of plain sums no scaling of A is needed, and no entry is too small
or too large.
"""

import math
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import torch

from orbitdiff.errors import BadInput
from orbitdiff.typing import Bool, Float, Int, Tensor

__all__ = ["assignment_marginals", "draw_assignment", "log_permanent"]

LARGEST = 16
"""Largest matrix: 2^16 subsets."""
CHUNK = 2**24
"""Terms of one layer held at once; longer batches are cut."""


class _Layer(NamedTuple):
    """Subsets of one size k, and for each the k ways to reach it from a smaller one.

    Attributes
    ----------
    column, smaller : (C, k), the column given to row k - 1, and the rank of the rest
    free, larger : (C, n - k), columns not in the set, and the rank of the set with one of them
    """

    column: Tensor
    smaller: Tensor
    free: Tensor
    larger: Tensor


@lru_cache(maxsize=32)
def _layers(n: int, device: torch.device) -> tuple[_Layer, ...]:
    """Layers k = 0..n; subsets of one size are ranked as `combinations` lists them."""
    subsets = [list(combinations(range(n), k)) for k in range(n + 1)]
    ranks = [{subset: rank for rank, subset in enumerate(layer)} for layer in subsets]

    def table(rows: list[list[int]], width: int) -> Tensor:
        return torch.tensor(rows, dtype=torch.long, device=device).reshape(len(rows), width)

    layers = []
    for k, layer in enumerate(subsets):
        free = [[j for j in range(n) if j not in subset] for subset in layer]
        smaller = [[ranks[k - 1][(*s[:i], *s[i + 1 :])] for i in range(k)] for s in layer]
        larger = [
            [ranks[k + 1][tuple(sorted((*subset, j)))] for j in added]
            for subset, added in zip(layer, free, strict=True)
        ]
        layers.append(
            _Layer(
                table([list(subset) for subset in layer], k),
                table(smaller, k),
                table(free, n - k),
                table(larger, n - k),
            )
        )
    return tuple(layers)


def _forward(log_a: Tensor) -> list[Tensor]:
    """Log F by layer, each (C, R), of log_a (n, n, R)."""
    n = len(log_a)
    sums = [log_a.new_zeros(1, log_a.shape[-1])]
    for k, layer in enumerate(_layers(n, log_a.device)[1:], 1):
        terms = log_a[k - 1][layer.column] + sums[-1][layer.smaller]
        sums.append(torch.logsumexp(terms, 1))
    return sums


def _prepare(log_a: Tensor, mask: Tensor | None) -> Tensor:
    """Float64 (n, n, R), with ones on the diagonal and zeros beside it in padding."""
    n = log_a.shape[-1]
    if log_a.ndim != 3 or log_a.shape[1] != n:
        raise BadInput(f"expected log_a (R, n, n), got {tuple(log_a.shape)}")
    if n > LARGEST:
        raise BadInput(
            f"expected at most {LARGEST} like atoms for the exact sum, got {n}; "
            "take swaps (orbitdiff.orbit.assignment)"
        )
    log_a = log_a.double()
    if mask is not None:
        real = mask[:, :, None] & mask[:, None, :]
        padding = torch.full_like(log_a[:1], -math.inf)
        padding.diagonal(dim1=1, dim2=2).zero_()
        log_a = torch.where(real, log_a, padding)
    return log_a.permute(1, 2, 0)


def _cut(log_a: Tensor) -> tuple[Tensor, ...]:
    """Split (n, n, R) so that the largest layer stays below CHUNK terms."""
    n = len(log_a)
    return log_a.split(max(1, CHUNK // max(1, n * math.comb(n, n // 2))), dim=-1)


def log_permanent(
    log_a: Float[Tensor, "R n n"], *, mask: Bool[Tensor, "R n"] | None = None
) -> Float[Tensor, " R"]:
    """Log of per(A) = sum over permutations of prod_i A_{i, pi(i)}; differentiable.

    Parameters
    ----------
    log_a : (R, n, n)
        Log entries, n at most 16; -inf for a zero.
    mask : (R, n) bool, optional
        Real rows, and the same columns; the rest counts for nothing.

    Returns
    -------
    (R,) float64
        -inf where no permutation has positive weight.

    Raises
    ------
    BadInput
        Not square, or n above 16.
    """
    parts = [_forward(part)[-1][0] for part in _cut(_prepare(log_a, mask))]
    return torch.cat(parts)


@torch.no_grad()
def assignment_marginals(
    log_a: Float[Tensor, "R n n"], *, mask: Bool[Tensor, "R n"] | None = None
) -> Float[Tensor, "R n n"]:
    """P(pi(i) = j) under P(pi) proportional to prod_i A_{i, pi(i)} (= d log per / d log A_ij).

    Parameters
    ----------
    log_a : (R, n, n)
        As for `log_permanent`; each permanent must be positive.
    mask : (R, n) bool, optional

    Returns
    -------
    (R, n, n) float64
        Doubly stochastic, zero in padding.

    Raises
    ------
    BadInput
        As for `log_permanent`.
    """
    parts = [_marginals(part) for part in _cut(_prepare(log_a, mask))]
    found = torch.cat(parts, -1).permute(2, 0, 1)
    return found if mask is None else found * (mask[:, :, None] & mask[:, None, :])


def _marginals(log_a: Tensor) -> Tensor:
    """Sum over sets of F_S A_{|S|, j} G_{S with j} / per, G summing over the rows left."""
    n = len(log_a)
    sums = _forward(log_a)
    total, rest = sums[-1][0], torch.zeros_like(sums[-1])
    found = torch.zeros_like(log_a)
    for k, layer in reversed(list(enumerate(_layers(n, log_a.device)[:-1]))):
        terms = log_a[k][layer.free] + rest[layer.larger]
        weights = torch.exp(terms + (sums[k] - total)[:, None])
        found[k].index_add_(0, layer.free.flatten(), weights.flatten(0, 1))
        rest = torch.logsumexp(terms, 1)
    return found


@torch.no_grad()
def draw_assignment(
    log_a: Float[Tensor, "R n n"], *, generator: torch.Generator | None = None
) -> Int[Tensor, "R n"]:
    """Draw pi with P(pi) proportional to prod_i A_{i, pi(i)}, independently for each matrix.

    Parameters
    ----------
    log_a : (R, n, n)
        As for `log_permanent`; each permanent must be positive.
    generator : torch.Generator, optional

    Returns
    -------
    (R, n) int64
        The column of each row.

    Raises
    ------
    BadInput
        As for `log_permanent`.
    """
    where = generator.device if generator is not None else log_a.device
    uniform = torch.rand(
        log_a.shape[:2], generator=generator, dtype=torch.float64, device=where
    ).to(log_a.device)
    parts, done = [], 0
    for part in _cut(_prepare(log_a, None)):
        count = part.shape[-1]
        parts.append(_walk_back(part, uniform[done : done + count]))
        done += count
    return torch.cat(parts)


def _walk_back(log_a: Tensor, uniform: Tensor) -> Tensor:
    """Give the last row its column by the terms of F, then the row before it, and so on."""
    n, count = len(log_a), log_a.shape[-1]
    sums = _forward(log_a)
    rows = torch.arange(count, device=log_a.device)
    state = torch.zeros(count, dtype=torch.long, device=log_a.device)
    drawn = torch.empty(count, n, dtype=torch.long, device=log_a.device)
    for k in range(n, 0, -1):
        layer = _layers(n, log_a.device)[k]
        columns, smaller = layer.column[state], layer.smaller[state]
        terms = log_a[k - 1][columns, rows[:, None]] + sums[k - 1][smaller, rows[:, None]]
        running = torch.softmax(terms, 1).cumsum(1)
        # shrunk by 1e-12, so that rounding cannot put the threshold at the total
        threshold = uniform[:, k - 1, None] * running[:, -1:] * (1 - 1e-12)
        choice = (running > threshold).to(torch.uint8).argmax(1)
        drawn[:, k - 1] = columns[rows, choice]
        state = smaller[rows, choice]
    return drawn
