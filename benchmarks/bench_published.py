"""What the published settings do: ESS, isotropic weights, aligned coupling, temperature.

Conformers: 200 rotations x all automorphisms (molecules with at most 48), isotropic weights,
temperature min(1, 0.4 / t), on GFN2 conformers with the harmonic prior, bridge 0.1. Backbones:
10,000 uniform rotations on chains of 128 residues, x_t = (1 - t) x_0 + t eps in nanometres. Time
runs from data (0) to noise (1). Writes results/published_cpu.json and a figure.
"""

import argparse
from itertools import islice

import numpy as np
import torch
from matplotlib import pyplot as plt
from molecules import DATA, Molecule, molecules
from record import RESULTS, hardware, write

from orbitdiff.kernels import AlignedCoupling, HarmonicKernel, Parametrization
from orbitdiff.kernels.harmonic_prior import HarmonicPrior
from orbitdiff.orbit import (
    AlignedPermutationOrbit,
    ConstantTemperature,
    OrbitContext,
    PublishedConformerOrbit,
    RotationOrbit,
    RotationSamples,
    rotation_posterior,
)
from orbitdiff.seeding import stream
from orbitdiff.viz.style import figure_file, plain_axes

TIMES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
BRIDGE = 0.1
DATA_MEAN, VELOCITY = Parametrization.DATA, Parametrization.VELOCITY


def size(value):
    """Mean square over the batch."""
    return float(value.square().sum((1, 2)).mean())


def conformer_row(molecule: Molecule, t: float, draws: int, generator) -> dict[str, float]:
    """Independent coupling: errors and velocity noise of one molecule at one time."""
    kernel = HarmonicKernel(molecule.prior(), sigma=BRIDGE)
    x_0 = molecule.x_0.expand(draws, -1, -1)
    time = torch.full((draws,), t, dtype=torch.float64)
    drawn = kernel.sample(x_0, time, generator=generator)
    lists = molecule.automorphisms.expand(draws, -1, -1)
    around = OrbitContext(permutations=lists)
    data = (drawn.x_t, x_0, time)
    exact = RotationOrbit(kernel)(*data, context=around).value
    spread = t**2 + BRIDGE**2 * t * (1 - t)
    isotropic = rotation_posterior(drawn.x_t, x_0, 1 - t, spread**0.5, permutations=lists).mean_x0
    name = (molecule.smiles, t)

    def published(parametrization, temperature=None):
        estimator = PublishedConformerOrbit(
            kernel, parametrization=parametrization, temperature=temperature
        )
        same = stream(*name, "rotations")
        return estimator(*data, context=around, noise=drawn.noise, generator=same)

    sampled = published(DATA_MEAN)
    untempered = published(DATA_MEAN, ConstantTemperature(1.0))
    norm = size(x_0)
    found = {
        "to_exact_isotropic": size(isotropic - exact) / norm,
        "to_exact_published": size(sampled.value - exact) / norm,
        "to_exact_published_at_temperature_1": size(untempered.value - exact) / norm,
        "to_exact_plain": size(x_0 - exact) / norm,
        "mse_to_truth_exact": size(exact - x_0) / norm,
        "mse_to_truth_isotropic": size(isotropic - x_0) / norm,
        "mse_to_truth_published": size(sampled.value - x_0) / norm,
        "ess_published": float(sampled.info.ess.median()),
        "ess_at_temperature_1": float(untempered.info.ess.median()),
        "elements": float(200 * len(molecule.automorphisms)),
    }
    velocity = RotationOrbit(kernel, parametrization=VELOCITY)(*data, context=around).value
    form = published(VELOCITY).value
    scale = size(velocity)
    found["velocity_noise_conditional"] = size(drawn.noise - x_0 - velocity) / scale
    found["velocity_noise_published"] = size(form - velocity) / scale
    with_exact = form + (sampled.value - exact) / (2 * t)
    found["velocity_noise_published_form_with_exact_mean"] = size(with_exact - velocity) / scale
    return found


