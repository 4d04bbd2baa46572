"""Weighted sums over samples that come in chunks, by a running maximum of the log weights."""

from typing import NamedTuple

import torch

from orbitdiff.typing import Tensor

__all__ = ["WeightedSums"]


class WeightedSums(NamedTuple):
    """Sums over samples relative to exp(peak); A blocks are weighed on their own.

    Attributes
    ----------
    peak : (B, A), largest log weight
    total, square : (B, A), sums of weights and of their squares
    value : (B, N, D), weighted sum; the last axis matches A or A = 1
    """

    peak: Tensor
    total: Tensor
    square: Tensor
    value: Tensor

    def merged(self, other: "WeightedSums") -> "WeightedSums":
        """Sums over the samples of both."""
        peak = torch.maximum(self.peak, other.peak)
        own, new = torch.exp(self.peak - peak), torch.exp(other.peak - peak)
        own_value, new_value = own[:, None].to(self.value), new[:, None].to(self.value)
        return WeightedSums(
            peak,
            self.total * own + other.total * new,
            self.square * own**2 + other.square * new**2,
            self.value * own_value + other.value * new_value,
        )

    @property
    def mean(self) -> Tensor:
        """Weighted mean (B, N, D)."""
        return self.value / self.total[:, None].to(self.value.dtype)

    @property
    def log_total(self) -> Tensor:
        """Log of the sum of weights, (B, A)."""
        return self.peak + torch.log(self.total)

    @property
    def ess(self) -> Tensor:
        """Effective number of samples of the worst block, (B,)."""
        return (self.total**2 / self.square).amin(1)

    @property
    def max_weight(self) -> Tensor:
        """Largest normalised weight of any block, (B,)."""
        return (1.0 / self.total).amax(1)
