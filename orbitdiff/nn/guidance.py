"""Classifier-free guidance: a network that reads a text, pushed further the way the text points."""

from typing import final

import torch
from torch import nn

from orbitdiff.errors import BadInput
from orbitdiff.typing import Bool, Float, State, Tensor

__all__ = ["UNTIL", "Guided"]

UNTIL = 0.8
"""Time up to which a text is weighed. Near t = 1 a small change of the predicted noise is a large
one of the predicted cell (it is divided by alpha), so that a weight there draws huge cells."""


@final
class Guided(nn.Module):
    """D = D(no text) + w (D(text) - D(no text)) for t <= 0.8, D(text) above; one doubled call.

    Weights 1 and 0 are the network with and without its text at every t, one plain call.

    Parameters
    ----------
    denoiser : nn.Module
        Reads `text` and `has_text`; trained with some texts left out.
    weight : float
        w of at least 0.

    References
    ----------
    Ho and Salimans 2022; the limited interval: Kynkäänniemi et al. 2024. Lattice noise, score and
    logits of the elements are combined alike.
    """

    def __init__(self, denoiser: nn.Module, weight: float) -> None:
        super().__init__()
        if weight < 0:
            raise BadInput(f"expected a guidance weight of at least 0, got {weight}")
        self.denoiser, self.weight = denoiser, weight

    def forward(
        self, x_t: State, t: Float[Tensor, " B"], cond: State, mask: Bool[Tensor, "B N"]
    ) -> State:
        """Return the guided prediction of each field."""
        without = {**cond, "has_text": torch.zeros_like(cond["has_text"])}
        if self.weight in (0, 1):
            alone: State = self.denoiser(x_t, t, without if self.weight == 0 else cond, mask)
            return alone

        def twice(fields: State, other: State) -> State:
            return {name: torch.cat([value, other[name]]) for name, value in fields.items()}

        found = self.denoiser(
            twice(x_t, x_t), torch.cat([t, t]), twice(cond, without), torch.cat([mask, mask])
        )
        weight = torch.where(t <= UNTIL, self.weight, torch.ones_like(t))[:, None, None]
        guided = {}
        for name, value in found.items():
            text, plain = value.chunk(2)
            guided[name] = plain + weight.to(value.dtype) * (text - plain)
        return guided
