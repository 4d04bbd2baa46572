"""CSPNet of DiffCSP on dense padded batches.

Every pair (i, j) of atoms of a cell exchanges messages
    m_ij = phi_e(h_i, h_j, L L^T, fourier(f_j - f_i)),  h_i <- h_i + phi_h(h_i, mean_j m_ij),
which makes the network invariant to translations of the torus and equivariant to permutations;
the lattice output F L, F from the pooled features, is equivariant to rotations of the cell.
The first layer of phi_e is split, W_i h_i + W_j h_j + W_g G + W_s sin + W_c cos, so that nothing is
concatenated per edge and the Fourier part is computed once per unordered pair. It is the same
function as the published network and starts from the same law of the weights.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import nn
from torch.nn import functional

from orbitdiff.errors import BadInput
from orbitdiff.nn.embeddings import PairFourier, TimeEmbedding
from orbitdiff.nn.pairs import pair_sum
from orbitdiff.nn.text_conditioning import TextConditioning
from orbitdiff.typing import Bool, Float, Int, State, Tensor

__all__ = ["CSPLayer", "CSPNet", "CSPNetConfig"]

CACHED = 2**18
"""Pair features that a CPU predicts at once without gradients: they stay in a core's cache."""


@dataclass(frozen=True)
class CSPNetConfig:
    """Size of the network.

    Parameters
    ----------
    hidden, layers : int
        Width and number of message-passing layers (published: 512 and 6).
    frequencies : int
        Fourier frequencies of the fractional differences (published: 128).
    time_dim : int
        Width of the time embedding (published: 256).
    max_element : int
        Largest atomic number.
    """

    __pydantic_config__ = {"extra": "forbid"}

    hidden: int = 512
    layers: int = 6
    frequencies: int = 128
    time_dim: int = 256
    max_element: int = 100

    def __post_init__(self) -> None:
        for name in ("hidden", "layers", "frequencies", "time_dim", "max_element"):
            if getattr(self, name) < 1:
                raise BadInput(f"model.{name} must be at least 1, got {getattr(self, name)}")


