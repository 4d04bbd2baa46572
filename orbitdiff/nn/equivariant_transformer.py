"""Equivariant transformer of the TorchMD-ET family on dense padded batches.

Scalars x_i and vectors v_i of atoms exchange messages over all pairs of a molecule. The features
of a pair (distance, bond, graph distance, both atoms, time) are embedded once per call; each layer
turns them into one bias b and three gates g per head, so that messages are batched matmuls over j:
    a_ij = silu(q_i . k_j + b_ij),
    scalar m_i = sum_j a_ij g1_ij u_j,
    vector m_i = sum_j a_ij (g2_ij e_ij w_j + g3_ij v_j),   e_ij = unit vector from i to j.
Vectors start as multiples of the atoms' centred positions, so that a layer can also average
positions over the graph. No tensor has both a pair and a channel axis. Rotations turn the output;
reflections do so together with the labels of the stereocentres (`orbitdiff.nn.stereo`).
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import nn
from torch.nn import functional

from orbitdiff.nn.embeddings import TimeEmbedding
from orbitdiff.nn.molecule_features import (
    AtomEmbedding,
    RadialBasis,
    centred,
    check_sizes,
    graph_features,
    linear_velocity,
    noised_variance,
)
from orbitdiff.nn.stereo import StereoEmbedding
from orbitdiff.typing import Bool, Float, State, Tensor

__all__ = ["EquivariantLayer", "EquivariantTransformer", "EquivariantTransformerConfig"]

SOFTENING = 0.01  # angstrom^2; the unit vector of atoms closer than its root shrinks to zero
SHARE = 0.25  # of a message, about one over the root of a molecule's number of atoms


@dataclass(frozen=True)
class EquivariantTransformerConfig:
    """Size of the network.

    Parameters
    ----------
    hidden, layers, heads : int
        Channels, message-passing layers, attention heads (a divisor of hidden).
    pair_width : int
        Width of the pair embedding that all layers share.
    radial : int
        Radial basis functions.
    cutoff : float
        Distance in angstrom beyond which the radial basis is constant; pairs beyond it still
        exchange messages, that depend on the graph and the direction only.
    time_dim : int
        Width of the time embedding.
    atom_features : int
        Width of `atom_features`.
    pair_types, max_graph_distance : int
        Number of bond types, including none, and the cap of the graph distance.
    max_element : int
        Largest atomic number.
    data_scale, prior_scale : float
        Root mean square coordinate of data and prior, angstrom; they set the linear part.
    """

    __pydantic_config__ = {"extra": "forbid"}

    hidden: int = 256
    layers: int = 10
    heads: int = 16
    pair_width: int = 96
    radial: int = 64
    cutoff: float = 10.0
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
class EquivariantLayer(nn.Module):
    """One round of messages and the gated coupling of scalars and vectors.

    Parameters
    ----------
    config : EquivariantTransformerConfig
    """

    def __init__(self, config: EquivariantTransformerConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.heads = config.heads
        self.modulation = nn.Linear(config.time_dim, 2 * hidden)
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False)
        self.node_in = nn.Linear(hidden, 4 * hidden)
        self.pair_in = nn.Linear(config.pair_width, 4 * config.heads)
        self.vector_in = nn.Linear(hidden, 2 * hidden, bias=False)
        self.update = nn.Linear(2 * hidden, hidden)
        self.update_out = nn.Linear(hidden, 2 * hidden)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        x: Float[Tensor, "B N H"],
        v: Float[Tensor, "B N 3 H"],
        pair: Float[Tensor, "P M"],
        direction: Float[Tensor, "B N 3 N"],
        share: Float[Tensor, "B N"],
        time: Float[Tensor, "B T"],
    ) -> tuple[Float[Tensor, "B N H"], Float[Tensor, "B N 3 H"]]:
        """Return the updated scalars and vectors.

        Parameters
        ----------
        x : (B, N, H)
        v : (B, N, 3, H)
        pair : (P, B N N)
            Embedding of each pair.
        direction : (B, N, 3, N)
            Unit vectors from i (second axis) to j (last axis).
        share : (B, N)
            Factor of the messages of atom j, 0 in padding.
        time : (B, T)
        """
        batch, count, hidden = x.shape
        heads, width = self.heads, hidden // self.heads
        scale, shift = self.modulation(time)[:, None].chunk(2, -1)
        y = torch.addcmul(shift, self.norm(x), 1 + scale)
        v_in = v * torch.rsqrt(1 + v.square().sum(2, keepdim=True).mean(-1, keepdim=True))

        parts = self.node_in(y).view(batch, count, 4, heads, width)
        query, key, scalar, vector = parts.permute(2, 3, 0, 1, 4).flatten(1, 2)
        carried = v_in.view(batch, count, 3, heads, width).permute(3, 0, 1, 2, 4)
        carried = carried.reshape(heads * batch, count, 3 * width)

        gates = torch.addmm(self.pair_in.bias[:, None], self.pair_in.weight, pair)
        bias, to_scalar, to_direction, to_vector = gates.view(4, heads, batch, count, count)
        logits = torch.baddbmm(
            bias.flatten(0, 1), query, key.transpose(1, 2), alpha=1 / math.sqrt(width)
        )
        weights = functional.silu(logits).view(heads, batch, count, count) * share[:, None]

        scalar = torch.bmm((weights * to_scalar).flatten(0, 1), scalar)
        along = (weights * to_direction)[:, :, :, None] * direction
        along = torch.bmm(along.view(heads * batch, 3 * count, count), vector)
        vector = torch.baddbmm(
            along.view(heads * batch, count, 3 * width),
            (weights * to_vector).flatten(0, 1),
            carried,
        )
        scalar = scalar.view(heads, batch, count, width).permute(1, 2, 0, 3).flatten(2)
        vector = vector.view(heads, batch, count, 3, width).permute(1, 2, 3, 0, 4).flatten(3)

        left, right = self.vector_in(v_in + vector).chunk(2, -1)
        product = (left * right).sum(2)
        update = functional.silu(self.update(torch.cat([scalar, product], -1)))
        change, gate = self.update_out(update).chunk(2, -1)
        return x + change, v + torch.addcmul(vector, gate[:, :, None], right)


@final
class EquivariantTransformer(nn.Module):
    """Predict the flow-matching velocity y - x_0 of a molecule from x_t = (1 - t) x_0 + t y.

    Parameters
    ----------
    config : EquivariantTransformerConfig
    """

    def __init__(self, config: EquivariantTransformerConfig) -> None:
        super().__init__()
        self.config = config
        hidden, width = config.hidden, config.time_dim
        features = config.radial + config.pair_types + config.max_graph_distance + 1
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
        self.position = nn.Linear(hidden, hidden)
        self.radial = RadialBasis(config.radial, config.cutoff)
        self.pair_node = nn.Linear(hidden, 2 * config.pair_width, bias=False)
        self.pair_edge = nn.Linear(features, config.pair_width)
        self.layers = nn.ModuleList(EquivariantLayer(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(hidden)
        self.gate = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, hidden)
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
        difference = positions[:, None] - positions[:, :, None]
        distance = (difference.square().sum(-1) + SOFTENING).sqrt()
        direction = (difference / distance[..., None]).transpose(2, 3).contiguous()
        share = SHARE * mask.to(positions.dtype)
        scales = {"data_scale": config.data_scale, "prior_scale": config.prior_scale}
        size = noised_variance(t, **scales).sqrt()[:, None, None]

        time = self.time(t)
        x = self.atoms(cond["atom_types"], cond["atom_features"], time)
        x, v = self.stereo(x, positions, cond["stereo"], cond["stereo_sign"])
        v = v + (positions / size)[..., None] * self.position(x)[:, :, None]
        pair = self._pairs(x, distance, cond)
        for layer in self.layers:
            x, v = layer(x, v, pair, direction, share, time)

        gate = self.out(functional.silu(self.gate(self.final_norm(x))))
        change = (v * gate[:, :, None]).sum(-1)
        linear = linear_velocity(t, **scales)[:, None, None]
        return {"positions": centred(change + linear * positions, mask)}

    def _pairs(
        self, x: Float[Tensor, "B N H"], distance: Float[Tensor, "B N N"], cond: State
    ) -> Float[Tensor, "P M"]:
        """Embedding of each pair of atoms."""
        graph = graph_features(
            cond["pair_types"],
            cond["graph_distance"],
            num_types=self.config.pair_types,
            max_distance=self.config.max_graph_distance,
        )
        features = torch.cat([self.radial(distance), graph.to(distance.dtype)])
        edge = torch.addmm(self.pair_edge.bias[:, None], self.pair_edge.weight, features.flatten(1))
        first, second = self.pair_node(x).permute(2, 0, 1).chunk(2)
        pair = edge.view(-1, *distance.shape) + first[..., None] + second[:, :, None]
        return functional.silu(pair).flatten(1)
