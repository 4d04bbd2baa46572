"""Two small denoisers of molecules for benchmarks, preconditioned as in Karras et al. 2022."""

from itertools import pairwise

import torch
from torch import nn

from orbitdiff.typing import Tensor

SIZE = 1.2
"""Root mean square coordinate of the molecules, angstrom."""


class FlatDenoiser(nn.Module):
    """MLP on flat coordinates and types: knows no symmetry."""

    def __init__(self, atoms: int, width: int = 256, layers: int = 3, kinds: int = 6) -> None:
        super().__init__()
        self.types = nn.Embedding(kinds, 4)
        sizes = [atoms * 7 + 1, *[width] * layers]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.out = nn.Linear(width, 3 * atoms)

    def forward(self, x: Tensor, level: Tensor, types: Tensor, mask: Tensor) -> Tensor:
        """Predict (B, N, 3) from scaled points (B, N, 3) and log noise (B,)."""
        h = torch.cat([x.flatten(1), self.types(types).flatten(1), level[:, None]], 1)
        for layer in self.layers:
            h = torch.nn.functional.silu(layer(h))
        return self.out(h).unflatten(1, (-1, 3))


class EquivariantDenoiser(nn.Module):
    """Messages over all pairs that depend on distances, moves along differences (EGNN)."""

    def __init__(self, width: int = 32, layers: int = 2, kinds: int = 6) -> None:
        super().__init__()
        self.types = nn.Embedding(kinds, width)
        self.level = nn.Linear(1, width)
        self.pair = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
            for _ in range(layers)
        )
        self.ends = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(layers))
        self.distance = nn.ModuleList(nn.Linear(8, width) for _ in range(layers))
        self.node = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.move = nn.ModuleList(nn.Linear(width, 1, bias=False) for _ in range(layers))
        self.register_buffer("centres", torch.linspace(0.0, 4.0, 8))

    def forward(self, x: Tensor, level: Tensor, types: Tensor, mask: Tensor) -> Tensor:
        """Predict (B, N, 3) from scaled points (B, N, 3) and log noise (B,)."""
        real = mask[..., None].to(x.dtype)
        both = (mask[:, :, None] & mask[:, None]).to(x.dtype)[..., None]
        h = (self.types(types) + self.level(level[:, None])[:, None]) * real
        start, scale = x, real.sum(1, keepdim=True).clamp(min=1)
        parts = zip(self.pair, self.ends, self.distance, self.node, self.move, strict=True)
        for pair, ends, distance, node, move in parts:
            gap = x[:, :, None] - x[:, None]
            length = (gap.square().sum(-1, keepdim=True) + 1e-6).sqrt()
            first, second = ends(h).chunk(2, -1)
            radial = distance(torch.exp(-2 * (length - self.centres).square()))
            message = pair(first[:, :, None] + second[:, None] + radial) * both
            h = h + node(message.sum(2) / scale) * real
            x = x + (gap / (1 + length) * move(message)).sum(2) / scale.sqrt()
        return (x - start) * real


def denoise(net: nn.Module, x_t: Tensor, sigma: Tensor, types: Tensor, mask: Tensor) -> Tensor:
    """Estimate the data, D = c_skip x_t + c_out F(c_in x_t), for x_t = x_0 + sigma eps."""
    s = sigma[:, None, None]
    total = (s**2 + SIZE**2).sqrt()
    inner = net(x_t / total, 0.25 * sigma.log(), types, mask)
    return (SIZE**2 / total**2 * x_t + s * SIZE / total * inner) * mask[..., None]


def loss_weight(sigma: Tensor) -> Tensor:
    """1 / c_out^2, which gives every noise level the same weight at the start."""
    return (sigma**2 + SIZE**2) / (sigma * SIZE) ** 2
