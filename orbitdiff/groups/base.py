"""The interface of a symmetry group: Haar sampling, action, composition, inverse."""

from abc import ABC, abstractmethod

import torch

from orbitdiff.typing import Tensor

__all__ = ["Group", "LinearIsometry"]


class Group(ABC):
    """A compact group acting on point sets.

    Elements are tensors of shape (..., *element_shape). Actions broadcast the leading axes of
    elements and points: K elements of shape (K, *element_shape) act on x[..., None, :, :].

    Attributes
    ----------
    order : int or None
        Number of elements, None when infinite.
    """

    order: int | None

    @property
    @abstractmethod
    def element_shape(self) -> tuple[int, ...]:
        """Shape of one element."""

    @abstractmethod
    def sample(
        self,
        num: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Draw `num` elements from the Haar measure, shape (num, *element_shape)."""

    @abstractmethod
    def act(self, g: Tensor, x: Tensor) -> Tensor:
        """Return g x for points x (..., N, D); leading axes broadcast."""

    @abstractmethod
    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        """Return the product g h, with (g h) x = g (h x)."""

    @abstractmethod
    def inverse(self, g: Tensor) -> Tensor:
        """Return the inverse element."""

    @abstractmethod
    def identity(
        self, *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Return the neutral element, shape (*element_shape)."""

    @abstractmethod
    def difference(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x - y in the space acted on (on a torus: the shortest representative)."""


class LinearIsometry(Group):
    """A group that acts on point sets linearly and keeps |x|: rotations, signs, permutations.

    An isotropic Gaussian kernel is invariant under any of them, because
    |g x_t - alpha g x_0| = |x_t - alpha x_0|. Inherit to declare that of a group of your own;
    `orbitdiff.testing.GroupContract` tests it.
    """
