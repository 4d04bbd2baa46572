"""Noise that depends on (seed, sample id) alone, not on the batch a sample is drawn in.

Every sample and field has its own stream: noise is drawn for the real atoms only, in blocks of
many steps, so that neither the batch size, nor the order, nor the padding changes a sample, and
a step of hundreds of samples costs one slice.
"""

import zlib
from typing import final

import numpy as np
import torch

from orbitdiff.errors import BadInput
from orbitdiff.kernels.base import NoiseKernel
from orbitdiff.typing import Bool, Float, Int, Tensor

__all__ = ["PerSampleNoise"]

BLOCK = 64
"""Draws per refill."""


@final
class PerSampleNoise:
    """Streams of standard normal noise of one field, one per sample.

    Parameters
    ----------
    name : str
        Field; fields have independent streams.
    like : (B, N, D)
        Gives shape, dtype and device; its values are not read.
    ids : (B,) int64
        Names of the samples, not negative.
    seed : int
        Not negative.
    mask : (B, N) bool, optional
        Real atoms; padding gets zeros.

    Raises
    ------
    BadInput
        Negative seed or id.
    """

    def __init__(
        self,
        name: str,
        like: Float[Tensor, "B N D"],
        ids: Int[Tensor, " B"],
        *,
        seed: int,
        mask: Bool[Tensor, "B N"] | None = None,
    ) -> None:
        numbers = ids.tolist()
        if seed < 0 or any(number < 0 for number in numbers):
            raise BadInput(
                f"expected seed and sample ids of at least 0, got seed {seed}, ids {numbers[:8]}"
            )
        self.like = like
        if mask is None:
            self.rows = [np.arange(like.shape[1])] * like.shape[0]
        else:
            self.rows = [np.flatnonzero(real) for real in mask.cpu().numpy()]
        tag = zlib.crc32(name.encode())
        seeds = [np.random.SeedSequence([seed, number, tag]) for number in numbers]
        self.prior_seeds = [int(part.generate_state(1, np.uint64)[0] >> 1) for part in seeds]
        self.streams = [np.random.Generator(np.random.Philox(part)) for part in seeds]
        self.block: Tensor | None = None
        self.used = 0

    def prior(self, kernel: NoiseKernel) -> Float[Tensor, "B N D"]:
        """Draw x_1 of every sample from the kernel's prior."""
        out = torch.zeros(self.like.shape, dtype=self.like.dtype)
        for row, (rows, seed) in enumerate(zip(self.rows, self.prior_seeds, strict=True)):
            generator = torch.Generator().manual_seed(seed)
            drawn = kernel.prior((len(rows), out.shape[2]), generator=generator)
            out[row, torch.from_numpy(rows)] = drawn.to(out.dtype)
        return out.to(self.like.device)

    def normal(self) -> Float[Tensor, "B N D"]:
        """Draw the next standard normal noise of every sample."""
        if self.block is None or self.used == BLOCK:
            self.block, self.used = self._refill(), 0
        self.used += 1
        return self.block[self.used - 1]

    def _refill(self) -> Tensor:
        batch, count, dim = self.like.shape
        kind = np.float64 if self.like.dtype == torch.float64 else np.float32
        out = np.zeros((BLOCK, batch, count, dim), dtype=kind)
        for row, (stream, rows) in enumerate(zip(self.streams, self.rows, strict=True)):
            out[:, row, rows] = stream.standard_normal((BLOCK, len(rows), dim), dtype=kind)
        return torch.from_numpy(out).to(self.like.device, self.like.dtype)