def aligned_row(molecule: Molecule, t: float, draws: int, generator) -> dict[str, float]:
    """Superposed prior sample: how far the published mean lies from what made x_t."""
    found = {}
    x_0 = molecule.x_0.expand(draws, -1, -1)
    time = torch.full((draws,), t, dtype=torch.float64)
    around = OrbitContext(permutations=molecule.automorphisms.expand(draws, -1, -1))
    alone = OrbitContext(permutations=around.permutations[:, :1])
    norm = size(x_0)
    for sigma in (0.0, BRIDGE):
        kernel = AlignedCoupling(molecule.prior(), sigma=sigma)
        x_t = kernel.sample(x_0, time, generator=generator).x_t
        estimator = PublishedConformerOrbit(kernel, parametrization=DATA_MEAN)
        for label, context in (("", around), ("_rotations_only", alone)):
            value = estimator(x_t, x_0, time, context=context, generator=generator).value
            found[f"published{label}_to_truth_sigma_{sigma}"] = size(value - x_0) / norm
        if sigma == 0:
            exact = AlignedPermutationOrbit(kernel)(x_t, x_0, time, context=around).value
            found["exact_permutations_to_truth_sigma_0.0"] = size(exact - x_0) / norm
            value = estimator(x_t, x_0, time, context=around, generator=generator).value
            found["published_to_exact_permutations_sigma_0.0"] = size(value - exact) / norm
    return found


def backbone_row(x_0, t: float, num_samples: int, generator) -> dict[str, float]:
    """ESS and error of uniform rotations on backbones of one length."""
    count = x_0.shape[1]
    prior = HarmonicPrior.isotropic(torch.ones(count, dtype=torch.bool))
    kernel = HarmonicKernel(prior)
    time = torch.full((len(x_0),), t, dtype=torch.float64)
    x_t = kernel.sample(x_0, time, generator=generator).x_t
    exact = RotationOrbit(kernel)(x_t, x_0, time).value
    norm = size(x_0)
    found = {"to_exact_plain": size(x_0 - exact) / norm}
    for include_true, label in ((True, "with_truth"), (False, "without_truth")):
        estimator = RotationSamples(kernel, num_samples=num_samples, include_true=include_true)
        target = estimator(x_t, x_0, time, generator=generator)
        found[f"ess_{label}"] = float(target.info.ess.median())
        found[f"to_exact_{label}"] = size(target.value - exact) / norm
        found[f"one_element_above_half_{label}"] = float(
            (target.info.max_weight > 0.5).double().mean()
        )
    return found


def backbones(num: int, length: int):
    """Chains of at least `length` residues cut to it, centred, nanometres."""
    with np.load(DATA / "proteins" / "ca_traces.npz") as file:
        offsets, coords = file["offsets"], file["coords"]
        starts = [o for o, n in zip(offsets, file["length"], strict=False) if n >= length][:num]
        chains = np.stack([coords[o : o + length] for o in starts]) * 0.1
    chains = torch.tensor(chains, dtype=torch.float64)
    return chains - chains.mean(1, keepdim=True)


def mean_rows(rows):
    """Medians of ESS, means of shares, roots of mean squares over molecules."""
    found = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        if name.startswith("ess") or name == "elements":
            found[name] = round(float(np.median(values)), 3)
        elif name.startswith("one_element"):
            found[name] = round(float(values.mean()), 4)
        else:
            found[name] = float(f"{values.mean() ** 0.5:.4g}")
    return found


