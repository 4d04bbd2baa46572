"""Cost of an exact orbit target in a training step at `paper` size, batch of 256 Perov-5 crystals.

A plain step is: noise both fields, network forward, plain targets, loss, backward, gradient
clipping, Adam. The exact arm differs in the target of the fractional coordinates alone (averaged
over translations). The target is a small part of the step, so it is timed by itself, over noise
levels as training draws them, and its excess over the plain target is given as a share of the
plain step; whole steps of both arms are timed as well. Bar: 3 %. Writes
results/step_{cpu,cuda}.json.
"""

import argparse
import statistics

import torch
from bench_cspnet import SIZES, batch_of
from record import hardware, interleaved, write

from orbitdiff.batch import Batch
from orbitdiff.kernels import (
    CosineVP,
    GaussianKernel,
    GeometricSigma,
    Parametrization,
    WrappedNormalKernel,
)
from orbitdiff.nn.cspnet import CSPNet
from orbitdiff.objective import DiffusedField, Objective
from orbitdiff.orbit.plain import PlainTarget
from orbitdiff.orbit.torus import TorusOrbit
from orbitdiff.tasks.crystals import TorusScoreScale, UnitScale


def objective_of(estimator) -> Objective:
    schedule = GeometricSigma()
    frac, lattice = WrappedNormalKernel(schedule), GaussianKernel(CosineVP())
    plain = PlainTarget(lattice, parametrization=Parametrization.NOISE)
    target = estimator(frac, parametrization=Parametrization.SCORE)
    return Objective(
        {
            "lattice": DiffusedField(lattice, plain, UnitScale(), masked=False),
            "frac": DiffusedField(frac, target, TorusScoreScale(schedule)),
        }
    )


def arm_of(net, batch, objective, device):
    """One training step, drawing new times and noise at each call."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    generator = torch.Generator(device=device).manual_seed(0)

    def step():
        t = torch.rand(len(batch), generator=generator, device=device)
        optimizer.zero_grad(set_to_none=True)
        objective(net, batch, t, generator=generator).value.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimizer.step()

    return step


def target_of(batch, objective, device):
    """Return a call of the target of the fractional coordinates alone."""
    field = objective.fields["frac"]
    generator = torch.Generator(device=device).manual_seed(0)
    clean = batch.state["frac"]
    drawn = []
    for _ in range(8):
        t = torch.rand(len(batch), generator=generator, device=device)
        drawn.append((t, *field.kernel.sample(clean, t, mask=batch.mask, generator=generator)))
    turn = iter(drawn * 100_000)

    def target():
        t, x_t, noise = next(turn)
        field.estimator(x_t, clean, t, noise=noise, mask=batch.mask, generator=generator)

    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    net = CSPNet(SIZES["paper"]).to(device)
    x_0, _, cond, mask = batch_of(256, 5, device)
    batch = Batch(x_0, mask, cond, torch.arange(256, device=device))
    arms = [objective_of(PlainTarget), objective_of(TorusOrbit)]
    state = hardware(device)
    targets = [target_of(batch, arm, device) for arm in arms]
    alone = interleaved(targets, repeats=20 * arguments.repeats, device=device)
    steps = [arm_of(net, batch, arm, device) for arm in arms]
    whole = interleaved(steps, repeats=arguments.repeats, device=device)
    target_ms = [1e3 * statistics.median(seconds) for seconds in alone]
    step_ms = [1e3 * min(seconds) for seconds in whole]
    content = {
        "what": __doc__.splitlines()[0],
        "bar_percent": 3.0,
        **state,
        "size": "paper",
        "batch": 256,
        "atoms": 5,
        "repeats": arguments.repeats,
        "plain_target_ms": round(target_ms[0], 3),
        "exact_target_ms": round(target_ms[1], 3),
        "plain_step_ms": round(step_ms[0], 1),
        "exact_step_ms": round(step_ms[1], 1),
        "exact_adds_percent": round(100 * (target_ms[1] - target_ms[0]) / step_ms[0], 3),
    }
    write(f"step_{device.type}", content)


if __name__ == "__main__":
    main()
