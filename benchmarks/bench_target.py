"""Cost and error of the orbit target on the torus: exact, SNIS as published, ours, i-SIR.

A Perov-5-like batch of 256 crystals with 5 atoms, noise levels as training draws them. All
methods run in turn in one process, on one thread.
"""

import argparse
import statistics
import time

import torch
from published_snis import draws_as_training, published_snis
from record import hardware, write

from orbitdiff.groups import TorusTranslation
from orbitdiff.kernels import GeometricSigma, Parametrization, WrappedNormalKernel
from orbitdiff.orbit import PUBLISHED, EstimatorSpec, build_estimator

SIGMAS = (0.005, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
FAST = ("exact", "plain")
OURS = ("orbdiff_u", "orbdiff_wn")
UNTIMED = "uniform_without_truth"
KERNEL = WrappedNormalKernel(GeometricSigma())


def estimator(spec):
    return build_estimator(
        spec, KERNEL, parametrization=Parametrization.SCORE, group=TorusTranslation()
    )


def methods(num_samples):
    """Name to a function of (x_t, x_0, t, sigma, generator)."""
    specs = {
        "exact": EstimatorSpec("torus"),
        "plain": EstimatorSpec("plain"),
        "isir_64": EstimatorSpec("isir", num_samples=64),
        **{name: PUBLISHED[name] for name in OURS},
        "orbdiff_wn_per_axis": EstimatorSpec(
            "importance", num_samples=64, proposal="wrapped_normal", per_axis=True
        ),
        "uniform_without_truth": EstimatorSpec(
            "importance", num_samples=num_samples, proposal="uniform", include_true=False
        ),
    }
    found = {}
    for name, spec in specs.items():
        built = estimator(spec)
        found[name] = lambda x_t, x_0, t, sigma, g, built=built: (
            built(x_t, x_0, t, generator=g).value
        )
    for proposal in ("uniform", "wrapped_normal"):
        found[f"as_published_{proposal}"] = lambda x_t, x_0, t, sigma, g, p=proposal: (
            published_snis(x_t, x_0, sigma, num_samples=num_samples, proposal=p, generator=g)
        )
    return found


def accuracy(batch, atoms, num_samples):
    """Root mean square error to the exact score over that of the plain target's own size."""
    table = {}
    for sigma in SIGMAS:
        generator = torch.Generator().manual_seed(1)
        x_t, x_0, t, s = draws_as_training(batch, atoms, generator)
        s = torch.full_like(s, sigma)
        noise = torch.randn(x_0.shape, generator=generator)
        x_t = (x_0 + sigma * noise) % 1.0
        t = torch.log(s / 0.005) / torch.log(torch.tensor(100.0))
        run = methods(num_samples)
        exact = run["exact"](x_t, x_0, t, s, generator)
        size = run["plain"](x_t, x_0, t, s, generator).square().mean().sqrt()
        table[str(sigma)] = {
            name: float((f(x_t, x_0, t, s, generator) - exact).square().mean().sqrt() / size)
            for name, f in run.items()
        }
    return table


def timings(run, data, config):
    """Seconds of each method, in turn; after each slow one comes a burst of the fast ones."""
    generator = torch.Generator().manual_seed(0)
    seconds = {name: [] for name in run}

    def measure(name):
        start = time.perf_counter()
        run[name](*data, generator)
        seconds[name].append(time.perf_counter() - start)

    for name in FAST:
        run[name](*data, generator)
    for _ in range(config.repeats):
        for name in run:
            if name in FAST or name == UNTIMED:
                continue
            measure(name)
            for fast in FAST:
                for _ in range(config.fast_repeats):
                    measure(fast)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--atoms", type=int, default=5)
    parser.add_argument("--num-samples", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fast-repeats", type=int, default=20)
    parser.add_argument("--accuracy-batch", type=int, default=32)
    config = parser.parse_args()
    torch.set_num_threads(1)
    before = hardware(torch.device("cpu"))
    data = draws_as_training(config.batch, config.atoms, torch.Generator().manual_seed(0))
    run = methods(config.num_samples)
    seconds = timings(run, data, config)
    table = {
        name: {"median_ms": 1e3 * statistics.median(v), "min_ms": 1e3 * min(v), "runs": len(v)}
        for name, v in seconds.items()
        if v
    }
    slow = ("as_published_uniform", "as_published_wrapped_normal", *OURS, "isir_64")
    write(
        "target_cpu",
        {
            "what": "cost and error of the orbit mean of the score over cell translations",
            "hardware": before,
            "config": vars(config),
            "noise": "t uniform, sigma = 0.005 * 100^t; random cells",
            "bar": "exact at least 300 times faster than SNIS as published, in one run",
            "milliseconds": table,
            "times_slower_than_exact": {
                kind: {
                    name: round(table[name][f"{kind}_ms"] / table["exact"][f"{kind}_ms"], 1)
                    for name in slow
                }
                for kind in ("median", "min")
            },
            "rms_error_over_rms_of_plain_by_sigma": accuracy(
                config.accuracy_batch, config.atoms, config.num_samples
            ),
        },
    )


if __name__ == "__main__":
    main()
