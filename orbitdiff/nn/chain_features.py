"""Features of residues along a chain and of pairs of them; the loss of a distogram."""

import math

import torch
from torch.nn import functional

from orbitdiff.typing import Bool, Float, Int, Tensor

__all__ = ["NUMBERS", "POINTS", "chain_features", "chain_numbers", "distances", "distogram_loss"]

NANOMETRE = 0.1  # per angstrom
NEIGHBOURS = (-4, -3, -2, -1, 1, 2, 3, 4)  # offsets along the chain, a helix turn either way
SOFTENING = 1e-4  # angstrom^2; keeps the gradient of a distance of zero finite
POSITION_DIM = 16
POINTS = 3 + 7 * len(NEIGHBOURS)
"""Width of `chain_features`."""

NUMBERS = 2 * POSITION_DIM
"""Width of `chain_numbers`."""

DISTOGRAM_REACH = 10.0  # angstrom; beyond it lies the last bin
DISTOGRAM_T_MAX = 0.7


def chain_features(x: Float[Tensor, "B N 3"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N F"]:
    """Coordinates, then difference, direction and distance to each neighbour along the chain.

    Lengths are in nanometres; a neighbour beyond the ends is at distance zero.

    Parameters
    ----------
    x : (B, N, 3), angstrom
    mask : (B, N)
    """
    parts, count = [NANOMETRE * x], x.shape[1]
    for offset in NEIGHBOURS:
        difference = torch.zeros_like(x)
        if abs(offset) < count:
            here = slice(max(0, -offset), count - max(0, offset))
            there = slice(max(0, offset), count - max(0, -offset))
            both = mask[:, here] & mask[:, there]
            difference[:, here] = (x[:, there] - x[:, here]) * both[..., None]
        length = (difference.square().sum(-1, keepdim=True) + SOFTENING).sqrt()
        parts += [NANOMETRE * difference, difference / length, NANOMETRE * length]
    return torch.cat(parts, -1)


def chain_numbers(index: Int[Tensor, "B N"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N P"]:
    """Sines and cosines of the residue number from either end, wavelengths 6 to 2,000 residues.

    Parameters
    ----------
    index : (B, N)
    mask : (B, N)
    """
    half = POSITION_DIM // 2
    steps = torch.arange(half, device=index.device, dtype=torch.float32) / (half - 1)
    rates = torch.exp(-math.log(320.0) * steps)
    last = index.masked_fill(~mask, 0).amax(1, keepdim=True)
    angles = torch.cat([index[..., None] * rates, (last - index)[..., None] * rates], -1)
    return torch.cat([angles.sin(), angles.cos()], -1)


def distances(x: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N N"]:
    """Distances of all pairs, without a singular gradient at zero.

    Parameters
    ----------
    x : (B, N, 3)
    """
    difference = x[:, None] - x[:, :, None]
    return (difference.square().sum(-1) + SOFTENING).sqrt()


def distogram_loss(
    logits: Float[Tensor, "B N N bins"],
    x_0: Float[Tensor, "B N 3"],
    t: Float[Tensor, " B"],
    mask: Bool[Tensor, "B N"],
    *,
    t_max: float = DISTOGRAM_T_MAX,
) -> Float[Tensor, " B"]:
    """Cross entropy of the distances in x_0, mean over pairs of residues, zero for t >= t_max.

    Parameters
    ----------
    logits : (B, N, N, bins)
        The first bins - 1 share [0, 10) angstrom evenly, the last holds the rest.
    x_0 : (B, N, 3), angstrom
    t : (B,)
    mask : (B, N)
    t_max : float
        Published: 0.7.
    """
    bins = logits.shape[-1]
    width = DISTOGRAM_REACH / (bins - 1)
    true = (distances(x_0) / width).long().clamp(max=bins - 1)
    loss = functional.cross_entropy(logits.movedim(-1, 1), true, reduction="none")
    pairs = mask[:, None] & mask[:, :, None]
    pairs = pairs & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    mean = (loss * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)
    return torch.where(t < t_max, mean, torch.zeros_like(mean))
