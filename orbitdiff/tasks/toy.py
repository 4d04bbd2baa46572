"""The toy experiment of the paper: one point, the group {+1, -1}, a network of 91 numbers.

All arms and seeds train as one stack of independent networks. The targets do not depend on the
network, so kernel and estimators run once for hundreds of steps, and a step costs a few batched
products. A member computes what it would compute alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, final

import torch

from orbitdiff.batch import Batch
from orbitdiff.data.toy import half_and_half, orbit_points, point
from orbitdiff.errors import BadInput
from orbitdiff.groups.finite import Sign
from orbitdiff.kernels.base import Parametrization
from orbitdiff.kernels.gaussian import GaussianKernel
from orbitdiff.kernels.schedule import LinearSigma
from orbitdiff.metrics.distribution import mean_distance_to_orbit, wasserstein2_sorted
from orbitdiff.nn.mlp import OddMLP
from orbitdiff.objective import DiffusedField
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.orbit.registry import build_estimator
from orbitdiff.samplers.base import Evaluation
from orbitdiff.samplers.ode import ProbabilityFlow
from orbitdiff.seeding import stream
from orbitdiff.typing import Float, PerSample, State, Tensor

__all__ = ["Steps", "Toy", "ToyConfig"]

Network = Callable[[Tensor, Tensor], Tensor]


def published_arms() -> dict[str, EstimatorSpec]:
    """Arms of Table 1; `augmentation` differs from `plain` in its data."""
    plain = EstimatorSpec(kind="plain")
    return {"plain": plain, "augmentation": plain, "exact": EstimatorSpec(kind="finite")}


@final
@dataclass(frozen=True)
class ToyConfig:
    """Settings of the toy experiment; the defaults are the published ones.

    Parameters
    ----------
    estimators : dict of EstimatorSpec
        Arms by name.
    augmented : tuple of str
        Arms whose data point is multiplied by a random group element at each draw.
    seeds : tuple of int
        Each arm is trained once per seed, with the same start, times and noise.
    steps, batch_size : int
    levels : int
        Number of times of the uniform grid on [0, 1], in training and sampling.
    sigma_min, sigma_max : float
        Noise level at t = 0 and t = 1.
    widths : tuple of int
        Hidden widths of the network.
    learning_rate, decay : float
        Adam's rate, and its factor every `decay_every` steps.
    select_every, num_select : int
        Steps between checkpoints, samples that judge one.
    num_samples : int
        Samples of the final evaluation.
    """

    __pydantic_config__ = {"extra": "forbid"}

    estimators: dict[str, EstimatorSpec] = field(default_factory=published_arms)
    augmented: tuple[str, ...] = ("augmentation",)
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 100_000
    batch_size: int = 200
    levels: int = 100
    sigma_min: float = 0.01
    sigma_max: float = 0.999
    widths: tuple[int, ...] = (10, 5)
    learning_rate: float = 1e-3
    decay_every: int = 8000
    decay: float = 0.8
    select_every: int = 500
    num_select: int = 1000
    num_samples: int = 100_000

    def __post_init__(self) -> None:
        counts = (self.steps, self.batch_size, self.select_every, self.decay_every)
        if min(counts) < 1 or self.levels < 2 or not self.seeds or not self.estimators:
            raise BadInput(f"expected positive counts, 2 levels, a seed and an arm, got {self}")
        unknown = sorted(set(self.augmented) - set(self.estimators))
        if unknown:
            raise BadInput(f"augmented arms {unknown} are not among {sorted(self.estimators)}")

    @property
    def members(self) -> list[tuple[str, int]]:
        """(arm, seed) of each network of the stack."""
        return [(arm, seed) for arm in self.estimators for seed in self.seeds]


class Steps(NamedTuple):
    """What S training steps see, each (S, E, B): x_t, t, target of x_0, loss weight."""

    x_t: Tensor
    t: Tensor
    target: Tensor
    weight: Tensor


def unit_scale(t: PerSample) -> PerSample:
    """Return one: the network predicts x_0 itself."""
    return torch.ones_like(t)


@final
class Toy:
    """The parts of the toy experiment.

    Parameters
    ----------
    config : ToyConfig
    """

    def __init__(self, config: ToyConfig) -> None:
        self.config = config
        self.group = Sign()
        self.kernel = GaussianKernel(LinearSigma(config.sigma_min, config.sigma_max))
        self.estimators = {
            arm: build_estimator(
                spec, self.kernel, parametrization=Parametrization.DATA, group=self.group
            )
            for arm, spec in config.estimators.items()
        }
        estimator = next(iter(self.estimators.values()))
        fields = {"x": DiffusedField(self.kernel, estimator, unit_scale, masked=False)}
        self.sampler = ProbabilityFlow(fields, steps=config.levels)

    def network(self) -> OddMLP:
        """One network per arm and seed; equal seeds start equal."""
        return OddMLP(
            [stream(seed, "toy", "start") for _, seed in self.config.members],
            widths=self.config.widths,
        )

    def loss_weight(self, t: PerSample) -> PerSample:
        """alpha^2 / sigma^2, the weight of the squared error of x_0."""
        alpha, sigma = self.kernel.schedule(t)
        return (alpha / sigma) ** 2

    def draw(self, block: int) -> Steps:
        """Draw `select_every` training steps; all arms of a seed see the same t and noise."""
        drawn = [self._draw_member(arm, seed, block) for arm, seed in self.config.members]
        return Steps(*(torch.stack(part, 1) for part in zip(*drawn, strict=True)))

    def _draw_member(self, arm: str, seed: int, block: int) -> Steps:
        config = self.config
        shape = (config.select_every, config.batch_size)
        index = torch.randint(config.levels, shape, generator=stream(seed, "toy", "t", block))
        t = (index / (config.levels - 1)).flatten()
        x_0 = point(len(t))
        if arm in config.augmented:
            g = self.group.sample(len(t), generator=stream(seed, "toy", "group", block))
            x_0 = self.group.act(g, x_0)
        noised = self.kernel.sample(x_0, t, generator=stream(seed, "toy", "noise", block))
        target = self.estimators[arm](
            noised.x_t, x_0, t, noise=noised.noise, generator=stream(seed, "toy", arm, block)
        )
        parts = (noised.x_t, t, target.value, self.loss_weight(t))
        return Steps(*(part.reshape(shape) for part in parts))

    @torch.no_grad()
    def sample(self, network: Network, starts: Float[Tensor, "E S"]) -> Float[Tensor, "E S"]:
        """Run the deterministic sampler (DDIM) of every member from given starts.

        Parameters
        ----------
        network : callable
            (x, t) -> prediction of x_0, (E, S) each; an `OddMLP`.
        starts : (E, S)
            x_1, a row per member.
        """
        flat = starts.reshape(-1)

        def denoiser(x_t: State, t: Tensor, cond: State, mask: Tensor) -> State:
            x = x_t["x"].reshape(starts.shape)
            return {"x": network(x, t.reshape(starts.shape)).reshape(-1, 1, 1)}

        rows = len(flat)
        real = torch.ones(rows, 1, dtype=torch.bool)
        template = Batch({"x": flat[:, None, None]}, real, {}, torch.arange(rows))
        evaluate = Evaluation(denoiser, template, self.sampler.fields)
        times = [time.expand(rows) for time in self.sampler.grid().float()]
        state = template.state
        for t, s in zip(times, [*times[1:], None], strict=True):
            state = self.sampler.step(evaluate, state, t, s, {}, {})
        return state["x"].reshape(starts.shape)

    def errors(self, network: OddMLP, num: int, purpose: str) -> tuple[Tensor, Tensor]:
        """Mean |x - sign(x)| and W2 to the balanced orbit of each member, (E,) each.

        Parameters
        ----------
        network : OddMLP
        num : int
            Even number of samples.
        purpose : str
            Names the random stream of the starts; all arms of a seed share them.
        """
        starts = torch.stack(
            [
                half_and_half(num, generator=stream(seed, "toy", purpose))
                for _, seed in self.config.members
            ]
        )
        x = self.sample(network, starts).double()
        orbit = orbit_points(num).double()
        distance = torch.stack([mean_distance_to_orbit(member) for member in x])
        return distance, torch.stack([wasserstein2_sorted(member, orbit) for member in x])
