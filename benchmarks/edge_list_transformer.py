"""The equivariant transformer with edge lists, as TorchMD-ET is commonly written.

Per layer and edge: gather queries, keys, values and vectors, spread the gates of the heads over
the channels, form scalar and vector messages of the edge, and add them up with index_add.
`EdgeListTransformer` reads the weights of the dense network, so that both are one function: the
yardstick of speed and the reference.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from orbitdiff.nn.equivariant_transformer import SHARE, SOFTENING, EquivariantTransformer
from orbitdiff.nn.molecule_features import linear_velocity, noised_variance

__all__ = ["EdgeListTransformer"]


class EdgeListTransformer(nn.Module):
    """The same network on flat lists of atoms and edges.

    Parameters
    ----------
    net : EquivariantTransformer
        Its weights are shared, not copied.
    """

    def __init__(self, net: EquivariantTransformer) -> None:
        super().__init__()
        self.net = net

    def forward(self, x_t, t, cond, mask):
        """Return what the dense network returns."""
        net, config = self.net, self.net.config
        counts = mask.sum(1)
        graph = torch.arange(len(counts), device=mask.device).repeat_interleave(counts)
        target, source = fully_connected(counts)
        positions = x_t["positions"][mask]
        difference = positions[source] - positions[target]
        distance = (difference.square().sum(1) + SOFTENING).sqrt()
        direction = difference / distance[:, None]

        time = net.time(t)
        place = torch.cumsum(mask.flatten().long(), 0) - 1
        x = self.atoms(cond, time, graph, mask)
        x, v = self.stereo(x, positions, cond, place.view(mask.shape))
        scales = {"data_scale": config.data_scale, "prior_scale": config.prior_scale}
        size = noised_variance(t, **scales).sqrt()[graph, None]
        v = v + (positions / size)[:, :, None] * net.position(x)[:, None]
        pairs = mask[:, :, None] & mask[:, None]
        edge = torch.cat(
            [
                radial_basis(distance, config.radial, config.cutoff),
                functional.one_hot(cond["pair_types"][pairs], config.pair_types),
                functional.one_hot(cond["graph_distance"][pairs], config.max_graph_distance + 1),
            ],
            dim=1,
        )
        first, second = net.pair_node.weight.chunk(2)
        weight = torch.cat([net.pair_edge.weight, first, second], dim=1)
        inputs = torch.cat([edge, x[target], x[source]], dim=1)
        pair = functional.silu(functional.linear(inputs, weight, net.pair_edge.bias))
        for layer in net.layers:
            x, v = self.layer(layer, x, v, pair, (target, source), direction, time[graph])
        gate = net.out(functional.silu(net.gate(net.final_norm(x))))
        linear = linear_velocity(t, **scales)
        velocity = (v * gate[:, None]).sum(-1) + linear[graph, None] * positions
        mean = torch.zeros_like(velocity[: len(counts)]).index_add(0, graph, velocity)
        out = torch.zeros_like(x_t["positions"])
        out[mask] = velocity - (mean / counts[:, None])[graph]
        return {"positions": out}

    def atoms(self, cond, time, graph, mask):
        """Initial scalars of the real atoms."""
        part = self.net.atoms
        h = part.elements(cond["atom_types"][mask]) + part.features(cond["atom_features"][mask])
        return part.out(functional.silu(h + part.time(time)[graph]))

    def stereo(self, x, positions, cond, place):
        """Scalars and vectors with those of the stereocentres added."""
        part, v = self.net.stereo, x.new_zeros(len(x), 3, x.shape[1])
        real = cond["stereo_sign"] != 0
        atoms = place.gather(1, cond["stereo"].flatten(1)).view_as(cond["stereo"])[real]
        label = cond["stereo_sign"][real, None]
        corner = positions[atoms[:, 1:]]
        size = (corner - corner.mean(1, keepdim=True)).square().sum((1, 2)) / 4 + 0.01
        corner = corner / size.sqrt()[:, None, None]
        with torch.enable_grad():
            leaf = corner.detach().requires_grad_()
            volume = torch.linalg.det(leaf[:, 1:] - leaf[:, :1])
            (normal,) = torch.autograd.grad(volume.sum(), leaf)
        volume, normal = volume.detach()[:, None] * label, normal * label[:, None]
        hidden = [
            functional.silu(part.volume(volume) + part.centre(x[atoms[:, 0]]) + part.corner(x[k]))
            for k in atoms[:, 1:].unbind(1)
        ]
        added = x.index_add(0, atoms[:, 0], part.centre_out(sum(hidden) / 4))
        for k, z in enumerate(hidden):
            scalar, gate = part.corner_out(z).chunk(2, 1)
            added = added.index_add(0, atoms[:, k + 1], scalar)
            v = v.index_add(0, atoms[:, k + 1], normal[:, k, :, None] * gate[:, None])
        return added, v

    def layer(self, part, x, v, pair, edges, direction, time):
        """One layer of messages."""
        target, source = edges
        hidden = x.shape[1]
        heads, width = part.heads, hidden // part.heads
        scale, shift = part.modulation(time).chunk(2, 1)
        y = functional.layer_norm(x, (hidden,)) * (1 + scale) + shift
        v_in = v / (1 + v.square().sum(1, keepdim=True).mean(-1, keepdim=True)).sqrt()
        query, key, scalar, vector = part.node_in(y).chunk(4, 1)
        bias, to_scalar, to_direction, to_vector = part.pair_in(pair).chunk(4, 1)

        product = query[target].view(-1, heads, width) * key[source].view(-1, heads, width)
        logits = product.sum(-1) / math.sqrt(width) + bias
        weights = SHARE * functional.silu(logits)

        def spread(values, gate):
            split = values.view(*values.shape[:-1], heads, width)
            gate = (weights * gate).view(len(gate), *(1,) * (values.dim() - 2), heads, 1)
            return (split * gate).view_as(values)

        scalar = spread(scalar[source], to_scalar)
        scalar = torch.zeros_like(x).index_add(0, target, scalar)
        along = spread(vector[source], to_direction)[:, None] * direction[..., None]
        vector = along + spread(v_in[source], to_vector)
        vector = torch.zeros_like(v).index_add(0, target, vector)

        left, right = part.vector_in(v_in + vector).chunk(2, -1)
        inputs = torch.cat([scalar, (left * right).sum(1)], dim=1)
        change, gate = part.update_out(functional.silu(part.update(inputs))).chunk(2, 1)
        return x + change, v + vector + gate[:, None] * right


def radial_basis(distance, size, cutoff):
    """Exponential-normal functions of TorchMD-NET, without the envelope."""
    low = math.exp(-5.0)
    centres = torch.linspace(low, 1, size).to(distance)
    scale = (2 * (1 - low) / size) ** -2
    offset = torch.exp(-5 * distance[:, None] / cutoff) - centres
    return torch.exp((-scale * offset**2).clamp(min=-40.0))


def fully_connected(counts):
    """Edges (target, source) of all ordered pairs within each molecule, self-loops included."""
    start = torch.cumsum(counts, 0) - counts
    pairs = counts**2
    graph = torch.arange(len(counts), device=counts.device).repeat_interleave(pairs)
    within = torch.arange(len(graph), device=counts.device)
    within = within - (torch.cumsum(pairs, 0) - pairs)[graph]
    n = counts[graph]
    return start[graph] + within // n, start[graph] + within % n
