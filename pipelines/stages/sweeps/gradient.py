"""Gradient noise of an estimator: trace of the covariance of its per-sample gradients."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from orbitdiff.export import write_atomically
from orbitdiff.seeding import stream
from orbitdiff.tasks.base import build_task
from orbitdiff.tasks.toy import Toy
from orbitdiff.training import checkpoint as store
from orbitdiff.typing import Float, Tensor
from pipelines.stages.sweeps.space import Trial

__all__ = ["covariance_trace", "gradient_variance", "measure"]

FILE = "gradient.json"
SAMPLES = 64
BLOCK = 2**20
"""Block of the toy's streams that no training reaches."""


def measure(trial: Trial, root: Path) -> None:
    """Measure the gradient noise of a trial's estimator, once, and keep it with the trial.

    All trials of a seed meet the same samples, times and noise, and the same network: that which
    the exact estimator trained. What differs is the target alone. Nothing is measured where the
    exact trial has no network.

    Parameters
    ----------
    trial : Trial
    root : Path
        Running state of the sweep.
    """
    reference = trial.reference or trial
    network = reference.folder(root) / "final"
    if gradient_variance(trial, root) is not None or not store.is_complete(network):
        return
    weights, _ = store.load_model(network)
    losses_of = task_losses if trial.num_workers else toy_losses
    model, losses = losses_of(trial, weights)
    found = covariance_trace(losses, list(model.parameters()))
    content = {"reference": reference.identity, "gradient_variance": found}
    write_atomically(trial.folder(root) / FILE, json.dumps(content) + "\n")


def gradient_variance(trial: Trial, root: Path) -> float | None:
    """What was measured of a trial against its present reference; None where nothing was."""
    try:
        found = json.loads((trial.folder(root) / FILE).read_text())
    except (FileNotFoundError, ValueError):
        return None
    known = found["reference"] == (trial.reference or trial).identity
    return float(found["gradient_variance"]) if known else None


def covariance_trace(losses: Float[Tensor, " B"], parameters: Sequence[Tensor]) -> float:
    """Trace of Cov(g): sum_i |g_i - mean g|^2 / (B - 1), g_i the gradient of the i-th loss.

    Parameters
    ----------
    losses : (B,)
        B is at least 2.
    parameters : sequence of tensor
    """
    total, power = None, 0.0
    for loss in losses:
        parts = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
        flat = torch.cat([part.flatten() for part in parts]).double()
        power += float(flat.square().sum())
        total = flat if total is None else total + flat
    assert total is not None  # two losses at least
    return (power - float(total.square().sum()) / len(losses)) / (len(losses) - 1)


def task_losses(trial: Trial, weights: dict[str, Tensor]) -> tuple[nn.Module, Tensor]:
    """Network with the weights, and its loss on each of some training samples."""
    assert trial.origin.data is not None  # every task with workers is trained on prepared data
    task = build_task(
        trial.origin.task, trial.settings, trial.arm, trial.origin.data,
        streamed=bool(trial.settings.train.window),
    )  # fmt: skip
    network: nn.Module = task.build_denoiser(generator=stream(trial.seed, "weights"))
    network.load_state_dict({name: value.float() for name, value in weights.items()})
    network.eval()
    order = torch.randperm(len(task.train_sizes()), generator=stream("sweep", "rows"))
    batch = task.train_batch(order[:SAMPLES], generator=stream("sweep", "data"))
    generator = stream("sweep", "noise")
    t = task.objective.draw_times(len(batch), generator=generator, device=torch.device("cpu"))
    return network, task.objective(network, batch, t, generator=generator).per_sample


def toy_losses(trial: Trial, weights: dict[str, Tensor]) -> tuple[nn.Module, Tensor]:
    """The same for the toy."""
    toy = Toy(trial.settings)
    network = toy.network()
    network.load_state_dict(weights)
    steps = toy.draw(BLOCK)
    x_t, t, target, weight = (part[0, :, :SAMPLES] for part in steps)
    return network, (weight * (network(x_t, t) - target) ** 2)[0]
