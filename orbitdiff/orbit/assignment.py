"""Draws of permutations with P(pi) proportional to prod_i A_{i, pi(i)}, of any size."""

import torch

from orbitdiff.errors import BadInput
from orbitdiff.orbit.permanent import LARGEST, draw_assignment
from orbitdiff.typing import Float, Int, Tensor

__all__ = ["like_atoms", "move_assignment", "swap_assignment"]

EXACT_UP_TO = 12
"""Like atoms up to which the exact draw is taken: n 2^(n-1) terms."""
ROUNDS = 8
"""Rounds of swaps in a move, n / 2 swaps each."""


def like_atoms(
    types: Int[Tensor, "B N"], mask: Tensor | None = None
) -> list[tuple[Int[Tensor, " R"], Int[Tensor, "R n"]]]:
    """Sets of two or more atoms of one type in one sample, grouped by their number.

    Parameters
    ----------
    types : (B, N) int64
    mask : (B, N) bool, optional

    Returns
    -------
    list of (sample (R,), atoms (R, n))
        One entry for each set size n, ascending; `atoms` are places within the sample.
    """
    width = types.shape[1]
    real = torch.ones_like(types, dtype=torch.bool) if mask is None else mask
    sample, place = real.nonzero(as_tuple=True)
    spread = int(types.amax() - types.amin()) + 1 if types.numel() else 1
    order = torch.argsort(sample * spread + types[real], stable=True)
    _, sizes = torch.unique(sample * spread + types[real], return_counts=True)
    starts = sizes.cumsum(0) - sizes
    flat = (sample * width + place)[order]
    groups = []
    for size in torch.unique(sizes[sizes > 1]).tolist():
        index = starts[sizes == size, None] + torch.arange(size, device=types.device)
        atoms = flat[index]
        groups.append((atoms[:, 0] // width, atoms % width))
    return groups


def move_assignment(
    log_a: Float[Tensor, "R n n"],
    start: Int[Tensor, "R n"],
    *,
    exact_up_to: int = EXACT_UP_TO,
    rounds: int = ROUNDS,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "R n"]:
    """Move permutations so that P(pi) proportional to prod_i A_{i, pi(i)} is left invariant.

    Up to `exact_up_to` atoms this is an independent draw, which forgets `start`; above it
    `rounds` of swaps.

    Parameters
    ----------
    log_a : (R, n, n)
        Log entries.
    start : (R, n) int64
        Permutations of positive weight.
    exact_up_to : int
        At most 16.
    rounds : int
        See `swap_assignment`.
    generator : torch.Generator, optional

    Returns
    -------
    (R, n) int64
    """
    if exact_up_to > LARGEST:
        raise BadInput(f"expected exact_up_to of at most {LARGEST}, got {exact_up_to}")
    if log_a.shape[-1] <= exact_up_to:
        return draw_assignment(log_a, generator=generator)
    return swap_assignment(log_a, start, rounds=rounds, generator=generator)


@torch.no_grad()
def swap_assignment(
    log_a: Float[Tensor, "R n n"],
    start: Int[Tensor, "R n"],
    *,
    rounds: int = ROUNDS,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "R n"]:
    """Metropolis moves that leave P(pi) proportional to prod_i A_{i, pi(i)} invariant.

    A round pairs the rows at random and swaps the columns of each pair (i, j) with probability
    min(1, A_{i, pi(j)} A_{j, pi(i)} / (A_{i, pi(i)} A_{j, pi(j)})).

    Parameters
    ----------
    log_a : (R, n, n)
    start : (R, n) int64
    rounds : int
    generator : torch.Generator, optional

    Returns
    -------
    (R, n) int64
    """
    count, n = start.shape
    half = n // 2
    where = generator.device if generator is not None else log_a.device
    state = start.clone()

    def entry(row: Tensor, column: Tensor) -> Tensor:
        return log_a.flatten(1).gather(1, row * n + column)

    for _ in range(rounds):
        drawn = torch.rand(
            count, n + half, generator=generator, dtype=torch.float64, device=where
        ).to(log_a.device)
        order = drawn[:, :n].argsort(1)
        first, second = order[:, :half], order[:, half : 2 * half]
        to_first, to_second = state.gather(1, first), state.gather(1, second)
        gain = entry(first, to_second) + entry(second, to_first)
        gain = gain - entry(first, to_first) - entry(second, to_second)
        swap = drawn[:, n:].log() < gain
        state.scatter_(1, first, torch.where(swap, to_second, to_first))
        state.scatter_(1, second, torch.where(swap, to_first, to_second))
    return state
