"""Training of the toy experiment: one loop for the stack of all arms and seeds."""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

import torch

from orbitdiff.errors import NonFiniteLoss
from orbitdiff.tasks.toy import Toy, ToyConfig
from orbitdiff.typing import Tensor

__all__ = ["ToyResult", "late_error", "train_toy"]


class ToyResult(NamedTuple):
    """Result of a stack: a dict per member, learning curves, weights of the chosen networks."""

    members: list[dict[str, Any]]
    history: list[dict[str, Any]]
    weights: dict[str, Tensor]


def late_error(history: Sequence[Mapping[str, Any]], member: int) -> float:
    """Mean sampling error of one member's checkpoints in the last tenth of training.

    Parameters
    ----------
    history : sequence of {"step", "error"}
    member : int

    Notes
    -----
    The best of 200 checkpoints, judged by the reported metric, is a minimum over the
    fluctuations from step to step; this mean makes no choice.
    """
    start = 0.9 * history[-1]["step"]
    return mean(row["error"][member] for row in history if row["step"] > start)


def train_toy(config: ToyConfig, *, callback: Callable[[int], Any] | None = None) -> ToyResult:
    """Train all arms and seeds, keep each member's best checkpoint, evaluate it.

    Parameters
    ----------
    config : ToyConfig
    callback : callable, optional
        Called with the number of steps done after each block.

    Raises
    ------
    NonFiniteLoss
        A member diverged.
    """
    toy = Toy(config)
    network = toy.network()
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True)
    decay = torch.optim.lr_scheduler.StepLR(optimiser, config.decay_every, config.decay)
    best = torch.full((network.members,), float("inf"), dtype=torch.float64)
    best_step = torch.zeros(network.members, dtype=torch.long)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    history: list[dict[str, Any]] = []
    done = 0
    while done < config.steps:
        todo = min(config.select_every, config.steps - done)
        steps = toy.draw(done // config.select_every)
        features = network.features(steps.x_t, steps.t)
        total = torch.zeros(network.members)
        for index in range(todo):
            error = (network.from_features(features[index]) - steps.target[index]) ** 2
            loss = (steps.weight[index] * error).mean(1)
            optimiser.zero_grad()
            loss.sum().backward()
            optimiser.step()
            decay.step()
            total += loss.detach()
        done += todo
        if not torch.isfinite(total).all():
            which = [config.members[i] for i in (~torch.isfinite(total)).nonzero()[:, 0].tolist()]
            raise NonFiniteLoss(f"toy: loss of {which} is not finite at step {done}")
        found, _ = toy.errors(network, config.num_select, "select")
        better = found < best
        best = torch.where(better, found, best)
        best_step[better] = done
        for name, value in network.state_dict().items():
            weights[name][better] = value[better]
        history.append({"step": done, "loss": (total / todo).tolist(), "error": found.tolist()})
        if callback is not None:
            callback(done)
    last = toy.errors(network, config.num_samples, "evaluate")
    network.load_state_dict(weights)
    chosen = toy.errors(network, config.num_samples, "evaluate")
    members = [
        {
            "arm": arm,
            "seed": seed,
            "error": float(chosen[0][i]),
            "w2": float(chosen[1][i]),
            "best_step": int(best_step[i]),
            "last_error": float(last[0][i]),
            "last_w2": float(last[1][i]),
            "late_error": late_error(history, i),
        }
        for i, (arm, seed) in enumerate(config.members)
    ]
    return ToyResult(members, history, weights)
