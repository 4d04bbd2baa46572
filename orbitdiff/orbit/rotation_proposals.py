"""Where sampled rotations come from, and with which density; uniform ones.

A chunk of rotations is known by its log weights and by a map from normalised weights to the
mean rotation: no proposal needs to form all its matrices.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, final

import torch

from orbitdiff.groups.quaternion import to_rotation
from orbitdiff.groups.rotation import SO3
from orbitdiff.typing import Float, Tensor

__all__ = [
    "EvenRotations",
    "HaarRotations",
    "RotationDraws",
    "RotationProposal",
    "super_fibonacci",
]

PSI = 1.533751168755204288118041


def super_fibonacci(num: int, *, device: torch.device | str = "cpu") -> Float[Tensor, "K 3 3"]:
    """Evenly spread rotations, the super-Fibonacci spiral of quaternions.

    Parameters
    ----------
    num : int
        K.
    device : device

    References
    ----------
    Alexa, Super-Fibonacci Spirals, CVPR 2022.
    """
    place = torch.arange(num, dtype=torch.float64, device=device) + 0.5
    near, far = torch.sqrt(place / num), torch.sqrt(1 - place / num)
    first, second = 2 * math.pi * place / math.sqrt(2), 2 * math.pi * place / PSI
    parts = [near * first.sin(), near * first.cos(), far * second.sin(), far * second.cos()]
    quaternions = torch.stack(parts, -1)
    return to_rotation(quaternions[:, :, None] * quaternions[:, None, :])


class RotationDraws(NamedTuple):
    """A chunk of k rotations per sample.

    Attributes
    ----------
    log_w : (B, k), tr(F^T R) - log q(R), q relative to the Haar measure
    mean : maps weights (B, k) to sum_k w_k R_k (B, 3, 3)
    """

    log_w: Tensor
    mean: Callable[[Tensor], Tensor]


class RotationProposal(ABC):
    """A density q over rotations that may depend on F and on the spread of x_0.

    Attributes
    ----------
    independent : bool
        True where, given x_t and the orbit, the drawn images do not depend on which of them
        made x_t, and the draws are independent: the true one may then join without bias.
    numbers : int
        Numbers held for each drawn rotation while it is weighed.
    """

    independent: bool
    numbers = 24

    @abstractmethod
    def draws(
        self,
        cross: Float[Tensor, "B 3 3"],
        gram: Float[Tensor, "B 3 3"],
        sizes: Sequence[int],
        *,
        generator: torch.Generator | None,
    ) -> Iterator[RotationDraws]:
        """Draw chunks of these sizes.

        Parameters
        ----------
        cross : (B, 3, 3)
            F, float64.
        gram : (B, 3, 3)
            alpha^2 x_0^T Sigma^+ x_0, what F would be without noise.
        sizes : sequence of int
        generator : torch.Generator or None
        """

    @abstractmethod
    def log_density_of_identity(
        self, cross: Float[Tensor, "B 3 3"], gram: Float[Tensor, "B 3 3"]
    ) -> Float[Tensor, " B"]:
        """Log q of the true element relative to the Haar measure."""


class _Uniform(RotationProposal):
    """log q = 0: a grid shared by the batch, turned by a uniform rotation of each sample."""

    @abstractmethod
    def grid(
        self, sizes: Sequence[int], generator: torch.Generator | None, device: torch.device
    ) -> Iterator[Tensor]:
        """Yield the shared rotations (k, 3, 3) of each chunk."""

    def draws(
        self,
        cross: Tensor,
        gram: Tensor,
        sizes: Sequence[int],
        *,
        generator: torch.Generator | None,
    ) -> Iterator[RotationDraws]:
        """Yield weights by one matrix product per chunk."""
        turn = SO3().sample(len(cross), generator=generator, device=cross.device)
        turned = (cross @ turn.mT).flatten(1)
        for part in self.grid(sizes, generator, cross.device):
            flat = part.flatten(1)

            def mean(weights: Tensor, flat: Tensor = flat) -> Tensor:
                return (weights @ flat).unflatten(1, (3, 3)) @ turn

            yield RotationDraws(turned @ flat.T, mean)

    def log_density_of_identity(self, cross: Tensor, gram: Tensor) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(cross[:, 0, 0])


@final
class HaarRotations(_Uniform):
    """Independent uniform rotations."""

    independent = True

    def grid(
        self, sizes: Sequence[int], generator: torch.Generator | None, device: torch.device
    ) -> Iterator[Tensor]:
        """Draw each chunk."""
        for size in sizes:
            yield SO3().sample(size, generator=generator, device=device)


@final
class EvenRotations(_Uniform):
    """The super-Fibonacci spiral, whose points are not independent: nearly unbiased only."""

    independent = False

    def grid(
        self, sizes: Sequence[int], generator: torch.Generator | None, device: torch.device
    ) -> Iterator[Tensor]:
        """Cut one spiral into chunks."""
        yield from super_fibonacci(sum(sizes), device=device).split(list(sizes))
