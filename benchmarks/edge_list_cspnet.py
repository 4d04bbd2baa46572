"""CSPNet with edge lists, written as DiffCSP writes it: the yardstick of speed and the reference.

Per layer and edge: gather both atoms, concatenate (h_i, h_j, L L^T, fourier((f_j - f_i) mod 1)),
a two-layer perceptron, then a mean over j by index_add. `from_dense` copies the weights of
`orbitdiff.nn.cspnet.CSPNet`, so that both are one function.
"""

import math

import torch
from torch import nn

from orbitdiff.nn.cspnet import CSPNet

__all__ = ["EdgeListCSPNet"]


class EdgeListLayer(nn.Module):
    """One message-passing layer over an edge list."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.edge = nn.Sequential(
            nn.Linear(2 * hidden + 9 + width, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
        )
        self.node = nn.Sequential(
            nn.Linear(2 * hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        )

    def forward(self, h, gram, edges, graph_of_edge, fourier):
        x = self.norm(h)
        source, target = edges
        inputs = torch.cat([x[source], x[target], gram[graph_of_edge], fourier], dim=1)
        message = self.edge(inputs)
        total = torch.zeros_like(x).index_add_(0, source, message)
        count = torch.zeros_like(x[:, :1]).index_add_(0, source, torch.ones_like(message[:, :1]))
        return h + self.node(torch.cat([x, total / count.clamp(min=1)], dim=1))


class EdgeListCSPNet(nn.Module):
    """The published network on flat lists of atoms and edges."""

    def __init__(self, hidden, layers, frequencies, time_dim, max_element) -> None:
        super().__init__()
        self.frequencies, self.time_dim = frequencies, time_dim
        self.elements = nn.Embedding(max_element + 1, hidden, padding_idx=0)
        self.node_in = nn.Linear(hidden + time_dim, hidden)
        self.layers = nn.ModuleList(EdgeListLayer(hidden, 6 * frequencies) for _ in range(layers))
        self.final_norm = nn.LayerNorm(hidden)
        self.frac_out = nn.Linear(hidden, 3, bias=False)
        self.lattice_out = nn.Linear(hidden, 9, bias=False)

    @classmethod
    def from_dense(cls, net: CSPNet) -> "EdgeListCSPNet":
        """Copy the weights of the dense network."""
        config = net.config
        copy = cls(
            config.hidden, config.layers, config.frequencies, config.time_dim, config.max_element
        )
        copy.load_state_dict(published_names(net))
        return copy.to(next(net.parameters()).dtype)

    def forward(self, x_t, t, cond, mask):
        """Return what the dense network returns."""
        lattice, frac = x_t["lattice"], x_t["frac"][mask]
        counts = mask.sum(1)
        graph = torch.arange(len(counts), device=mask.device).repeat_interleave(counts)
        edges = fully_connected(counts)
        half = self.time_dim // 2
        steps = torch.arange(half, device=t.device)
        rates = torch.exp(-math.log(10000.0) * steps / max(1, half - 1))
        angle = t[:, None] * (1000 * rates)
        time = torch.cat([angle.sin(), angle.cos()], dim=-1)[graph]
        h = self.node_in(torch.cat([self.elements(cond["atom_types"][mask]), time], dim=1))
        gram = (lattice @ lattice.transpose(1, 2)).flatten(1)
        difference = (frac[edges[1]] - frac[edges[0]]) % 1.0
        rates = 2 * math.pi * torch.arange(self.frequencies, device=frac.device, dtype=frac.dtype)
        angle = (difference[..., None] * rates).flatten(1)
        fourier = torch.cat([angle.sin(), angle.cos()], dim=-1)
        for layer in self.layers:
            h = layer(h, gram, edges, graph[edges[0]], fourier)
        h = self.final_norm(h)
        pooled = torch.zeros_like(h[: len(counts)]).index_add_(0, graph, h) / counts[:, None]
        out = torch.zeros_like(x_t["frac"])
        out[mask] = self.frac_out(h)
        return {"lattice": self.lattice_out(pooled).view(-1, 3, 3) @ lattice, "frac": out}


def fully_connected(counts: torch.Tensor) -> torch.Tensor:
    """Edges (2, E) of all ordered pairs within each crystal, self-loops included."""
    start = torch.cumsum(counts, 0) - counts
    pairs = counts**2
    graph = torch.arange(len(counts), device=counts.device).repeat_interleave(pairs)
    within = torch.arange(len(graph), device=counts.device)
    within = within - (torch.cumsum(pairs, 0) - pairs)[graph]
    n = counts[graph]
    return start[graph] + torch.stack([within // n, within % n])


def published_names(net: CSPNet) -> dict[str, torch.Tensor]:
    """Weights of the dense network with each split matrix put together again."""
    weights = {
        name: value.detach().clone()
        for name, value in net.state_dict().items()
        if not name.startswith("layers.")
    }
    for index, layer in enumerate(net.layers):
        name = f"layers.{index}"
        for part, value in layer.norm.state_dict().items():
            weights[f"{name}.norm.{part}"] = value
        first_i, first_j = layer.edge_node.weight.chunk(2)
        edge = [first_i, first_j, layer.edge_gram.weight, layer.edge_pair.weight]
        weights[f"{name}.edge.0.weight"] = torch.cat(edge, dim=1).detach()
        weights[f"{name}.edge.0.bias"] = layer.edge_gram.bias.detach()
        weights[f"{name}.edge.2.weight"] = layer.edge_out.weight.detach()
        weights[f"{name}.edge.2.bias"] = layer.edge_out.bias.detach()
        node = [layer.node_self.weight, layer.node_message.weight]
        weights[f"{name}.node.0.weight"] = torch.cat(node, dim=1).detach()
        weights[f"{name}.node.0.bias"] = layer.node_self.bias.detach()
        weights[f"{name}.node.2.weight"] = layer.node_out.weight.detach()
        weights[f"{name}.node.2.bias"] = layer.node_out.bias.detach()
    return weights
