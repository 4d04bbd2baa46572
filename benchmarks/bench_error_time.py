"""Error of the orbit mean against the time it costs: exact and every sampled estimator.

Molecules of 18 atoms with 1, 6 and 48 automorphisms, backbones of 128 residues, crystals of 5 and
20 atoms; all methods in turn on the same batch, one thread, float64. Errors are relative to the
exact mean. Writes results/error_time_cpu.json and a figure.
"""

import argparse
import statistics

import torch
from bench_published import backbones
from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter
from molecules import molecules
from record import RESULTS, hardware, interleaved, write

from orbitdiff.groups import TorusTranslation
from orbitdiff.kernels import (
    GaussianKernel,
    GeometricSigma,
    Parametrization,
    WrappedNormalKernel,
)
from orbitdiff.kernels.interpolant import Interpolant
from orbitdiff.orbit import (
    AroundTruth,
    AroundXt,
    ConstantTemperature,
    Haar,
    ImportanceOrbit,
    OrbitContext,
    PlainTarget,
    PublishedConformerOrbit,
    RotationOrbit,
    RotationSamples,
    TorusOrbit,
)
from orbitdiff.seeding import stream
from orbitdiff.viz.style import INK, figure_file, plain_axes

COUNTS = (16, 64, 256, 1024, 4096)
RATIOS = (0.1, 0.5, 2.0)
"""Noise over size: sigma / alpha over the radius of gyration."""
EXACT = 2e-11
"""Error of the exact mean, relative: a bound that the golden files hold it to."""
SIGMAS = (0.05, 0.15, 0.3)
COLOURS = {
    "exact": "#1f5fbf",
    "Haar": "#e6550d",
    "even spiral": "#d9a400",
    "around the mode": "#1a9e77",
    "around the true element": "#8c6bb1",
    "rotations x automorphisms": "#e6550d",
    "uniform": "#e6550d",
    "around the truth": "#8c6bb1",
    "i-SIR per axis": "#1a9e77",
    "plain": "#6b6b6b",
}
SCORE = Parametrization.SCORE


def point_clouds(x_0, lists, ratio):
    """A flow kernel with unit normal noise at the time where sigma / alpha = ratio x radius."""
    kernel = GaussianKernel(Interpolant())
    radius = float(x_0.square().sum(-1).mean().sqrt())
    scale = ratio * radius
    t = torch.full((len(x_0),), scale / (1 + scale), dtype=torch.float64)
    x_t = kernel.sample(x_0, t, generator=stream("x_t", ratio)).x_t
    around = OrbitContext()
    if len(lists) > 1:
        around = OrbitContext(permutations=lists.expand(len(x_0), -1, -1))
    methods = {
        "exact": {0: RotationOrbit(kernel)},
        "plain": {0: PlainTarget(kernel, parametrization=Parametrization.DATA)},
    }
    if len(lists) > 1:
        methods["rotations x automorphisms"] = {
            count: PublishedConformerOrbit(
                kernel,
                parametrization=Parametrization.DATA,
                num_samples=count,
                temperature=ConstantTemperature(1.0),
            )
            for count in COUNTS
        }
    else:
        for name, proposal in (
            ("Haar", "haar"),
            ("even spiral", "super_fibonacci"),
            ("around the mode", "laplace"),
            ("around the true element", "wrapped_normal"),
        ):
            methods[name] = {
                count: RotationSamples(kernel, num_samples=count, proposal=proposal)
                for count in COUNTS
            }
    return (x_t, x_0, t), around, methods


def crystals(atoms, sigma, batch):
    """Random cells: the target depends on the noise alone."""
    kernel = WrappedNormalKernel(GeometricSigma())
    generator = stream("cells", atoms, sigma)
    x_0 = torch.rand(batch, atoms, 3, generator=generator, dtype=torch.float64)
    t = torch.tensor(sigma / 0.005).log() / torch.tensor(100.0).log()
    t = t.double().expand(batch).contiguous()
    x_t = kernel.sample(x_0, t, generator=generator).x_t
    group = TorusTranslation()
    methods = {
        "exact": {0: TorusOrbit(kernel, parametrization=SCORE)},
        "plain": {0: PlainTarget(kernel, parametrization=SCORE)},
    }
    for name, proposal, per_axis in (
        ("uniform", Haar(group), False),
        ("around the truth", AroundTruth(kernel, 2.0), False),
        ("i-SIR per axis", AroundXt(kernel, 2.0), True),
    ):
        methods[name] = {
            count: ImportanceOrbit(
                kernel,
                group,
                proposal,
                parametrization=SCORE,
                num_samples=count,
                per_axis=per_axis,
            )
            for count in COUNTS[:-1]
        }
    return (x_t, x_0, t), OrbitContext(), methods