@final
class CSPLayer(nn.Module):
    """One message-passing layer.

    Parameters
    ----------
    hidden : int
    pair_width : int
        Width of the pair features.
    """

    def __init__(self, hidden: int, pair_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.edge_node = nn.Linear(hidden, 2 * hidden, bias=False)
        self.edge_gram = nn.Linear(9, hidden)
        self.edge_pair = nn.Linear(pair_width, hidden, bias=False)
        self.edge_out = nn.Linear(hidden, hidden)
        self.node_self = nn.Linear(hidden, hidden)
        self.node_message = nn.Linear(hidden, hidden, bias=False)
        self.node_out = nn.Linear(hidden, hidden)
        start_as_one(
            self.edge_node, self.edge_gram, self.edge_pair, fan_in=2 * hidden + 9 + pair_width
        )
        start_as_one(self.node_self, self.node_message, fan_in=2 * hidden)

    def forward(
        self,
        h: Float[Tensor, "B N H"],
        gram: Float[Tensor, "B 9"],
        sine: Float[Tensor, "B P W"],
        cosine: Float[Tensor, "B P W"],
        share: Float[Tensor, "B N"],
    ) -> Float[Tensor, "B N H"]:
        """Return the updated node features.

        Parameters
        ----------
        h : (B, N, H)
        gram : (B, 9)
        sine, cosine : (B, P, W / 2)
            Fourier features of the pairs i < j.
        share : (B, N)
            1 / n for real atoms, 0 in padding.
        """
        batch, count, hidden = h.shape
        x = self.norm(h)
        rows, columns = self.edge_node(x).chunk(2, -1)
        odd_weight, even_weight = self.edge_pair.weight.chunk(2, 1)
        edges = pair_sum(
            rows + self.edge_gram(gram)[:, None],
            columns,
            functional.linear(cosine, even_weight),
            functional.linear(sine, odd_weight),
            even_weight.sum(1),
        )
        edges = functional.silu(self.edge_out(functional.silu(edges)))
        weight = share[:, None].expand(-1, count, -1).reshape(-1, 1, count)
        message = torch.bmm(weight, edges.reshape(-1, count, hidden)).view(batch, count, hidden)
        update = functional.silu(self.node_self(x) + self.node_message(message))
        return h + functional.silu(self.node_out(update))


def start_as_one(*parts: nn.Linear, fan_in: int) -> None:
    """Draw the pieces of a split linear layer as torch draws the whole one.

    Parameters
    ----------
    parts : nn.Linear
    fan_in : int
        Inputs of the whole layer.
    """
    bound = 1 / math.sqrt(fan_in)
    for part in parts:
        for parameter in part.parameters():
            nn.init.uniform_(parameter, -bound, bound)


@final
class CSPNet(nn.Module):
    """Predict lattice noise and the scaled score of the fractional coordinates.

    What is added to the network is made last: the start weights of all else stay the same.

    Parameters
    ----------
    config : CSPNetConfig
    text : TextConditioning, optional
        Makes the network read `text` and `has_text` among its conditions.
    types : bool
        Predict the elements too: type `max_element` + 1 then stands for an unknown one.
    """

    def __init__(
        self, config: CSPNetConfig, *, text: TextConditioning | None = None, types: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.elements = nn.Embedding(config.max_element + 1, config.hidden, padding_idx=0)
        self.time = TimeEmbedding(config.time_dim)
        self.node_in = nn.Linear(config.hidden + config.time_dim, config.hidden)
        self.fourier = PairFourier(config.frequencies)
        self.layers = nn.ModuleList(
            CSPLayer(config.hidden, self.fourier.width) for _ in range(config.layers)
        )
        self.final_norm = nn.LayerNorm(config.hidden)
        self.frac_out = nn.Linear(config.hidden, 3, bias=False)
        self.lattice_out = nn.Linear(config.hidden, 9, bias=False)
        self.text = text
        self.unknown = nn.Parameter(torch.randn(config.hidden)) if types else None
        self.types_out = nn.Linear(config.hidden, config.max_element) if types else None

    def embedded(self, types: Int[Tensor, "B N"]) -> Float[Tensor, "B N H"]:
        """Features of the elements; those of an unknown one are learned."""
        if self.unknown is None:
            return self.elements(types)
        hidden = types > self.config.max_element
        known = self.elements(types.masked_fill(hidden, 0))
        return torch.where(hidden[..., None], self.unknown, known)

    def forward(
        self,
        x_t: State,
        t: Float[Tensor, " B"],
        cond: State,
        mask: Bool[Tensor, "B N"],
    ) -> State:
        """Return `lattice` (B, 3, 3) noise and `frac` (B, N, 3) score / scale(t).

        Parameters
        ----------
        x_t : dict
            `lattice` (B, 3, 3) rows in angstrom, `frac` (B, N, 3).
        t : (B,)
        cond : dict
            `atom_types` (B, N), 0 in padding; `text` (B, E) and `has_text` (B,) bool where the
            network is conditioned.
        mask : (B, N)

        Returns
        -------
        dict
            `lattice`, `frac`, and `types` (B, N, max_element) logits where it predicts elements.
        """
        count = mask.shape[1]
        block = max(1, CACHED // (count * count * self.config.hidden))
        if torch.is_grad_enabled() or not mask.is_cpu or len(mask) <= block:
            return self._predict(x_t, t, cond, mask)
        parts = [
            self._predict(
                {name: value[rows] for name, value in x_t.items()},
                t[rows],
                {name: value[rows] for name, value in cond.items()},
                mask[rows],
            )
            for rows in torch.arange(len(mask)).split(block)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _predict(self, x_t: State, t: Tensor, cond: State, mask: Tensor) -> State:
        """Run the network on all crystals at once."""
        lattice, frac = x_t["lattice"], x_t["frac"]
        real = mask.to(lattice.dtype)
        share = real / real.sum(1, keepdim=True).clamp(min=1)
        time = self.time(t)[:, None].expand(-1, mask.shape[1], -1)
        h = self.node_in(torch.cat([self.embedded(cond["atom_types"]), time], -1))
        text = None
        if self.text is not None:
            text = self.text.read(cond["text"], cond["has_text"])
            h = h + self.text.at_input(text)[:, None]
        gram = (lattice @ lattice.transpose(1, 2)).flatten(1)
        sine, cosine = self.fourier(frac)
        for depth, layer in enumerate(self.layers):
            if self.text is not None and text is not None:
                h = self.text.at_layer(depth, h, text)
            h = layer(h, gram, sine, cosine, share)
        h = self.final_norm(h)
        pooled = torch.bmm(share[:, None], h)[:, 0]
        change = self.lattice_out(pooled).view(-1, 3, 3) @ lattice
        out = {"lattice": change, "frac": self.frac_out(h) * real[..., None]}
        if self.types_out is not None:
            out["types"] = self.types_out(h)
        return out
