"""Training throughput of the dense CSPNet against the same network with edge lists.

One step is forward and backward of both outputs on a batch of 256 crystals of 5 atoms (Perov-5),
with one set of weights; bar: at least 1.5 times. Writes results/cspnet_{cpu,cuda}.json.
"""

import argparse
import statistics

import torch
from edge_list_cspnet import EdgeListCSPNet
from record import hardware, interleaved, write

from orbitdiff.nn.cspnet import CSPNet
from pipelines.params import load

SIZES = {preset: load().settings("crystals", preset).model for preset in ("cpu", "paper")}


def batch_of(size: int, atoms: int, device: torch.device):
    """Crystals like Perov-5: cubic cells of `atoms` atoms."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(size, atoms, dtype=torch.bool)
    x_t = {
        "lattice": 4 * torch.eye(3) + 0.3 * torch.randn(size, 3, 3, generator=generator),
        "frac": torch.rand(size, atoms, 3, generator=generator),
    }
    cond = {"atom_types": torch.randint(1, 90, (size, atoms), generator=generator)}
    t = torch.rand(size, generator=generator)
    return (
        {name: value.to(device) for name, value in x_t.items()},
        t.to(device),
        {name: value.to(device) for name, value in cond.items()},
        mask.to(device),
    )


def step_of(net, batch):
    """Forward and backward with gradients of the weights, as training does it."""

    def step():
        net.zero_grad(set_to_none=True)
        out = net(*batch)
        (out["lattice"].square().mean() + out["frac"].square().mean()).backward()

    return step


def measure(name: str, *, size: int, atoms: int, repeats: int, device: torch.device):
    config = SIZES[name]
    torch.manual_seed(0)
    dense = CSPNet(config)
    edges = EdgeListCSPNet.from_dense(dense).to(device)
    dense = dense.to(device)
    batch = batch_of(size, atoms, device)
    with torch.no_grad():
        ours, theirs = dense(*batch), edges(*batch)
    apart = max(
        float((ours[key] - theirs[key]).abs().max() / theirs[key].abs().max()) for key in ours
    )
    times = interleaved(
        [step_of(dense, batch), step_of(edges, batch)], repeats=repeats, device=device
    )
    best = [min(x) for x in times]
    middle = [statistics.median(x) for x in times]
    return {
        "hidden": config.hidden,
        "layers": config.layers,
        "frequencies": config.frequencies,
        "batch": size,
        "atoms": atoms,
        "repeats": repeats,
        "dense_ms": round(1e3 * best[0], 2),
        "edge_list_ms": round(1e3 * best[1], 2),
        "ratio": round(best[1] / best[0], 3),
        "ratio_of_medians": round(middle[1] / middle[0], 3),
        "largest_relative_difference": apart,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    content = {"what": __doc__.splitlines()[0], "bar": 1.5, **hardware(device)}
    for name in SIZES:
        content[name] = measure(name, size=256, atoms=5, repeats=arguments.repeats, device=device)
    write(f"cspnet_{device.type}", content)


if __name__ == "__main__":
    main()
