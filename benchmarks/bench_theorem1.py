"""Theorem 1: variance of the gradient on a frozen network by noise level, for each target.

Trace of the covariance of the per-sample gradient of w |D(x_t, t) - T|^2, D a small MLP at its
start and after a short training with the exact target; molecules (GFN2 conformers, up to 18 atoms,
types known), proteins (CA of 64 residues, nanometres), crystals (Perov-5, 5 atoms, scores). All
arms see the same x_t; `plain` is augmentation, since the data are drawn in uniform poses. `full`
averages over all data that the network cannot tell apart as well (conformers; all chains; all
cells). Paired differences of the squared norms over samples give 95 % intervals. The chain full <=
exact <= samples with the true element <= plain must hold within them; sampling without the true
element is reported, not ordered. Writes results/theorem1_cpu.json and a figure.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from bench_learning import draw as draw_molecules
from bench_learning import family
from bench_published import backbones
from matplotlib import pyplot as plt
from molecules import DATA, ensembles
from record import RESULTS, hardware, write
from torch import nn
from torch.func import functional_call, grad, vmap

from orbitdiff.data.cif import parse_crystal
from orbitdiff.data.tables import read_cif_table
from orbitdiff.groups import SO3, TorusTranslation
from orbitdiff.kernels import (
    GaussianKernel,
    GeometricSigma,
    Parametrization,
    WrappedNormalKernel,
)
from orbitdiff.orbit import (
    AroundXt,
    Haar,
    ImportanceOrbit,
    OrbitContext,
    PlainTarget,
    RotationOrbit,
    RotationSamples,
    TorusOrbit,
    torus_posterior,
)
from orbitdiff.seeding import stream
from orbitdiff.viz.style import figure_file, plain_axes

PAIRS = (("full", "exact"), ("exact", "i_sir_16"), ("exact", "snis_1024"), ("exact", "snis_64"),
         ("snis_1024", "plain"), ("snis_64", "plain"), ("i_sir_16", "plain"))  # fmt: skip
COLOURS = {
    "plain": "#6b6b6b", "snis_64_without_truth": "#e7298a", "snis_64": "#e6550d",
    "snis_1024": "#d9a400", "i_sir_16": "#1a9e77", "exact": "#1f5fbf", "full": "#0b2f6b",
}  # fmt: skip
DATA_TARGET, SCORE = Parametrization.DATA, Parametrization.SCORE


class System(NamedTuple):
    """Data, kernel and targets of one kind of points."""

    levels: tuple[float, ...]
    time: Callable
    draw: Callable
    exact: Callable
    targets: Callable
    inputs: Callable
    shape: tuple[int, int]
    weight: Callable


def log_time(low, high):
    return lambda sigma: float(np.log(sigma / low) / np.log(high / low))


def rotations(kernel):
    """Sampled arms over rotations."""
    return {
        "plain": PlainTarget(kernel, parametrization=DATA_TARGET),
        "snis_64_without_truth": RotationSamples(kernel, num_samples=64, include_true=False),
        "snis_64": RotationSamples(kernel, num_samples=64),
        "snis_1024": RotationSamples(kernel, num_samples=1024),
        "i_sir_16": RotationSamples(kernel, num_samples=16, proposal="laplace"),
        "exact": RotationOrbit(kernel),
    }


def molecules_system() -> System:
    data = ensembles(100, atoms=18, most=4)
    kernel = GaussianKernel(GeometricSigma(0.1, 10.0))
    estimators = rotations(kernel)

    def draw(t, count, generator):
        rows = torch.randint(len(data.mask), (count,), generator=generator)
        return (*draw_molecules(data, rows, t, generator), rows)

    def targets(x_t, x_0, t, rows, generator):
        mask = data.mask[rows]
        found = {
            name: estimator(x_t, x_0, t, mask=mask, generator=generator).value
            for name, estimator in estimators.items()
        }
        around = family(data, rows)
        found["full"] = estimators["exact"](x_t, x_0, t, mask=mask, context=around).value
        return found

    def exact(x_t, x_0, t, rows):
        return estimators["exact"](x_t, x_0, t, mask=data.mask[rows]).value

    def inputs(x_t, sigma, rows):
        kinds = nn.functional.one_hot(data.types[rows], 6).flatten(1).float()
        return torch.cat([(x_t / (1 + sigma[:, None, None])).flatten(1), kinds], 1)

    return System(
        (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 9.0), log_time(0.1, 10.0), draw, exact, targets, inputs,
        (18, 3), lambda sigma: 1 / sigma**2 + 1,
    )  # fmt: skip


def proteins_system() -> System:
    chains = backbones(64, 64).float()
    kernel = GaussianKernel(GeometricSigma(0.02, 10.0))
    estimators = rotations(kernel)

    def draw(t, count, generator):
        rows = torch.randint(len(chains), (count,), generator=generator)
        turn = SO3().sample(count, generator=generator).float()
        x_0 = chains[rows] @ turn.mT
        return x_0, kernel.sample(x_0, t, generator=generator).x_t, rows

    def targets(x_t, x_0, t, rows, generator):
        found = {
            name: estimator(x_t, x_0, t, generator=generator).value
            for name, estimator in estimators.items()
        }
        around = OrbitContext(conformers=chains.expand(len(x_t), -1, -1, -1))
        found["full"] = estimators["exact"](x_t, x_0, t, context=around).value
        return found

    def exact(x_t, x_0, t, rows):
        return estimators["exact"](x_t, x_0, t).value

    return System(
        (0.02, 0.1, 0.3, 0.6, 1.2, 2.5, 5.0, 10.0), log_time(0.02, 10.0), draw, exact, targets,
        lambda x_t, sigma, rows: (x_t / (1 + sigma[:, None, None])).flatten(1),
        (64, 3), lambda sigma: 1 / sigma**2 + 1,
    )  # fmt: skip


def crystals_system() -> System:
    table = read_cif_table(DATA / "crystals" / "perov_5" / "val.csv.gz")[:64]
    cells = [parse_crystal(name, text, max_atoms=20) for name, text in table]
    frac = torch.stack([torch.as_tensor(cell.frac).float() for cell in cells])
    kernel, group = WrappedNormalKernel(GeometricSigma()), TorusTranslation()

    def importance(count, include, smart=False):
        proposal = AroundXt(kernel, 2.0) if smart else Haar(group)
        return ImportanceOrbit(
            kernel, group, proposal, parametrization=SCORE, num_samples=count,
            include_true=include, per_axis=smart,
        )  # fmt: skip

    estimators = {
        "plain": PlainTarget(kernel, parametrization=SCORE),
        "snis_64_without_truth": importance(64, False),
        "snis_64": importance(64, True),
        "snis_1024": importance(1024, True),
        "i_sir_16": importance(16, True, smart=True),
        "exact": TorusOrbit(kernel, parametrization=SCORE),
    }

    def draw(t, count, generator):
        rows = torch.randint(len(frac), (count,), generator=generator)
        shift = torch.rand(count, 1, 3, generator=generator)
        x_0 = torch.remainder(frac[rows] + shift, 1.0)
        return x_0, kernel.sample(x_0, t, generator=generator).x_t, rows

    def targets(x_t, x_0, t, rows, generator):
        found = {
            name: estimator(x_t, x_0, t, generator=generator).value
            for name, estimator in estimators.items()
        }
        count, sigma = len(frac), kernel.schedule(t).sigma
        every = torus_posterior(
            x_t.repeat_interleave(count, 0), frac.repeat(len(x_t), 1, 1),
            sigma.repeat_interleave(count),
        )  # fmt: skip
        weights = torch.softmax(every.log_evidence.view(-1, count), 1)
        scores = every.mean_score.view(-1, count, *x_t.shape[1:])
        found["full"] = (weights[..., None, None] * scores).sum(1)
        return found

    def exact(x_t, x_0, t, rows):
        return estimators["exact"](x_t, x_0, t).value

    def inputs(x_t, sigma, rows):
        angle = 2 * np.pi * x_t.flatten(1)
        return torch.cat([angle.sin(), angle.cos()], 1)

    return System(
        (0.005, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5), log_time(0.005, 0.5), draw, exact, targets,
        inputs, tuple(frac.shape[1:]), lambda sigma: sigma**2,
    )  # fmt: skip


SYSTEMS = {
    "molecules": molecules_system,
    "proteins": proteins_system,
    "crystals": crystals_system,
}


class Network(nn.Module):
    """MLP from inputs and log sigma to points."""

    def __init__(self, size: int, shape: tuple[int, int], width: int = 64) -> None:
        super().__init__()
        self.shape = shape
        self.net = nn.Sequential(
            nn.Linear(size + 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, shape[0] * shape[1]),
        )  # fmt: skip

    def forward(self, features, level):
        """Predict the target."""
        return self.net(torch.cat([features, level[..., None]], -1)).unflatten(-1, self.shape)


def batch_of(system: System, sigma, generator):
    """Features, log sigma and what the targets need."""
    t = torch.tensor([system.time(float(s)) for s in sigma], dtype=torch.float32).clamp(0, 1)
    x_0, x_t, rows = system.draw(t, len(sigma), generator)
    return system.inputs(x_t, sigma, rows), 0.3 * sigma.log(), (x_t, x_0, t, rows)


def train(system: System, steps: int):
    """Train the network with the exact target over all levels."""
    generator = stream("theorem1", "training")
    torch.manual_seed(0)
    low, high = np.log(system.levels[0]), np.log(system.levels[-1])
    sigma = torch.exp(low + (high - low) * torch.rand(64, generator=generator))
    features, _, _ = batch_of(system, sigma, generator)
    net = Network(features.shape[1], system.shape)
    start = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(steps):
        sigma = torch.exp(low + (high - low) * torch.rand(64, generator=generator))
        features, level, (x_t, x_0, t, rows) = batch_of(system, sigma, generator)
        square = (net(features, level) - system.exact(x_t, x_0, t, rows)).square().mean((1, 2))
        loss = (system.weight(sigma) * square).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"start": start, "trained": net.state_dict()}, net


def squared_norms(net, state, features, level, targets, weight):
    """Per-sample squared gradient norm of each arm (B,), and the sum of gradients."""

    def loss(parameters, x, noise, target):
        return (functional_call(net, parameters, (x, noise)) - target).square().sum()

    each = vmap(grad(loss), (None, 0, 0, 0))
    norms, sums = {}, {}
    for name, target in targets.items():
        parts = each(state, features, level, target)
        flat = torch.cat([part.flatten(1) for part in parts.values()], 1) * weight[:, None]
        norms[name], sums[name] = flat.square().sum(1), flat.sum(0)
    return norms, sums


def measure(system: System, states, net, samples: int):
    """Trace of the covariance by level and arm, and paired differences with their intervals."""
    results = {}
    for stage, state in states.items():
        results[stage] = {}
        for sigma in system.levels:
            generator = stream("theorem1", stage, sigma)
            norms, sums = {}, {}
            for _ in range(samples // 64):
                levels = torch.full((64,), sigma)
                features, level, data = batch_of(system, levels, generator)
                targets = system.targets(*data, generator)
                weight = system.weight(levels)
                found, total = squared_norms(net, state, features, level, targets, weight)
                for name in targets:
                    norms.setdefault(name, []).append(found[name].double())
                    sums[name] = sums.get(name, 0) + total[name].double()
            norms = {name: torch.cat(parts) for name, parts in norms.items()}
            count = len(norms["plain"])
            traces = {
                name: float(
                    part.mean() - (sums[name].square().sum() - part.sum()) / (count * (count - 1))
                )
                for name, part in norms.items()
            }
            # the mean gradient is the same for unbiased arms, so differences of squared norms
            # are differences of traces
            pairs = {}
            for low, high in PAIRS:
                gap = norms[low] - norms[high]
                half = 1.96 * float(gap.std()) / count**0.5
                mean, scale = float(gap.mean()), float(norms["plain"].mean())
                pairs[f"{low} - {high}"] = [
                    float(f"{value / scale:.4g}") for value in (mean, mean - half, mean + half)
                ]
            results[stage][str(sigma)] = {
                "trace_over_plain": {
                    name: float(f"{trace / traces['plain']:.4g}") for name, trace in traces.items()
                },
                "difference_and_95_percent_over_plain": pairs,
            }
            print(stage, sigma, results[stage][str(sigma)]["trace_over_plain"], flush=True)
    return results


def verdict(results):
    """For each ordered pair: levels where it holds within the interval, and strictly."""
    found = {}
    for stage, levels in results.items():
        found[stage] = {}
        for low, high in PAIRS:
            bounds = [
                row["difference_and_95_percent_over_plain"][f"{low} - {high}"]
                for row in levels.values()
            ]
            found[stage][f"{low} <= {high}"] = {
                "levels": len(bounds),
                "holds_within_interval": sum(lower <= 1e-6 for _, lower, _ in bounds),
                "strict": sum(upper < 0 for _, _, upper in bounds),
            }
    return found


def figure(results) -> None:
    """One panel per system and stage."""
    fig, grid = plt.subplots(2, len(results), figsize=(5 * len(results), 7.4), squeeze=False)
    for column, (system, stages) in enumerate(results.items()):
        for axis, (stage, levels) in zip(grid[:, column], stages.items(), strict=True):
            sigmas = [float(level) for level in levels]
            for name, colour in COLOURS.items():
                values = [row["trace_over_plain"][name] for row in levels.values()]
                axis.plot(sigmas, values, marker="o", ms=3.5, color=colour, label=name)
            axis.set(xscale="log", yscale="log", title=f"{system}, network at its {stage}"
                     if stage == "start" else f"{system}, network trained")  # fmt: skip
            plain_axes(axis)
    for axis in grid[:, 0]:
        axis.set_ylabel("trace of gradient covariance / plain")
    for axis in grid[-1]:
        axis.set_xlabel("sigma (angstrom, nanometre, cell)")
    grid[0, -1].legend(frameon=False, fontsize=8)
    fig.tight_layout()
    figure_file(fig, RESULTS / "theorem1_cpu.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    state = hardware(torch.device("cpu"))
    results = {}
    for name in arguments.systems:
        system = SYSTEMS[name]()
        states, net = train(system, arguments.steps)
        print(name, flush=True)
        results[name] = measure(system, states, net, arguments.samples)
    figure(results)
    content = {
        "what": __doc__.splitlines()[0],
        **state,
        "config": vars(arguments),
        "order": {name: verdict(found) for name, found in results.items()},
        "results": results,
    }
    write("theorem1_cpu", content)


if __name__ == "__main__":
    main()
