"""How a text's vector reaches the atoms of a network: concatenated at the input, or by FiLM.

The vector e is first standardised with the mean and deviation of the training texts, since prompts
of one form lie close together; then projected as published,
    p = W e,  c = LayerNorm(p + V gelu(p)).
Concatenation: the input layer reads [h, t, c], written W_h [h, t] + W_c c. FiLM, before each layer:
    h <- (1 + gamma(c)) h + beta(c),  zero at the start.
A learned vector stands for no text, so that one network also predicts without.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import nn
from torch.nn import functional

from orbitdiff.errors import BadInput
from orbitdiff.typing import Bool, Float, Tensor

__all__ = ["TextConditioning", "TextConfig"]

KINDS = ("concatenation", "film")


@dataclass(frozen=True)
class TextConfig:
    """Size and kind of the conditioning.

    Parameters
    ----------
    kind : str
        concatenation (published), or film, which adds a scale and a shift to each layer's input.
    width : int
        Length of the projected text (published: 64 for structure prediction).
    dropout : float
        Share of training crystals whose text is left out, for guidance.
    """

    __pydantic_config__ = {"extra": "forbid"}

    kind: str = "concatenation"
    width: int = 64
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadInput(f"expected text.kind among {list(KINDS)}, got {self.kind!r}")
        if self.width < 1:
            raise BadInput(f"text.width must be at least 1, got {self.width}")
        if not 0 <= self.dropout < 1:
            raise BadInput(f"expected text.dropout in [0, 1), got {self.dropout}")


@final
class TextConditioning(nn.Module):
    """Projection of a text and the ways in which atoms read it.

    Parameters
    ----------
    config : TextConfig
    dim : int
        Length of the encoder's vectors.
    hidden, layers : int
        Width and depth of the network that reads it.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: TextConfig, *, dim: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))
        self.projection = nn.Linear(dim, config.width)
        self.residual = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.nothing = nn.Parameter(torch.zeros(config.width))
        self.into_input = nn.Linear(config.width, hidden, bias=False)
        self.film = nn.ModuleList()
        if config.kind == "film":
            self.film.extend(nn.Linear(config.width, 2 * hidden) for _ in range(layers))
            for part in self.film:
                nn.init.zeros_(part.weight)  # type: ignore[arg-type]
                nn.init.zeros_(part.bias)  # type: ignore[arg-type]

    def standardise(self, vectors: Float[Tensor, "M E"]) -> None:
        """Take mean and deviation from the vectors of the training texts.

        Parameters
        ----------
        vectors : (M, E)
        """
        self.mean.copy_(vectors.mean(0))
        deviation = vectors.std(0, correction=0)
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, 1.0))

    def read(self, vectors: Float[Tensor, "B E"], there: Bool[Tensor, " B"]) -> Tensor:
        """Return the projected texts (B, width), the learned vector where there is no text."""
        projected = self.projection((vectors - self.mean) / self.deviation)
        text = self.norm(projected + self.residual(functional.gelu(projected)))
        return torch.where(there[:, None], text, self.nothing)

    def at_input(self, text: Float[Tensor, "B W"]) -> Float[Tensor, "B H"]:
        """Return what the concatenated text adds to the input layer."""
        added: Tensor = self.into_input(text)
        return added

    def at_layer(
        self, depth: int, h: Float[Tensor, "B N H"], text: Float[Tensor, "B W"]
    ) -> Float[Tensor, "B N H"]:
        """Scale and shift the features before a layer; nothing without FiLM."""
        if not len(self.film):
            return h
        scale, shift = self.film[depth](text)[:, None].chunk(2, -1)
        return h * (1 + scale) + shift
