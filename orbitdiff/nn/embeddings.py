"""Embeddings of time and of periodic differences."""

import math
from typing import final

import torch
from torch import nn

from orbitdiff.typing import Float, Tensor

__all__ = ["PairFourier", "TimeEmbedding"]


@final
class TimeEmbedding(nn.Module):
    """Sinusoidal embedding of t in [0, 1]: (sin w_k 1000 t, cos w_k 1000 t).

    Parameters
    ----------
    dim : int
        Even width.
    """

    frequencies: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2
        rates = torch.exp(-math.log(10000.0) * torch.arange(half) / max(1, half - 1))
        self.register_buffer("frequencies", 1000.0 * rates, persistent=False)

    def forward(self, t: Float[Tensor, " B"]) -> Float[Tensor, "B T"]:
        """Return the embedding."""
        angle = t[:, None] * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], -1)


@final
class PairFourier(nn.Module):
    """Fourier features of the periodic differences f_j - f_i: sin and cos of 2 pi k d, k < K.

    The features of (j, i) are those of (i, j) with the sine's sign flipped, and
    sin(a_j - a_i), cos(a_j - a_i) follow from the sines and cosines of the atoms: N instead of
    N^2 evaluations.

    Parameters
    ----------
    frequencies : int
        K, including the constant k = 0.
    """

    rates: Tensor

    def __init__(self, frequencies: int) -> None:
        super().__init__()
        rates = 2 * math.pi * torch.arange(frequencies, dtype=torch.float32)
        self.register_buffer("rates", rates, persistent=False)
        self.width = 6 * frequencies

    def forward(self, frac: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N N W"]:
        """Return features (B, i, j, 6K): sines of the three axes, then cosines."""
        angle = (frac[..., None] * self.rates).flatten(2)
        sine, cosine = angle.sin(), angle.cos()
        sine_i, cosine_i = sine[:, :, None], cosine[:, :, None]
        sine_j, cosine_j = sine[:, None], cosine[:, None]
        return torch.cat(
            [sine_j * cosine_i - cosine_j * sine_i, cosine_j * cosine_i + sine_j * sine_i], -1
        )
