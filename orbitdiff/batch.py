"""Dense padded batches: one tensor per named field, one mask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from orbitdiff.typing import Bool, Int, State, Tensor

__all__ = ["Batch", "pad"]


@dataclass(frozen=True)
class Batch:
    """A batch of samples of unequal size, padded to the largest one.

    Parameters
    ----------
    state : dict of (B, ...) tensors
        x_0, the named fields that a diffusion noises (crystals: `lattice` (B, 3, 3) in
        angstrom or scaled, `frac` (B, N, 3) fractional).
    mask : (B, N) bool
        True where there is an atom.
    cond : dict of (B, ...) tensors
        What the denoiser sees beside x_t (crystals: `atom_types` (B, N)).
    ids : (B,) int64
        Row numbers in the data set; they seed per-sample noise and name samples in errors.
    """

    state: State
    mask: Bool[Tensor, "B N"]
    cond: State
    ids: Int[Tensor, " B"]

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> "Batch":
        """Return the same batch on another device."""

        def move(fields: Mapping[str, Tensor]) -> State:
            return {name: value.to(device, non_blocking=True) for name, value in fields.items()}

        return Batch(move(self.state), self.mask.to(device), move(self.cond), self.ids.to(device))


def pad(rows: Sequence[Tensor], *, value: float = 0.0) -> Tensor:
    """Stack tensors of unequal first length into (B, N_max, ...), filled up with `value`."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)
