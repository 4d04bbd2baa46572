"""The odd perceptron of the toy experiment, many independent copies trained as one stack."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from torch import nn

from orbitdiff.errors import BadInput
from orbitdiff.typing import Float, Tensor

__all__ = ["OddMLP"]


@final
class OddMLP(nn.Module):
    """D(x, t) = f(x, t) - f(-x, t), f a perceptron with tanh: odd in x whatever the weights.

    Members do not interact: a stack of E members computes what E single networks would, in one
    batched product per layer.

    Parameters
    ----------
    generators : sequence of torch.Generator
        One per member; its initial weights are U(-1/sqrt(inputs), 1/sqrt(inputs)), the default of
        `torch.nn.Linear`. Equal generators give equal members.
    widths : sequence of int
        Hidden widths (published: 10 and 5, 91 parameters a member).
    """

    def __init__(
        self, generators: Sequence[torch.Generator], *, widths: Sequence[int] = (10, 5)
    ) -> None:
        super().__init__()
        if not generators or not widths or min(widths) < 1:
            raise BadInput(
                f"expected at least one generator and widths of at least 1, got "
                f"{len(generators)} generators and widths {tuple(widths)}"
            )
        sizes = (2, *widths, 1)
        shapes = list(pairwise(sizes))
        drawn = [self._draw(shapes, generator) for generator in generators]
        layers = range(len(shapes))
        self.weights = nn.ParameterList(
            [torch.stack([member[layer][0] for member in drawn]) for layer in layers]
        )
        self.biases = nn.ParameterList(
            [torch.stack([member[layer][1] for member in drawn]) for layer in layers]
        )

    @staticmethod
    def _draw(
        shapes: Sequence[tuple[int, int]], generator: torch.Generator
    ) -> list[tuple[Tensor, Tensor]]:
        layers = []
        for rows, columns in shapes:
            values = torch.rand(rows + 1, columns, generator=generator) * 2 - 1
            values = values / math.sqrt(rows)
            layers.append((values[:-1], values[-1:]))
        return layers

    @property
    def members(self) -> int:
        """Number of members, E."""
        return len(self.weights[0])

    @property
    def parameters_per_member(self) -> int:
        """Trained numbers of one member."""
        return sum(value.numel() for value in self.parameters()) // self.members

    @staticmethod
    def features(x: Float[Tensor, "*S E B"], t: Float[Tensor, "*S E B"]) -> Tensor:
        """Network input at x and at -x, (..., E, 2 B, 2); no parameter enters."""
        return torch.stack([torch.cat([x, -x], -1), torch.cat([t, t], -1)], -1)

    def from_features(self, features: Float[Tensor, "E TwiceB 2"]) -> Float[Tensor, "E B"]:
        """Return D given `features`."""
        value = features
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            value = torch.baddbmm(bias, value, weight)
            if layer < last:
                value = torch.tanh(value)
        half = value.shape[1] // 2
        return value[:, :half, 0] - value[:, half:, 0]

    def forward(self, x: Float[Tensor, "E B"], t: Float[Tensor, "E B"]) -> Float[Tensor, "E B"]:
        """Return D(x, t) of every member.

        Parameters
        ----------
        x : (E, B)
            Points on the line, a row per member.
        t : (E, B)
            Times in [0, 1].
        """
        return self.from_features(self.features(x, t))
