"""The toy data set: one point on the line, and what samples of its orbit are compared with."""

import torch

from orbitdiff.errors import BadInput
from orbitdiff.typing import Float, Tensor

__all__ = ["half_and_half", "orbit_points", "point"]


def point(*shape: int) -> Tensor:
    """Copies of the data point x_0 = 1, (*shape, 1, 1)."""
    return torch.ones(*shape, 1, 1)


def orbit_points(num: int) -> Float[Tensor, " num"]:
    """Balanced orbit of the data point: as many -1 as +1, sorted.

    Parameters
    ----------
    num : int
        Even.
    """
    return torch.cat([-torch.ones(even(num) // 2), torch.ones(num // 2)])


def half_and_half(num: int, *, generator: torch.Generator | None = None) -> Float[Tensor, " num"]:
    """Starts of the sampler: |N(0, 1)| for the first half, -|N(0, 1)| for the second.

    Parameters
    ----------
    num : int
        Even.
    generator : torch.Generator, optional
    """
    size = torch.randn(even(num), generator=generator).abs()
    size[num // 2 :] *= -1
    return size


def even(num: int) -> int:
    """Return `num`, checked."""
    if num < 2 or num % 2:
        raise BadInput(f"expected an even number of samples of at least 2, got {num}")
    return num
