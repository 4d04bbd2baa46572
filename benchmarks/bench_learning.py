"""Learning with each target: error to the exact mean against steps, two denoisers, three seeds.

200 molecules of at most 18 atoms (GFN2 conformers, up to 4 each), x_t = x_0 + sigma eps with sigma
log-uniform from 0.1 to 10 angstrom. All arms share start, steps, batch, data, orientations, noise
and seeds; only the target differs. The yardstick is one for all: squared distance of the network
to the exact mean over rotations and conformers, the minimiser of every unbiased arm's loss, at
seven noise levels, on fresh noise of 100 training molecules and on 100 held-out ones. Resumable:
each run is a file under .runs/learning. Writes results/learning_cpu.json and a figure.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from molecules import Ensembles, ensembles
from record import RESULTS, hardware, write
from small_denoisers import SIZE, EquivariantDenoiser, FlatDenoiser, denoise, loss_weight

from orbitdiff.groups import SO3
from orbitdiff.kernels import GaussianKernel, GeometricSigma, Parametrization
from orbitdiff.orbit import OrbitContext, PlainTarget, RotationOrbit, RotationSamples
from orbitdiff.seeding import stream
from orbitdiff.viz.style import figure_file, plain_axes

KERNEL = GaussianKernel(GeometricSigma(0.1, 10.0))
LEVELS = (0.15, 0.3, 0.6, 1.2, 2.5, 5.0, 9.0)
ATOMS, CONFORMERS, TRAINED, HELD_OUT = 18, 4, 200, 100
NETWORKS = {"mlp": lambda: FlatDenoiser(ATOMS), "equivariant": lambda: EquivariantDenoiser()}
ARMS = {
    "plain": PlainTarget(KERNEL, parametrization=Parametrization.DATA),
    "snis_64_without_truth": RotationSamples(KERNEL, num_samples=64, include_true=False),
    "snis_64": RotationSamples(KERNEL, num_samples=64),
    "snis_1024": RotationSamples(KERNEL, num_samples=1024),
    "laplace_16": RotationSamples(KERNEL, num_samples=16, proposal="laplace"),
    "exact": RotationOrbit(KERNEL),
    "exact_conformers": RotationOrbit(KERNEL),
}
COLOURS = dict(
    zip(
        ARMS,
        ("#6b6b6b", "#e7298a", "#e6550d", "#d9a400", "#1a9e77", "#1f5fbf", "#0b2f6b"),
        strict=True,
    )
)
RUNS = Path(".runs/learning")
STEPS = {"mlp": 8000, "equivariant": 1500}
CHECKS = 8


def family(data: Ensembles, rows):
    """Conformers of each row and their log prior."""
    place = torch.arange(CONFORMERS)
    log_prior = torch.where(place < data.counts[rows, None], 0.0, -torch.inf)
    return OrbitContext(conformers=data.conformers[rows], log_prior=log_prior.double())


def draw(data: Ensembles, rows, t, generator):
    """One conformer of each row in a uniform orientation, and x_t."""
    which = (torch.rand(len(rows), generator=generator) * data.counts[rows]).long()
    turn = SO3().sample(len(rows), generator=generator).float()
    x_0 = data.conformers[rows, which] @ turn.mT
    return x_0, KERNEL.sample(x_0, t, mask=data.mask[rows], generator=generator).x_t


def yardstick(net, data: Ensembles, name: str):
    """Mean squared distance to the exact mean by noise level, in units of SIZE^2."""
    errors = []
    for level in LEVELS:
        generator = stream("yardstick", name, level)
        rows = torch.arange(HELD_OUT)
        t = torch.full((len(rows),), float(np.log(level / 0.1) / np.log(100.0)))
        x_0, x_t = draw(data, rows, t, generator)
        mask = data.mask[rows]
        target = RotationOrbit(KERNEL)(x_t, x_0, t, context=family(data, rows), mask=mask).value
        with torch.no_grad():
            found = denoise(net, x_t, torch.full((len(rows),), level), data.types[rows], mask)
        square = ((found - target).square().sum(-1) * mask).sum(1) / (3 * mask.sum(1))
        errors.append(float(square.mean()) / SIZE**2)
    return errors


def train(network: str, arm: str, seed: int, trained, held_out, *, steps: int, batch: int):
    """Train one run; evaluate often with an exponential average of the weights."""
    torch.manual_seed(seed)
    net = NETWORKS[network]()
    average = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    estimator, curve, start = ARMS[arm], [], time.perf_counter()
    for step in range(1, steps + 1):
        noise = stream(seed, "noise", step)
        rows = torch.randint(len(trained.mask), (batch,), generator=noise)
        t = torch.rand(batch, generator=noise)
        x_0, x_t = draw(trained, rows, t, noise)
        mask = trained.mask[rows]
        context = family(trained, rows) if arm == "exact_conformers" else None
        target = estimator(
            x_t, x_0, t, context=context, mask=mask, generator=stream(seed, "orbit", step)
        ).value
        sigma = KERNEL.schedule(t).sigma
        square = (denoise(net, x_t, sigma, trained.types[rows], mask) - target).square().sum(-1)
        loss = (loss_weight(sigma) * (square * mask).sum(1) / (3 * mask.sum(1))).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(net)
        if step % (steps // CHECKS) == 0:
            curve.append(
                {
                    "step": step,
                    "trained": yardstick(average, trained, "trained"),
                    "held_out": yardstick(average, held_out, "held out"),
                }
            )
    return {"curve": curve, "seconds": round(time.perf_counter() - start, 1)}


def summary(runs, seeds):
    """Mean and spread of the final error, and the paired difference to plain."""
    table = {}
    for network in NETWORKS:
        table[network] = {}
        for where in ("trained", "held_out"):
            last = {
                arm: np.array(
                    [np.mean(runs[network, arm, seed]["curve"][-1][where]) for seed in seeds]
                )
                for arm in ARMS
            }
            table[network][where] = {
                arm: {
                    "mean": float(f"{values.mean():.4g}"),
                    "standard_deviation": float(f"{values.std(ddof=1):.2g}"),
                    "paired_to_plain": float(f"{(values - last['plain']).mean():.3g}"),
                    "its_standard_error": float(
                        f"{(values - last['plain']).std(ddof=1) / len(seeds) ** 0.5:.2g}"
                    ),
                }
                for arm, values in last.items()
            }
        table[network]["by_level_trained"] = {
            arm: [
                float(f"{v:.4g}")
                for v in np.mean([runs[network, arm, s]["curve"][-1]["trained"] for s in seeds], 0)
            ]
            for arm in ARMS
        }
    return table


def by_step(runs, seeds):
    """Error against steps, mean over seeds, levels and molecules."""
    table = {}
    for network in NETWORKS:
        steps = [point["step"] for point in runs[network, "plain", seeds[0]]["curve"]]
        table[network] = {"steps": steps}
        for where in ("trained", "held_out"):
            table[network][where] = {
                arm: [
                    float(
                        f"{np.mean([runs[network, arm, s]['curve'][k][where] for s in seeds]):.4g}"
                    )
                    for k in range(len(steps))
                ]
                for arm in ARMS
            }
    return table


def figure(runs, seeds) -> None:
    """Error against steps, one panel per network and molecule set."""
    fig, axes = plt.subplots(1, 4, figsize=(17, 4.2), constrained_layout=True)
    panels = [(n, w) for n in NETWORKS for w in ("trained", "held_out")]
    for axis, (network, where) in zip(axes, panels, strict=True):
        for arm in ARMS:
            curves = np.array(
                [[np.mean(p[where]) for p in runs[network, arm, s]["curve"]] for s in seeds]
            )
            steps = [p["step"] for p in runs[network, arm, seeds[0]]["curve"]]
            mean, spread = curves.mean(0), curves.std(0, ddof=1)
            axis.plot(steps, mean, color=COLOURS[arm], label=arm.replace("_", " "), lw=1.6)
            axis.fill_between(steps, mean - spread, mean + spread, color=COLOURS[arm], alpha=0.12)
        axis.set(
            yscale="log",
            xlabel="steps",
            title=f"{network}, {where.replace('_', ' ')} molecules",
        )
        plain_axes(axis)
    axes[0].set_ylabel("squared distance to the exact mean / size^2")
    axes[-1].legend(frameon=False, fontsize=8)
    figure_file(fig, RESULTS / "learning_cpu.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=float, default=1.0, help="share of the steps")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    state = hardware(torch.device("cpu"))
    everything = ensembles(TRAINED + HELD_OUT, atoms=ATOMS, most=CONFORMERS)
    trained = Ensembles(*(part[:TRAINED] for part in everything))
    held_out = Ensembles(*(part[TRAINED:] for part in everything))
    seeds, runs = range(arguments.seeds), {}
    RUNS.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for network in NETWORKS:
            steps = int(arguments.steps * STEPS[network])
            for arm in ARMS:
                name = f"{network}-{arm}-{seed}-{steps}-{arguments.batch}.json"
                if not (RUNS / name).exists():
                    found = train(
                        network, arm, seed, trained, held_out,
                        steps=steps, batch=arguments.batch,
                    )  # fmt: skip
                    (RUNS / name).write_text(json.dumps(found))
                runs[network, arm, seed] = json.loads((RUNS / name).read_text())
                last = np.mean(runs[network, arm, seed]["curve"][-1]["trained"])
                print(name, f"{last:.4f}", runs[network, arm, seed]["seconds"], flush=True)
    figure(runs, list(seeds))
    content = {
        "what": __doc__.splitlines()[0],
        **state,
        "config": {
            **vars(arguments), "molecules": TRAINED, "held_out": HELD_OUT, "atoms": ATOMS,
            "steps": STEPS, "levels_angstrom": LEVELS, "learning_rate": 1e-3, "ema": 0.995,
        },
        "final_error": summary(runs, list(seeds)),
        "error_by_step": by_step(runs, list(seeds)),
        "seconds_per_run": {
            network: {arm: runs[network, arm, 0]["seconds"] for arm in ARMS} for network in NETWORKS
        },
    }  # fmt: skip
    write("learning_cpu", content)


if __name__ == "__main__":
    main()