def measure(data, around, methods, repeats):
    """Rows of (method, K, microseconds per sample, error) on one batch."""
    names = [(name, count) for name, by_count in methods.items() for count in by_count]
    calls = []
    for name, count in names:
        estimator = methods[name][count]

        def call(estimator=estimator, name=name, count=count):
            generator = stream(name, count)
            return estimator(*data, context=around, generator=generator).value

        calls.append(call)
    exact = calls[names.index(("exact", 0))]()
    plain = calls[names.index(("plain", 0))]()
    norm = plain.square().mean().sqrt()
    times = interleaved(calls, repeats=repeats, device=torch.device("cpu"))
    rows = []
    for (name, count), call, seconds in zip(names, calls, times, strict=True):
        error = (
            float((call() - exact).square().mean().sqrt() / norm)
            if count or name == "plain"
            else EXACT
        )
        cost = 1e6 * statistics.median(seconds) / len(data[0])
        rows.append(
            {"method": name, "num_samples": count, "us_per_sample": round(cost, 3),
             "error": float(f"{error:.3g}")}
        )  # fmt: skip
    return rows


def systems(batch):
    """Name, levels, and a builder of the problem at a level."""
    molecule = next(m for m in molecules(most=48, atoms=18, file="xtb_train")
                    if len(m.automorphisms) == 48)  # fmt: skip
    lists = molecule.automorphisms
    one_methyl = subgroup(lists, 6)
    chains = backbones(16, 128)
    copies = molecule.x_0.expand(batch, -1, -1)
    for count, chosen in ((1, lists[:1]), (6, one_methyl), (48, lists)):
        label = f"18 atoms, {count} automorphism{'s' * (count > 1)}"
        yield label, RATIOS, lambda r, chosen=chosen: point_clouds(copies, chosen, r)
    yield "128 residues", RATIOS, lambda r: point_clouds(chains, torch.arange(128)[None], r)
    for atoms in (5, 20):
        yield f"crystal, {atoms} atoms", SIGMAS, lambda s, n=atoms: crystals(n, s, batch)


def subgroup(lists, order):
    """A subgroup of this order: closure of elements, smallest first."""
    found = {tuple(range(lists.shape[1]))}
    for element in lists.tolist():
        grown = closure(found | {tuple(element)})
        if order % len(grown) == 0:
            found = grown
        if len(found) == order:
            return torch.tensor(sorted(found))
    raise SystemExit(f"no subgroup of order {order}")


def closure(elements):
    """Products of elements until nothing is new."""
    known = set(elements)
    while True:
        new = {tuple(g[i] for i in h) for g in known for h in known} - known
        if not new:
            return known
        known |= new


def figure(results) -> None:
    """One row per system, one column per noise level."""
    fig, grid = plt.subplots(len(results), 3, figsize=(12, 3.1 * len(results)), squeeze=False)
    for axes, (system, levels) in zip(grid, results.items(), strict=True):
        for axis, (level, rows) in zip(axes, levels.items(), strict=True):
            for name in dict.fromkeys(row["method"] for row in rows):
                chosen = [row for row in rows if row["method"] == name]
                error = [row["error"] for row in chosen]
                if name == "plain":
                    axis.axhline(error[0], color=COLOURS[name], lw=1, ls="--", label="plain")
                    continue
                axis.plot(
                    [row["us_per_sample"] for row in chosen],
                    error,
                    marker="*" if name == "exact" else "o",
                    ms=11 if name == "exact" else 4,
                    color=COLOURS[name],
                    label=name,
                )
            axis.set(xscale="log", yscale="log", ylim=(3e-12, 20))
            kind = "sigma" if "crystal" in system else "noise / radius"
            axis.set_title(f"{system}, {kind} = {level}", fontsize=9, color=INK)
            axis.xaxis.set_minor_formatter(NullFormatter())
            plain_axes(axis)
        axes[0].set_ylabel("rms error / rms plain target")
        axes[-1].legend(frameon=False, fontsize=7, loc="lower right")
    for axis in grid[-1]:
        axis.set_xlabel("microseconds per sample")
    fig.tight_layout()
    figure_file(fig, RESULTS / "error_time_cpu.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    state = hardware(torch.device("cpu"))
    results: dict = {}
    for system, levels, build in systems(arguments.batch):
        results[system] = {}
        for level in levels:
            results[system][str(level)] = measure(*build(level), arguments.repeats)
        print(system, flush=True)
    content = {
        "what": __doc__.splitlines()[0],
        **state,
        "config": {**vars(arguments), "batch_of_128_residues": 16},
        "note": "num_samples 0: no samples; the error of exact is a bound, from the golden files. "
        "All sampled ones hold the true element. Molecules: "
        "noise as a share of the radius of gyration; crystals: sigma in fractions of the cell",
        "results": results,
    }
    figure(results)
    write("error_time_cpu", content)


if __name__ == "__main__":
    main()
