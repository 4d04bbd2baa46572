"""Chirality of each stereocentre as features of its atoms.

Neighbours a, b, c, d of a centre, in an order, span the signed volume V = det(b - a, c - a, d - a)
and its gradients, the normals dV/dx_k. Times the label (+1 where V > 0 in the molecule, else -1)
V is a true scalar and the normals are true vectors: a reflection together with flipped labels
changes nothing, while a reflection alone does.
"""

from typing import NamedTuple, final

import torch
from torch import nn
from torch.nn import functional

from orbitdiff.typing import Float, Int, Tensor

__all__ = ["StereoEmbedding", "StereoGeometry", "stereo_geometry"]

SOFTENING = 0.01  # angstrom^2; keeps the volume finite where all neighbours coincide


class StereoGeometry(NamedTuple):
    """Label-corrected shape of each stereocentre.

    Attributes
    ----------
    volume : (B, S)
        label * V / s^3 with s the root mean square distance of the neighbours from their mean;
        positive where x_t has the chirality of the molecule, 3.08 for a regular tetrahedron.
    normals : (B, S, 4, 3)
        label * dV/dx_k / s^2 of the four neighbours.
    """

    volume: Tensor
    normals: Tensor


def stereo_geometry(
    positions: Float[Tensor, "B N 3"],
    stereo: Int[Tensor, "B S 5"],
    stereo_sign: Float[Tensor, "B S"],
) -> StereoGeometry:
    """Return signed volumes and normals of the stereocentres.

    Parameters
    ----------
    positions : (B, N, 3)
        Angstrom.
    stereo : (B, S, 5)
        Indices of the centre and of four neighbours.
    stereo_sign : (B, S)
        +1 where V > 0 in the molecule, -1 where V < 0, 0 in padding.
    """
    corners = _gather(positions, stereo[..., 1:])
    spread = (corners - corners.mean(2, keepdim=True)).square().sum(-1).mean(-1)
    corners = corners / (spread + SOFTENING).sqrt()[..., None, None]
    first, second, third = (corners[:, :, 1:] - corners[:, :, :1]).unbind(2)
    normals = torch.stack(
        [
            torch.linalg.cross(second, third),
            torch.linalg.cross(third, first),
            torch.linalg.cross(first, second),
        ],
        2,
    )
    volume = (normals[:, :, 0] * first).sum(-1)
    normals = torch.cat([-normals.sum(2, keepdim=True), normals], 2)
    return StereoGeometry(stereo_sign * volume, stereo_sign[..., None, None] * normals)


@final
class StereoEmbedding(nn.Module):
    """Scalars and vectors that stereocentres add to their atoms.

    Parameters
    ----------
    hidden : int
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        width = max(1, hidden // 2)
        self.volume = nn.Linear(1, width)
        self.centre = nn.Linear(hidden, width, bias=False)
        self.corner = nn.Linear(hidden, width, bias=False)
        self.centre_out = nn.Linear(width, hidden)
        self.corner_out = nn.Linear(width, 2 * hidden)

    def forward(
        self,
        h: Float[Tensor, "B N H"],
        positions: Float[Tensor, "B N 3"],
        stereo: Int[Tensor, "B S 5"],
        stereo_sign: Float[Tensor, "B S"],
    ) -> tuple[Float[Tensor, "B N H"], Float[Tensor, "B N 3 H"]]:
        """Return the scalars with the stereocentres' added, and their vectors.

        Parameters
        ----------
        h : (B, N, H)
            Scalars of the atoms.
        positions : (B, N, 3)
        stereo : (B, S, 5)
        stereo_sign : (B, S)
        """
        batch, count, hidden = h.shape
        volume, normals = stereo_geometry(positions, stereo, stereo_sign)
        real = stereo_sign.abs()[..., None, None].to(h.dtype)
        atoms = _gather(h, stereo)
        z = self.volume(volume[..., None, None].to(h.dtype)) + self.centre(atoms[:, :, :1])
        z = functional.silu(z + self.corner(atoms[:, :, 1:]))
        scalar, gate = (self.corner_out(z) * real).chunk(2, -1)
        centre = self.centre_out(z.mean(2, keepdim=True)) * real
        rows = torch.arange(batch, device=h.device)[:, None, None] * count + stereo
        added = torch.cat([centre, scalar], 2).to(h.dtype).flatten(0, 2)
        scalars = h.flatten(0, 1).index_add(0, rows.flatten(), added)
        vectors = (normals[..., None] * gate[..., None, :]).flatten(0, 2)
        empty = vectors.new_zeros(batch * count, 3, hidden)
        vectors = empty.index_add(0, rows[..., 1:].flatten(), vectors)
        return scalars.view(batch, count, hidden), vectors.view(batch, count, 3, hidden)


def _gather(values: Float[Tensor, "B N D"], index: Int[Tensor, "B S M"]) -> Tensor:
    """Rows of each sample, (B, S, M, D)."""
    flat = index.flatten(1)[..., None].expand(-1, -1, values.shape[-1])
    return values.gather(1, flat).view(*index.shape, values.shape[-1])
