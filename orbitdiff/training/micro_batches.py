"""A batch goes through the network in parts: the same gradient with less memory, and more time."""

from typing import final

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from orbitdiff.typing import Bool, Float, State, Tensor

__all__ = ["MicroBatches"]


@final
class MicroBatches(nn.Module):
    """D(x_t, t) of a batch, part by part; backward computes the activations of one part at a time.

    Noise and targets stay those of the whole batch, so the number of parts changes no draw. The
    forward pass of each part is computed twice.

    Parameters
    ----------
    network : Denoiser
        Treats the samples of a batch independently of each other.
    parts : int
        At least 1; a batch of fewer samples makes fewer parts.
    """

    def __init__(self, network: nn.Module, parts: int) -> None:
        super().__init__()
        self.network = network
        self.parts = parts

    def forward(
        self, x_t: State, t: Float[Tensor, " B"], cond: State, mask: Bool[Tensor, "B N"]
    ) -> State:
        """Return the prediction of each field for the whole batch."""
        found = [
            checkpoint(
                self.network,
                {name: value[rows] for name, value in x_t.items()},
                t[rows],
                {name: value[rows] for name, value in cond.items()},
                mask[rows],
                use_reentrant=False,
            )
            for rows in torch.arange(len(t), device=t.device).chunk(self.parts)
        ]
        return {name: torch.cat([part[name] for part in found]) for name in found[0]}
