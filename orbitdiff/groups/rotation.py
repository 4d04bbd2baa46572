"""Rotations of space about the origin, with reflections (O3) or without (SO3)."""

from typing import final

import torch

from orbitdiff.groups.base import LinearIsometry
from orbitdiff.groups.quaternion import to_rotation
from orbitdiff.typing import Tensor

__all__ = ["O3", "SO3", "OrthogonalGroup"]


class OrthogonalGroup(LinearIsometry):
    """Orthogonal matrices (3, 3) acting on rows: x -> x R^T."""

    order = None

    @property
    def element_shape(self) -> tuple[int, ...]:
        """Shape of one element: a matrix (3, 3)."""
        return (3, 3)

    def act(self, g: Tensor, x: Tensor) -> Tensor:
        """Return x R^T, in the dtype of x."""
        return x @ g.mT.to(x.dtype)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        """Return the matrix product g h."""
        return g @ h

    def inverse(self, g: Tensor) -> Tensor:
        """Return the transpose."""
        return g.mT

    def identity(
        self, *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Return the identity matrix."""
        return torch.eye(3, dtype=dtype, device=device)

    def difference(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x - y."""
        return x - y


@final
class SO3(OrthogonalGroup):
    """Rotations of three-dimensional space, determinant +1."""

    def sample(
        self,
        num: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Draw `num` rotations from the Haar measure, as normalised normal quaternions."""
        return _rotations(num, generator, dtype, device)


@final
class O3(OrthogonalGroup):
    """Rotations and rotations composed with the inversion x -> -x, determinant +1 or -1."""

    def sample(
        self,
        num: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Draw `num` elements from the Haar measure: a rotation times a fair sign."""
        rotations = _rotations(num, generator, dtype, device)
        where = generator.device if generator is not None else torch.device(device)
        signs = 2 * torch.randint(2, (num, 1, 1), generator=generator, device=where) - 1
        return rotations * signs.to(rotations)


def _rotations(
    num: int,
    generator: torch.Generator | None,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Tensor:
    where = generator.device if generator is not None else torch.device(device)
    draw = torch.randn(num, 4, generator=generator, dtype=dtype, device=where)
    quaternions = draw / draw.norm(dim=-1, keepdim=True)
    return to_rotation(quaternions[:, :, None] * quaternions[:, None, :]).to(device)
