"""Transformer over residues that predicts the velocity of CA atoms; no equivariance, no triangles.

A token holds the coordinates of a CA atom and where its neighbours along the chain are.
Pairs (sequence separation, distances in x_t, time) are embedded once; each layer reads from them
one attention bias per head. The output is
    u = c_skip(t) x_t + c_out(t) F,
with c_skip x_t the best linear prediction of the velocity and c_out the root mean square of what
it leaves, so that F is of unit scale and the untrained network (F = 0) is the linear one.
Coordinates enter in nanometres. They, the distances and the output stay in full precision under
autocast: bfloat16 would round a coordinate of 20 angstrom to a tenth of an angstrom.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import nn
from torch.nn import functional

from orbitdiff.errors import BadInput
from orbitdiff.nn.chain_features import (
    NUMBERS,
    POINTS,
    chain_features,
    chain_numbers,
    distances,
)
from orbitdiff.nn.embeddings import TimeEmbedding
from orbitdiff.nn.molecule_features import (
    RadialBasis,
    centred,
    linear_velocity,
    noised_variance,
)
from orbitdiff.typing import Bool, Float, Int, State, Tensor

__all__ = [
    "BackboneLayer",
    "BackboneTransformer",
    "BackboneTransformerConfig",
]

PADDED = -1e9  # logit of padding
CUTOFF = 30.0  # angstrom, of the functions of a distance


@dataclass(frozen=True)
class BackboneTransformerConfig:
    """Size of the network; the defaults are of the published model without triangle layers.

    Parameters
    ----------
    hidden, layers, heads : int
        Channels, blocks, attention heads (a divisor of hidden).
    pair_width : int
        Width of the pair embedding that all blocks read (published: 512).
    registers : int
        Tokens that stand for no residue.
    radial : int
        Functions of a distance.
    max_separation : int
        Distances along the chain beyond it are alike.
    time_dim : int
        Width of the condition of the adaptive layer norms.
    self_condition : bool
        Read an earlier data prediction, `self_condition` (B, N, 3) of the conditions, where given.
    distogram_bins : int
        Bins of the predicted distances up to 10 angstrom, 0 for no such head (published: 64).
    data_scale, prior_scale : float
        Root mean square coordinate of data and prior, angstrom; they set the linear part.
    """

    __pydantic_config__ = {"extra": "forbid"}

    hidden: int = 768
    layers: int = 15
    heads: int = 12
    pair_width: int = 128
    registers: int = 10
    radial: int = 32
    max_separation: int = 64
    time_dim: int = 256
    self_condition: bool = False
    distogram_bins: int = 0
    data_scale: float = 9.0
    prior_scale: float = 10.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0 or (value == 0 and name not in ("self_condition", "distogram_bins")):
                raise BadInput(f"model.{name} must be positive, got {value}")
        if self.hidden % self.heads:
            raise BadInput(
                f"model.heads must divide model.hidden, got {self.heads} and {self.hidden}"
            )


@final
class BackboneLayer(nn.Module):
    """Attention with pair bias and a perceptron, each modulated by the time (adaLN-zero).

    Parameters
    ----------
    config : BackboneTransformerConfig
    """

    def __init__(self, config: BackboneTransformerConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.heads = config.heads
        self.modulation = nn.Linear(config.time_dim, 6 * hidden)
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False)
        self.query_norm = nn.LayerNorm(hidden // config.heads)
        self.key_norm = nn.LayerNorm(hidden // config.heads)
        self.attention_in = nn.Linear(hidden, 3 * hidden)
        self.attention_out = nn.Linear(hidden, hidden)
        self.wide = nn.Linear(hidden, 4 * hidden)
        self.narrow = nn.Linear(4 * hidden, hidden)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        h: Float[Tensor, "B M H"],
        bias: Float[Tensor, "B heads M M"],
        time: Float[Tensor, "B T"],
    ) -> Float[Tensor, "B M H"]:
        """Return the updated tokens.

        Parameters
        ----------
        h : (B, M, H)
            Registers, then residues.
        bias : (B, heads, M, M)
            Added to the logits; large and negative in padding.
        time : (B, T)
        """
        shift, scale, gate, shift2, scale2, gate2 = self.modulation(time)[:, None].chunk(6, -1)
        x = torch.addcmul(shift, self.norm(h), 1 + scale)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.attention_in(x).chunk(3, -1)
        )
        query, key = self.query_norm(query).to(value.dtype), self.key_norm(key).to(value.dtype)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias.to(value.dtype)
        )
        h = h + gate * self.attention_out(mixed.transpose(1, 2).flatten(2))
        x = torch.addcmul(shift2, self.norm(h), 1 + scale2)
        return h + gate2 * self.narrow(functional.gelu(self.wide(x)))


@final
class BackboneTransformer(nn.Module):
    """Predict the flow-matching velocity y - x_0 of CA atoms from x_t = (1 - t) x_0 + t y.

    Parameters
    ----------
    config : BackboneTransformerConfig
    """

    def __init__(self, config: BackboneTransformerConfig) -> None:
        super().__init__()
        self.config = config
        hidden, width, pair = config.hidden, config.time_dim, config.pair_width
        copies = 2 if config.self_condition else 1
        even = width + width % 2
        self.time_embedding = TimeEmbedding(even)
        self.time = nn.Sequential(
            nn.Linear(even + 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.token = nn.Linear(copies * POINTS + NUMBERS, hidden)
        self.register = nn.Parameter(0.02 * torch.randn(config.registers, hidden))
        self.radial = RadialBasis(config.radial, CUTOFF)
        self.pair_separation = nn.Embedding(2 * config.max_separation + 1, pair)
        self.pair_distance = nn.Linear(copies * config.radial, pair)
        self.pair_time = nn.Linear(width, pair)
        self.pair_bias = nn.Linear(pair, config.layers * config.heads, bias=False)
        self.layers = nn.ModuleList(BackboneLayer(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(hidden, elementwise_affine=False)
        self.final_modulation = nn.Linear(width, 2 * hidden)
        self.out = nn.Linear(hidden, 3)
        for part in (self.final_modulation, self.out):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
        if config.distogram_bins:
            self.distogram_in = nn.Linear(hidden, pair)
            self.distogram_separation = nn.Embedding(config.max_separation + 1, pair)
            self.distogram_out = nn.Linear(pair, config.distogram_bins)

    def forward(
        self,
        x_t: State,
        t: Float[Tensor, " B"],
        cond: State,
        mask: Bool[Tensor, "B N"],
        *,
        distogram: bool = False,
    ) -> State:
        """Return `positions` (B, N, 3), the velocity in angstrom, centred, zero in padding.

        Parameters
        ----------
        x_t : dict
            `positions` (B, N, 3), angstrom, centred.
        t : (B,)
        cond : dict
            `residue_index` (B, N); `self_condition` (B, N, 3), angstrom, where there is one.
        mask : (B, N)
        distogram : bool
            Return also `distogram` (B, N, N, bins), logits of the distances in x_0.

        Raises
        ------
        BadInput
            A distogram is asked of a network without that head.
        """
        config, positions, index = self.config, x_t["positions"], cond["residue_index"]
        if distogram and not config.distogram_bins:
            raise BadInput("this network has no distogram head: set model.distogram_bins")
        given = [positions]
        if config.self_condition:
            given.append(cond.get("self_condition", torch.zeros_like(positions)))

        with torch.autocast(positions.device.type, enabled=False):
            size = mask.sum(1, keepdim=True).to(positions.dtype)
            known = [self.time_embedding(t), size.clamp(min=1).log() / 5]
            time = self.time(torch.cat(known, -1).to(positions.dtype))
            numbers = chain_numbers(index, mask).to(positions.dtype)
            features = [chain_features(x, mask) for x in given]
            tokens = self.token(torch.cat([*features, numbers], -1))
            radial = torch.cat([self.radial(distances(x)) for x in given])
        separation = (index[:, None] - index[:, :, None]).clamp(
            -config.max_separation, config.max_separation
        )
        biases = self._biases(separation, radial, time, mask)
        h = torch.cat([self.register.to(tokens.dtype).expand(len(t), -1, -1), tokens], 1)
        for layer, bias in zip(self.layers, biases, strict=True):
            h = layer(h, bias, time)
        h = h[:, config.registers :]

        with torch.autocast(positions.device.type, enabled=False):
            shift, scale = self.final_modulation(time)[:, None].chunk(2, -1)
            change = self.out(torch.addcmul(shift, self.final_norm(h.to(time.dtype)), 1 + scale))
            scales = {"data_scale": config.data_scale, "prior_scale": config.prior_scale}
            rest = noised_variance(t, **scales).rsqrt() * config.data_scale * config.prior_scale
            linear = linear_velocity(t, **scales)
            velocity = linear[:, None, None] * positions + rest[:, None, None] * change
            found = {"positions": centred(velocity, mask)}
        if distogram:
            found["distogram"] = self._distogram(h, separation)
        return found

    def _biases(
        self,
        separation: Int[Tensor, "B N N"],
        radial: Float[Tensor, "K B N N"],
        time: Float[Tensor, "B T"],
        mask: Bool[Tensor, "B N"],
    ) -> list[Tensor]:
        """Attention biases of each layer, (B, heads, M, M) with M tokens and registers."""
        config, (batch, count) = self.config, mask.shape
        distance = functional.linear(
            radial.flatten(1).T, self.pair_distance.weight, self.pair_distance.bias
        ).view(batch, count, count, -1)
        known = self.pair_separation(separation + config.max_separation)
        pair = functional.silu(distance + known + self.pair_time(time)[:, None, None])
        bias = self.pair_bias(pair).permute(0, 3, 1, 2)
        bias = functional.pad(bias, (config.registers, 0, config.registers, 0))
        keys = functional.pad(~mask, (config.registers, 0))[:, None, None]
        bias = bias.masked_fill(keys, PADDED)
        return list(bias.chunk(config.layers, 1))

    def _distogram(self, h: Float[Tensor, "B N H"], separation: Int[Tensor, "B N N"]) -> Tensor:
        """Logits of the distances, symmetric in the residues."""
        single = self.distogram_in(h)
        pair = single[:, None] + single[:, :, None] + self.distogram_separation(separation.abs())
        logits: Tensor = self.distogram_out(functional.silu(pair)).float()
        return logits
