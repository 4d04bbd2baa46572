"""Cost of the exact mean over rotations in a training step, batch of 128 molecules of 18 atoms.

Stand-ins for the equivariant transformer at `paper` size (8.3 M parameters): an MLP on flat
coordinates, and a plain transformer over atoms, 20 layers of width 160. The target is timed by
itself, and its excess over the plain target is given as a share of the plain step. Bar: 3 %. Writes
results/rotation_step_{cpu,cuda}.json.
"""

import argparse
import statistics
from itertools import pairwise

import torch
from bench_step import arm_of
from record import hardware, interleaved, write
from torch import nn

from orbitdiff.batch import Batch
from orbitdiff.kernels import GaussianKernel, GeometricSigma, Parametrization
from orbitdiff.objective import DiffusedField, Objective
from orbitdiff.orbit import PlainTarget, RotationOrbit
from orbitdiff.tasks.crystals import UnitScale

ATOMS = 18
KERNEL = GaussianKernel(GeometricSigma(0.1, 20.0))


class Flat(nn.Module):
    """MLP on flat coordinates and t."""

    def __init__(self, width: int = 1600, layers: int = 4) -> None:
        super().__init__()
        sizes = [3 * ATOMS + 1, *[width] * layers]
        parts = [(nn.Linear(a, b), nn.SiLU()) for a, b in pairwise(sizes)]
        self.net = nn.Sequential(*sum(parts, ()), nn.Linear(width, 3 * ATOMS))

    def forward(self, x_t, t, cond, mask):
        """Predict the data."""
        flat = torch.cat([x_t["pos"].flatten(1), t[:, None]], 1)
        return {"pos": self.net(flat).unflatten(1, (ATOMS, 3))}


class OverAtoms(nn.Module):
    """Transformer over atoms."""

    def __init__(self, width: int = 160, layers: int = 20) -> None:
        super().__init__()
        self.inside = nn.Linear(4, width)
        layer = nn.TransformerEncoderLayer(width, 8, 4 * width, dropout=0.0, batch_first=True)
        self.net = nn.TransformerEncoder(layer, layers)
        self.out = nn.Linear(width, 3)

    def forward(self, x_t, t, cond, mask):
        """Predict the data."""
        points = torch.cat([x_t["pos"], t[:, None, None].expand(-1, ATOMS, 1)], -1)
        return {"pos": self.out(self.net(self.inside(points)))}


def objective_of(estimator) -> Objective:
    target = estimator(KERNEL, parametrization=Parametrization.DATA)
    return Objective({"pos": DiffusedField(KERNEL, target, UnitScale())})


def target_of(batch, objective, device):
    """Return a call of the target alone, over noise levels as training draws them."""
    field = objective.fields["pos"]
    generator = torch.Generator(device=device).manual_seed(0)
    t = torch.rand(len(batch), generator=generator, device=device)
    x_t = field.kernel.sample(batch.state["pos"], t, generator=generator).x_t
    return lambda: field.estimator(x_t, batch.state["pos"], t, mask=batch.mask)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    x_0 = 1.5 * torch.randn(128, ATOMS, 3, device=device)
    mask = torch.ones(128, ATOMS, dtype=torch.bool, device=device)
    x_0 = x_0 - x_0.mean(1, keepdim=True)
    batch = Batch({"pos": x_0}, mask, {}, torch.arange(128, device=device))
    arms = [objective_of(PlainTarget), objective_of(RotationOrbit)]
    state = hardware(device)
    targets = [target_of(batch, arm, device) for arm in arms]
    alone = interleaved(targets, repeats=20 * arguments.repeats, device=device)
    plain_ms, exact_ms = (1e3 * statistics.median(seconds) for seconds in alone)
    networks = {}
    for name, net in (("mlp", Flat()), ("transformer_over_atoms", OverAtoms())):
        net = net.to(device)
        steps = [arm_of(net, batch, arm, device) for arm in arms]
        whole = interleaved(steps, repeats=arguments.repeats, device=device)
        step_ms = [1e3 * min(seconds) for seconds in whole]
        networks[name] = {
            "parameters": sum(part.numel() for part in net.parameters()),
            "plain_step_ms": round(step_ms[0], 1),
            "exact_step_ms": round(step_ms[1], 1),
            "exact_adds_percent": round(100 * (exact_ms - plain_ms) / step_ms[0], 3),
        }
    content = {
        "what": __doc__.splitlines()[0],
        "bar_percent": 3.0,
        **state,
        "batch": 128,
        "atoms": ATOMS,
        "repeats": arguments.repeats,
        "plain_target_ms": round(plain_ms, 3),
        "exact_target_ms": round(exact_ms, 3),
        "networks": networks,
    }
    write(f"rotation_step_{device.type}", content)


if __name__ == "__main__":
    main()