def figure(content) -> None:
    """Four panels over time."""
    fig, axes = plt.subplots(1, 4, figsize=(17, 4.2), constrained_layout=True)
    independent, aligned = content["independent_coupling"], content["aligned_coupling"]
    proteins = content["backbones"]

    def line(axis, table, name, label, **style):
        axis.plot(
            TIMES, [table[str(t)][name] for t in TIMES], marker="o", ms=3.5, label=label, **style
        )

    line(
        axes[0],
        independent,
        "ess_at_temperature_1",
        "200 rotations x automorphisms",
        color="#e6550d",
    )
    line(axes[0], independent, "ess_published", "the same, published temperature", color="#d9a400")
    line(axes[0], proteins, "ess_with_truth", "backbones, 10,000 rotations", color="#1f5fbf")
    axes[0].set(yscale="log", ylabel="effective number of elements", title="ESS (median)")
    line(axes[1], independent, "to_exact_plain", "plain target", color="#6b6b6b")
    line(
        axes[1],
        independent,
        "to_exact_isotropic",
        "isotropic weights, all rotations",
        color="#e6550d",
    )
    line(axes[1], independent, "to_exact_published", "published", color="#d9a400")
    axes[1].set(
        ylabel="rms distance to the exact mean / rms x_0", title="Independent harmonic coupling"
    )
    line(
        axes[2],
        aligned,
        "published_to_truth_sigma_0.0",
        "published, rotations x automorphisms",
        color="#d9a400",
    )
    line(
        axes[2],
        aligned,
        "published_rotations_only_to_truth_sigma_0.0",
        "published, rotations alone",
        color="#e6550d",
    )
    line(
        axes[2],
        aligned,
        "exact_permutations_to_truth_sigma_0.0",
        "exact permutation mean",
        color="#1f5fbf",
    )
    axes[2].set(ylabel="rms distance to x_0 / rms x_0", title="Aligned coupling, sigma = 0")
    line(
        axes[3], independent, "velocity_noise_conditional", "conditional velocity", color="#6b6b6b"
    )
    line(
        axes[3],
        independent,
        "velocity_noise_published_form_with_exact_mean",
        "published form, exact mean",
        color="#1a9e77",
    )
    line(axes[3], independent, "velocity_noise_published", "published", color="#d9a400")
    axes[3].set(
        yscale="log",
        ylabel="rms distance to the mean velocity / its rms",
        title="Velocity, independent coupling (exact: 0)",
    )
    for axis in axes:
        axis.set_xlabel("t (0 data, 1 noise)")
        plain_axes(axis)
        axis.legend(frameon=False, fontsize=8)
    figure_file(fig, RESULTS / "published_cpu.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--molecules", type=int, default=100)
    parser.add_argument("--chains", type=int, default=64)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--rotations", type=int, default=10_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    state = hardware(torch.device("cpu"))
    chosen = list(islice(molecules(most=48), arguments.molecules))
    chains = backbones(arguments.chains, 128)
    tables = {"independent_coupling": {}, "aligned_coupling": {}, "backbones": {}}
    for t in TIMES:
        key = str(t)
        rows = [
            conformer_row(m, t, arguments.draws, stream(m.smiles, t, "independent")) for m in chosen
        ]
        tables["independent_coupling"][key] = mean_rows(rows)
        rows = [aligned_row(m, t, arguments.draws, stream(m.smiles, t, "aligned")) for m in chosen]
        tables["aligned_coupling"][key] = mean_rows(rows)
        row = backbone_row(chains, t, arguments.rotations, stream(t, "backbones"))
        tables["backbones"][key] = mean_rows([row])
        print(t, tables["independent_coupling"][key], flush=True)
    orders = sorted(len(m.automorphisms) for m in chosen)
    content = {
        "what": __doc__.splitlines()[0],
        **state,
        "config": {**vars(arguments), "bridge_sigma": BRIDGE, "residues": 128},
        "automorphisms_min_median_max": [orders[0], orders[len(orders) // 2], orders[-1]],
        **tables,
        "note": "roots of mean squares over molecules and draws, divided by the rms of x_0 "
        "(velocity_noise: of the mean velocity); ESS: medians; one_element_above_half: a share",
    }
    figure(content)
    write("published_cpu", content)


if __name__ == "__main__":
    main()
