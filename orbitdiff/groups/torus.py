"""Translations of a periodic cell: one shift of the unit torus, shared by all atoms."""

from typing import final

import torch

from orbitdiff.groups.base import Group
from orbitdiff.typing import Tensor

__all__ = ["TorusTranslation", "wrap"]


def wrap(x: Tensor) -> Tensor:
    """Shortest representative of x modulo 1, in [-1/2, 1/2]."""
    return x - torch.round(x)


@final
class TorusTranslation(Group):
    """Translations x_i -> (x_i + tau) mod 1 of fractional coordinates, tau in [0, 1)^D."""

    order = None

    def __init__(self, dim: int = 3) -> None:
        self.dim = dim

    @property
    def element_shape(self) -> tuple[int, ...]:
        """Shape of one element: a shift (D,)."""
        return (self.dim,)

    def sample(
        self,
        num: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Draw `num` shifts uniformly on [0, 1)^D."""
        where = generator.device if generator is not None else torch.device(device)
        shifts = torch.rand(num, self.dim, generator=generator, dtype=dtype, device=where)
        return shifts.to(device)

    def act(self, g: Tensor, x: Tensor) -> Tensor:
        """Return (x + g) mod 1."""
        return torch.remainder(x + g[..., None, :].to(x.dtype), 1.0)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        """Return g + h mod 1."""
        return torch.remainder(g + h, 1.0)

    def inverse(self, g: Tensor) -> Tensor:
        """Return -g mod 1."""
        return torch.remainder(-g, 1.0)

    def identity(
        self, *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Return the zero shift."""
        return torch.zeros(self.dim, dtype=dtype, device=device)

    def difference(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the shortest representative of x - y."""
        return wrap(x - y)
