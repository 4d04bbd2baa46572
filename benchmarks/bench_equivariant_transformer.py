"""Training throughput of the dense equivariant transformer against the same layer with edge lists.

One step is forward and backward on a batch of 64 molecules with the sizes of QM9 (15 to 21 atoms,
18 on average, two stereocentres), with one set of weights; bar: at least 2 times.
Writes results/equivariant_transformer_{cpu,cuda}.json.
"""

import argparse
import statistics

import torch
from edge_list_transformer import EdgeListTransformer
from record import hardware, interleaved, write

from orbitdiff.nn.equivariant_transformer import (
    EquivariantTransformer,
    EquivariantTransformerConfig,
)

SIZES = {
    "cpu": EquivariantTransformerConfig(
        hidden=80, layers=4, heads=8, pair_width=32, radial=24, time_dim=48
    ),
    "paper": EquivariantTransformerConfig(),
}


def batch_of(size: int, config: EquivariantTransformerConfig, device: torch.device):
    """Random geometries with the sizes and the amount of structure of QM9 molecules."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(15, 22, (size,), generator=generator)
    atoms = int(counts.max())
    mask = torch.arange(atoms) < counts[:, None]
    both = mask[:, None] & mask[:, :, None]
    x = 1.2 * torch.randn(size, atoms, 3, generator=generator) * mask[..., None]
    types = torch.randint(0, config.pair_types, (size, atoms, atoms), generator=generator)
    steps = torch.randint(
        0, config.max_graph_distance + 1, (size, atoms, atoms), generator=generator
    )
    order = torch.rand(size, 2, 15, generator=generator).argsort(-1)
    cond = {
        "atom_types": torch.randint(1, 10, (size, atoms), generator=generator) * mask,
        "atom_features": torch.randn(size, atoms, config.atom_features, generator=generator),
        "pair_types": types * both,
        "graph_distance": steps * both,
        "stereo": order[..., :5],
        "stereo_sign": 2.0 * torch.randint(0, 2, (size, 2), generator=generator) - 1,
    }
    x_t = {"positions": x.to(device)}
    t = torch.rand(size, generator=generator).to(device)
    return x_t, t, {name: value.to(device) for name, value in cond.items()}, mask.to(device)


def step_of(net, parameters, batch):
    """Forward and backward with gradients of the weights, as training does it."""

    def step():
        for parameter in parameters:
            parameter.grad = None
        (net(*batch)["positions"] - 1).square().mean().backward()

    return step


def measure(name: str, *, size: int, repeats: int, device: torch.device):
    config = SIZES[name]
    torch.manual_seed(0)
    dense = EquivariantTransformer(config)
    torch.nn.init.normal_(dense.out.weight, std=0.1)
    dense = dense.to(device)
    edges = EdgeListTransformer(dense)
    batch = batch_of(size, config, device)
    with torch.no_grad():
        ours, theirs = dense(*batch)["positions"], edges(*batch)["positions"]
    parameters = list(dense.parameters())
    steps = [step_of(net, parameters, batch) for net in (dense, edges)]
    times = interleaved(steps, repeats=repeats, device=device)
    best = [min(x) for x in times]
    middle = [statistics.median(x) for x in times]
    return {
        "hidden": config.hidden,
        "layers": config.layers,
        "heads": config.heads,
        "parameters": sum(x.numel() for x in parameters),
        "batch": size,
        "atoms": round(float(batch[-1].sum(1).float().mean()), 2),
        "repeats": repeats,
        "dense_ms": round(1e3 * best[0], 2),
        "edge_list_ms": round(1e3 * best[1], 2),
        "ratio": round(best[1] / best[0], 3),
        "ratio_of_medians": round(middle[1] / middle[0], 3),
        "largest_relative_difference": float((ours - theirs).abs().max() / theirs.abs().max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    content = {"what": __doc__.splitlines()[0], "bar": 2.0, **hardware(device)}
    for name in SIZES:
        content[name] = measure(name, size=64, repeats=arguments.repeats, device=device)
    write(f"equivariant_transformer_{device.type}", content)


if __name__ == "__main__":
    main()
