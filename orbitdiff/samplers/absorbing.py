"""Reveal atom types while a sampler walks back in time: a denoiser that keeps the types."""

from typing import final

import numpy as np
import torch

from orbitdiff.batch import Batch
from orbitdiff.kernels.absorbing import AbsorbingTypes
from orbitdiff.nn.base import Denoiser
from orbitdiff.typing import Bool, Int, State, Tensor

__all__ = ["RevealingTypes"]

BLOCK = 64
"""Draws per refill."""

TAG = 0x74797065


@final
class RevealingTypes:
    """Denoiser of lattice and coordinates whose atom types start unknown and end known.

    A sampler asks it at falling times. When the time falls from t to s, types are revealed by what
    the network said at t; calls at one time leave them as they are. So any sampler of continuous
    fields draws the types along.

    Parameters
    ----------
    denoiser : Denoiser
        Predicts `types` beside the fields of the structure.
    kernel : AbsorbingTypes
    template : Batch
        Mask, conditions and ids; its `atom_types` are the start: known ones stay.
    seed : int
        The draws of a sample depend on (seed, id) alone.
    """

    def __init__(
        self, denoiser: Denoiser, kernel: AbsorbingTypes, template: Batch, *, seed: int
    ) -> None:
        self.denoiser, self.kernel = denoiser, kernel
        self.types: Int[Tensor, "B N"] = template.cond["atom_types"]
        self.counts = template.mask.sum(1).tolist()
        seeds = [np.random.SeedSequence([seed, number, TAG]) for number in template.ids.tolist()]
        self.streams = [np.random.Generator(np.random.Philox(part)) for part in seeds]
        self.block: Tensor | None = None
        self.used = 0
        self.said: tuple[Tensor, Tensor] | None = None

    def __call__(self, x_t: State, t: Tensor, cond: State, mask: Bool[Tensor, "B N"]) -> State:
        """Return the prediction at t with the types of t."""
        self.move(t)
        found = dict(self.denoiser(x_t, t, {**cond, "atom_types": self.types}, mask))
        self.said = (t, found.pop("types"))
        return found

    def finish(self) -> Int[Tensor, "B N"]:
        """Reveal what is still unknown, and return the types."""
        if self.said is not None:
            self.move(torch.zeros_like(self.said[0]))
        return self.types

    def move(self, s: Tensor) -> None:
        """Bring the types to time s, where it lies below that of the last call."""
        if self.said is None or not bool((s < self.said[0]).any()):
            return
        t, logits = self.said
        self.types = self.kernel.reveal(self.types, logits, t, s, self.draw())

    def draw(self) -> Tensor:
        """Return the next uniform numbers of every atom, (B, N, 2)."""
        if self.block is None or self.used == BLOCK:
            self.block, self.used = self._refill(), 0
        self.used += 1
        return self.block[self.used - 1]

    def _refill(self) -> Tensor:
        batch, count = self.types.shape
        out = np.zeros((BLOCK, batch, count, 2))
        for row, (stream, atoms) in enumerate(zip(self.streams, self.counts, strict=True)):
            out[:, row, :atoms] = stream.random((BLOCK, atoms, 2))
        return torch.from_numpy(out).to(self.types.device)
