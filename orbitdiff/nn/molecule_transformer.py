"""Transformer of molecules without equivariance, in the manner of DiT.

Each atom is a token: coordinates in units of their root mean square at t, element and features,
volumes and normals of its stereocentres. Attention is biased per head by bond and graph distance;
time modulates every block (adaLN-Zero). Nothing ties its outputs for rotated inputs together,
which makes it the control of the equivariant network.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import nn
from torch.nn import functional

from orbitdiff.nn.embeddings import TimeEmbedding
from orbitdiff.nn.molecule_features import (
    AtomEmbedding,
    centred,
    check_sizes,
    graph_features,
    linear_velocity,
    noised_variance,
)
from orbitdiff.nn.stereo import StereoEmbedding
from orbitdiff.typing import Bool, Float, State, Tensor

__all__ = ["MoleculeTransformer", "MoleculeTransformerConfig", "TransformerBlock"]

PADDED = -1e9  # logit of padding


@dataclass(frozen=True)
class MoleculeTransformerConfig:
    """Size of the network.

    Parameters
    ----------
    hidden, layers, heads : int
        Width, blocks, attention heads (a divisor of hidden).
    time_dim : int
        Width of the time embedding.
    atom_features : int
        Width of `atom_features`.
    pair_types, max_graph_distance : int
        Number of bond types, including none, and the cap of the graph distance.
    max_element : int
        Largest atomic number.
    data_scale, prior_scale : float
        Root mean square coordinate of data and prior, angstrom.
    """

    __pydantic_config__ = {"extra": "forbid"}

    hidden: int = 256
    layers: int = 8
    heads: int = 8
    time_dim: int = 128
    atom_features: int = 17
    pair_types: int = 7
    max_graph_distance: int = 8
    max_element: int = 100
    data_scale: float = 1.2
    prior_scale: float = 1.2

    def __post_init__(self) -> None:
        check_sizes(self)


@final
class TransformerBlock(nn.Module):
    """Biased attention and a perceptron, each modulated and gated by time.

    Parameters
    ----------
    config : MoleculeTransformerConfig
    """

    def __init__(self, config: MoleculeTransformerConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.heads = config.heads
        self.modulation = nn.Linear(config.time_dim, 6 * hidden)
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False)
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.bias = nn.Linear(config.pair_types + config.max_graph_distance + 1, config.heads)
        self.attention_out = nn.Linear(hidden, hidden)
        self.mlp = nn.Sequential(
            nn.Linear(hidden, 4 * hidden),
            nn.GELU(approximate="tanh"),
            nn.Linear(4 * hidden, hidden),
        )
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        x: Float[Tensor, "B N H"],
        graph: Float[Tensor, "F M"],
        padding: Float[Tensor, "B 1 1 N"],
        time: Float[Tensor, "B T"],
    ) -> Float[Tensor, "B N H"]:
        """Return the updated tokens.

        Parameters
        ----------
        x : (B, N, H)
        graph : (F, B N N)
            Features of each pair.
        padding : (B, 1, 1, N)
            0 for real atoms, a large negative number in padding.
        time : (B, T)
        """
        batch, count = x.shape[:2]
        parts = self.modulation(time)[:, None].chunk(6, -1)
        scale, shift, gate, mlp_scale, mlp_shift, mlp_gate = parts
        y = torch.addcmul(shift, self.norm(x), 1 + scale)
        heads = self.qkv(y).view(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        bias = torch.addmm(self.bias.bias[:, None], self.bias.weight, graph)
        bias = bias.view(self.heads, batch, count, count).transpose(0, 1)
        mixed = functional.scaled_dot_product_attention(
            heads[0], heads[1], heads[2], attn_mask=bias + padding
        )
        x = x + gate * self.attention_out(mixed.transpose(1, 2).flatten(2))
        y = torch.addcmul(mlp_shift, self.norm(x), 1 + mlp_scale)
        return x + mlp_gate * self.mlp(y)


@final
class MoleculeTransformer(nn.Module):
    """Predict the flow-matching velocity y - x_0 of a molecule from x_t = (1 - t) x_0 + t y.

    Parameters
    ----------
    config : MoleculeTransformerConfig
    """

    def __init__(self, config: MoleculeTransformerConfig) -> None:
        super().__init__()
        self.config = config
        hidden, width = config.hidden, config.time_dim
        self.time = nn.Sequential(
            TimeEmbedding(width), nn.Linear(width - width % 2, width), nn.SiLU()
        )
        self.atoms = AtomEmbedding(
            hidden,
            atom_features=config.atom_features,
            time_dim=width,
            max_element=config.max_element,
        )
        self.stereo = StereoEmbedding(hidden)
        self.position_in = nn.Linear(3, hidden, bias=False)
        self.normal_in = nn.Linear(3, hidden, bias=False)
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(hidden, 3)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        x_t: State,
        t: Float[Tensor, " B"],
        cond: State,
        mask: Bool[Tensor, "B N"],
    ) -> State:
        """Return `positions` (B, N, 3), the velocity in angstrom, centred, zero in padding.

        Parameters
        ----------
        x_t : dict
            `positions` (B, N, 3), angstrom, centred.
        t : (B,)
        cond : dict
            `atom_types` (B, N), `atom_features` (B, N, F), `pair_types` and `graph_distance`
            (B, N, N), `stereo` (B, S, 5), `stereo_sign` (B, S).
        mask : (B, N)
        """
        config, positions = self.config, x_t["positions"]
        scales = {"data_scale": config.data_scale, "prior_scale": config.prior_scale}
        size = noised_variance(t, **scales).sqrt()[:, None, None]
        time = self.time(t)
        x = self.atoms(cond["atom_types"], cond["atom_features"], time)
        x, normals = self.stereo(x, positions, cond["stereo"], cond["stereo_sign"])
        x = x + (normals * self.normal_in.weight.T).sum(2) + self.position_in(positions / size)
        graph = graph_features(
            cond["pair_types"],
            cond["graph_distance"],
            num_types=config.pair_types,
            max_distance=config.max_graph_distance,
        )
        graph = graph.to(positions.dtype).flatten(1)
        padding = positions.new_zeros(mask.shape).masked_fill_(~mask, PADDED)[:, None, None]
        for block in self.blocks:
            x = block(x, graph, padding, time)
        change = self.out(self.final_norm(x))
        linear = linear_velocity(t, **scales)[:, None, None]
        return {"positions": centred(change + linear * positions, mask)}
