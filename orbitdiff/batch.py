"""Dense padded batches: one tensor per named field, one mask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from orbitdiff.errors import BadInput
from orbitdiff.typing import Bool, Float, Int, State, Tensor

__all__ = ["Batch", "pad", "to_dense"]


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


def to_dense(
    points: Float[Tensor, "M D"], batch: Int[Tensor, " M"], *, num_graphs: int | None = None
) -> tuple[Float[Tensor, "B N D"], Bool[Tensor, "B N"]]:
    """Turn the flat batch of a graph library into a dense padded one; `dense[mask]` goes back.

    Parameters
    ----------
    points : (M, D)
        Points of all graphs, one graph after another.
    batch : (M,) int64
        Graph of each point, ascending (torch-geometric's `batch`).
    num_graphs : int, optional
        B, where the last graphs may be empty; default the largest index plus one.

    Returns
    -------
    dense : (B, N, D), zero in padding; gradients flow through it
    mask : (B, N) bool

    Raises
    ------
    BadInput
        Indices that do not ascend, that are negative, or above `num_graphs`.

    Notes
    -----
    N is read from the device, which synchronises once on CUDA.
    """
    if batch.shape != points.shape[:1]:
        raise BadInput(f"expected batch ({len(points)},), got {tuple(batch.shape)}")
    if len(batch) and bool(((batch[1:] < batch[:-1]).any() | (batch[0] < 0)).item()):
        raise BadInput(
            "expected ascending graph indices from 0; sort the points by graph first: "
            "order = batch.argsort(stable=True)"
        )
    found = int(batch[-1]) + 1 if len(batch) else 0
    size = found if num_graphs is None else num_graphs
    if found > size:
        raise BadInput(f"expected graph indices below num_graphs = {size}, got {found - 1}")
    counts = torch.bincount(batch, minlength=size)
    width = int(counts.max()) if size else 0
    place = torch.arange(len(batch), device=batch.device) - (counts.cumsum(0) - counts)[batch]
    dense = points.new_zeros(size, width, points.shape[1]).index_put((batch, place), points)
    mask = torch.arange(width, device=batch.device) < counts[:, None]
    return dense, mask
