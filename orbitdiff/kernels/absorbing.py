"""Discrete noise that hides: an atom's type becomes unknown with probability t, and stays so.

    p(a_t = unknown given a_0) = t,  p(a_t = a_0 given a_0) = 1 - t

This is D3PM's absorbing state with its schedule beta_k = 1 / (T - k + 1) in continuous time. Going
back from t to s, an unknown type is revealed with probability (t - s) / t, drawn from the network's
distribution over a_0, and known types stay.
"""

from dataclasses import dataclass
from typing import final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.typing import Bool, Float, Int, Tensor

__all__ = ["AbsorbingTypes"]


@final
@dataclass(frozen=True)
class AbsorbingTypes:
    """Absorbing noise on types 1, ..., `unknown` - 1; 0 is padding.

    Parameters
    ----------
    unknown : int
        Stands for a hidden type.

    References
    ----------
    Austin et al. 2021 (D3PM), appendix A.2.2.
    """

    unknown: int

    def __post_init__(self) -> None:
        if self.unknown < 2:
            raise BadInput(f"expected the unknown type above 1, got {self.unknown}")

    def sample(
        self,
        types: Int[Tensor, "B N"],
        t: Float[Tensor, " B"],
        *,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "B N"]:
        """Draw a_t given a_0; padding stays 0.

        Parameters
        ----------
        types : (B, N)
        t : (B,)
            0 hides nothing, 1 everything.
        generator : torch.Generator, optional
        """
        draw = torch.rand(types.shape, generator=generator, device=types.device)
        hidden = (draw < t[:, None]) & (types > 0)
        return types.masked_fill(hidden, self.unknown)

    def prior(self, mask: Bool[Tensor, "B N"]) -> Int[Tensor, "B N"]:
        """Return a_1: every real atom unknown."""
        return mask.long() * self.unknown

    def reveal(
        self,
        types: Int[Tensor, "B N"],
        logits: Float[Tensor, "B N C"],
        t: Float[Tensor, " B"],
        s: Float[Tensor, " B"],
        uniform: Float[Tensor, "B N 2"],
    ) -> Int[Tensor, "B N"]:
        """Draw a_s given a_t and the network's distribution over a_0.

        Parameters
        ----------
        types : (B, N)
            a_t.
        logits : (B, N, C)
            Of the types 1, ..., C.
        t, s : (B,)
            s <= t; s = 0 reveals all.
        uniform : (B, N, 2)
            Uniform numbers in [0, 1): whether to reveal, and which type.
        """
        share = ((t - s) / t.clamp(min=1e-12)).clamp(0, 1)
        chosen = (types == self.unknown) & (uniform[..., 0] < share[:, None])
        below = logits.double().softmax(-1).cumsum(-1)
        # the last type takes what rounding leaves above the sum
        drawn = 1 + (below[..., :-1] <= uniform[..., 1:].double()).sum(-1)
        return torch.where(chosen, drawn, types)

    def loss(
        self, logits: Float[Tensor, "B N C"], types: Int[Tensor, "B N"], noised: Int[Tensor, "B N"]
    ) -> Float[Tensor, " B"]:
        """Mean cross entropy over the hidden atoms of each sample, 0 where none is hidden.

        E over t of this is D3PM's bound for one atom, whose weight 1/t cancels the share t hidden.

        Parameters
        ----------
        logits : (B, N, C)
        types : (B, N)
            a_0.
        noised : (B, N)
            a_t.
        """
        hidden = (noised == self.unknown).to(logits.dtype)
        target = (types - 1).clamp(min=0)[..., None]
        entropy = -logits.log_softmax(-1).gather(-1, target)[..., 0]
        return (entropy * hidden).sum(1) / hidden.sum(1).clamp(min=1)
