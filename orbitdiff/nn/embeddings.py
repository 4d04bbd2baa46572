"""Embeddings of time and of periodic differences."""

import math
from typing import final

import torch
from torch import nn

from orbitdiff.nn.pairs import pair_index
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
    """Fourier features sin and cos of 2 pi k (f_j - f_i), k < K, of the pairs i < j.

    Those of (j, i) are the same with the sine's sign flipped. sin(a_j - a_i) and cos(a_j - a_i)
    follow from the sines and cosines of the atoms, so that N instead of N^2 angles are evaluated.

    Parameters
    ----------
    frequencies : int
        K, including the constant k = 0.
    """

    harmonics: Tensor

    def __init__(self, frequencies: int) -> None:
        super().__init__()
        harmonics = torch.arange(frequencies, dtype=torch.float32)
        self.register_buffer("harmonics", harmonics, persistent=False)
        self.width = 6 * frequencies

    def forward(
        self, frac: Float[Tensor, "B N 3"]
    ) -> tuple[Float[Tensor, "B P W"], Float[Tensor, "B P W"]]:
        """Return sines and cosines (B, P, 3K), axis by axis, in the order of `pair_index`."""
        phase = (frac[..., None] * self.harmonics).flatten(2)
        angle = 2 * math.pi * (phase - phase.detach().round())
        sine, cosine = angle.sin(), angle.cos()
        index = pair_index(frac.shape[1], frac.device)
        sine_i, cosine_i = sine[:, index.first], cosine[:, index.first]
        sine_j, cosine_j = sine[:, index.second], cosine[:, index.second]
        return sine_j * cosine_i - cosine_j * sine_i, cosine_j * cosine_i + sine_j * sine_i
