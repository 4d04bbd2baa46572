"""Finite groups that can be enumerated."""

from abc import abstractmethod
from typing import final

import torch

from orbitdiff.groups.base import Group, LinearIsometry
from orbitdiff.typing import Tensor

__all__ = ["FiniteGroup", "Sign"]


class FiniteGroup(Group):
    """A group whose elements fit in one tensor."""

    order: int

    @abstractmethod
    def elements(
        self, *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Return all elements, shape (order, *element_shape), the identity first."""

    def sample(
        self,
        num: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Draw `num` elements uniformly."""
        index = torch.randint(self.order, (num,), generator=generator)
        return self.elements(dtype=dtype, device=device)[index.to(device)]

    def identity(
        self, *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Return the neutral element."""
        return self.elements(dtype=dtype, device=device)[0]


@final
class Sign(FiniteGroup, LinearIsometry):
    """The group {+1, -1} acting by multiplication (the toy experiment of the paper)."""

    order = 2

    @property
    def element_shape(self) -> tuple[int, ...]:
        """Shape of one element: a scalar."""
        return ()

    def elements(
        self, *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Return (+1, -1)."""
        return torch.tensor([1.0, -1.0], dtype=dtype, device=device)

    def act(self, g: Tensor, x: Tensor) -> Tensor:
        """Return g x."""
        return g[..., None, None].to(x.dtype) * x

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        """Return the product."""
        return g * h

    def inverse(self, g: Tensor) -> Tensor:
        """Return g, its own inverse."""
        return g

    def difference(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x - y."""
        return x - y
