"""Variance of the training gradient by time on a trained backbone network, for every target.

Pairs of independent draws (chain, orientation, noise) at one time t; half the squared distance of
their gradients is an unbiased estimate of the trace of the gradient's covariance. All targets see
the same draws, so differences between them are paired. Means over pairs with 95 % intervals. Beside
it the cost of each target for 16 chains of 256 residues. Writes
results/backbone_gradients_{cpu,cuda}.json and a figure.
"""

import argparse
import math
import statistics
from pathlib import Path

import torch
from record import RESULTS, hardware, interleaved, write

from orbitdiff.batch import Batch
from orbitdiff.data.proteins import ProteinDataset
from orbitdiff.groups.rotation import SO3
from orbitdiff.inference.backbones import BackboneModel
from orbitdiff.objective import mean_square
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.seeding import stream
from orbitdiff.tasks.backbone_objective import (
    FIELD,
    SQUARE_NANOMETRE,
    BackboneKernelConfig,
    BackboneObjective,
)

ARMS = {
    "plain": EstimatorSpec("plain"),
    "published": EstimatorSpec("rotation_samples", num_samples=10_000, include_true=False),
    "published_true": EstimatorSpec("rotation_samples", num_samples=10_000),
    "exact": EstimatorSpec("rotation"),
}
TIMES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.97)
PAIRS = {
    "exact - published_true": ("exact", "published_true"),
    "published_true - plain": ("published_true", "plain"),
    "exact - plain": ("exact", "plain"),
}


def gradients(network, objectives, batch: Batch, t, *, generator) -> dict[str, torch.Tensor]:
    """Gradient of the loss of one draw with each target, flat; and ESS of the sampled one."""
    x_0 = batch.state[FIELD]
    kernel = objectives["plain"].field.kernel
    x_t, noise = kernel.sample(x_0, t, mask=batch.mask, generator=generator)
    said = network({FIELD: x_t}, t, batch.cond, batch.mask)[FIELD]
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    found = {}
    for name, objective in objectives.items():
        target = objective.field.estimator(
            x_t, x_0, t, noise=noise, mask=batch.mask, generator=generator
        )
        if name == "published_true":
            found["ess"] = target.info.ess
        loss = SQUARE_NANOMETRE * mean_square(said, target.value, batch.mask).mean()
        parts = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        found[name] = torch.cat([part.flatten() for part in parts if part is not None])
    return found


def interval(values: list[float]) -> dict[str, float]:
    """Mean and 95 % interval of independent values."""
    middle = statistics.mean(values)
    half = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": middle, "low": middle - half, "high": middle + half}


def measure(model: BackboneModel, dataset: ProteinDataset, time: float, pairs: int, device) -> dict:
    """Variance of each target's gradient at one time, and paired differences."""
    objectives = {name: BackboneObjective(model.kernel, arm) for name, arm in ARMS.items()}
    halves: dict[str, list[float]] = {name: [] for name in ARMS}
    ess = []
    for pair in range(pairs):
        two = []
        for member in range(2):
            generator = stream("gradients", f"{time:g}", pair, member)
            row = torch.randint(len(dataset), (1,), generator=generator)
            batch = dataset.batch(row)
            turned = SO3().sample(1, generator=generator, dtype=torch.float32)
            batch.state[FIELD] = batch.state[FIELD] @ turned.mT
            own = stream("noise", f"{time:g}", pair, member, device=device)
            t = torch.full((1,), time, device=device)
            two.append(gradients(model.network, objectives, batch.to(device), t, generator=own))
        for name in ARMS:
            halves[name].append(0.5 * float((two[0][name] - two[1][name]).square().sum()))
        ess += [float(one["ess"]) for one in two]
    differences = {
        label: interval([a - b for a, b in zip(halves[one], halves[other], strict=True)])
        for label, (one, other) in PAIRS.items()
    }
    plain = statistics.mean(halves["plain"])
    return {
        "t": time,
        "variance": {name: interval(values) for name, values in halves.items()},
        "relative_to_plain": {
            name: round(statistics.mean(values) / plain, 4) for name, values in halves.items()
        },
        "differences": differences,
        "ess_of_10000": round(statistics.mean(ess), 2),
    }


def target_ms(kernel: BackboneKernelConfig, device, *, repeats: int = 20) -> dict[str, float]:
    """Median milliseconds per sample of each target, 16 chains of 256 residues, called in turn."""
    generator = stream("cost", device=device)
    x_0 = 9.0 * torch.randn(16, 256, 3, generator=generator, device=device)
    x_0 = x_0 - x_0.mean(1, keepdim=True)
    objectives = [BackboneObjective(kernel, arm) for arm in ARMS.values()]
    t = kernel.draw_times(16, generator=generator, device=device)
    x_t, noise = objectives[0].field.kernel.sample(x_0, t, generator=generator)

    def call(objective):
        return lambda: objective.field.estimator(x_t, x_0, t, noise=noise, generator=generator)

    times = interleaved([call(one) for one in objectives], repeats=repeats, device=device)
    return {
        name: round(1e3 * statistics.median(seconds) / 16, 4)
        for name, seconds in zip(ARMS, times, strict=True)
    }


def draw(levels: list[dict], path: Path) -> None:
    """Variance by time, relative to plain."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    from orbitdiff.viz.backbone_curves import ARMS as LOOKS
    from orbitdiff.viz.curves import log_values
    from orbitdiff.viz.style import figure_file, plain_axes

    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    plain_axes(axes)
    times = [level["t"] for level in levels]
    for name in ARMS:
        plain = [level["variance"]["plain"]["mean"] for level in levels]
        own = [level["variance"][name] for level in levels]
        tone = LOOKS["tuned" if name == "plain" else f"tuned_{name}"][1]
        middle = [one["mean"] / base for one, base in zip(own, plain, strict=True)]
        axes.plot(times, middle, "o-", color=tone, lw=1.8, ms=4.5, label=name.replace("_", " "))
    axes.set_xlabel("time t (0 data, 1 noise)")
    axes.set_ylabel("gradient variance / plain's")
    log_values(axes)
    axes.legend(frameon=False)
    figure_file(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("models/cpu-pdb_64-plain-0"))
    parser.add_argument("--data", type=Path, default=Path("data/prepared/backbones/pdb_64"))
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    state = hardware(device)
    model = BackboneModel.load(arguments.model, device=device)
    dataset = ProteinDataset.load(arguments.data, "train")
    costs = target_ms(model.kernel, device)
    print(f"target, ms per sample of 256 residues: {costs}", flush=True)
    levels = []
    for time in TIMES:
        levels.append(measure(model, dataset, time, arguments.pairs, device))
        print(f"t = {time:g}: {levels[-1]['relative_to_plain']}", flush=True)
    content = {
        "what": __doc__.splitlines()[0],
        **state,
        "model": model.about,
        "chains": len(dataset),
        "pairs": arguments.pairs,
        "unit": "trace of the covariance of one sample's gradient, loss in nm^2",
        "target_ms_per_sample_of_256_residues": costs,
        "levels": levels,
    }
    write(f"backbone_gradients_{device.type}", content)
    draw(levels, RESULTS / f"backbone_gradients_{device.type}.png")


if __name__ == "__main__":
    main()
