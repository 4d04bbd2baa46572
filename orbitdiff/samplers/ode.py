"""The probability-flow ODE by first-order (DDIM) or second-order (Heun) steps.

With u = alpha / sigma the ODE is d(x / sigma) / du = D, D the data prediction: a DDIM step takes D
as constant; a Heun step takes it as linear in 1 / u between the two ends of the step.
"""

from collections.abc import Mapping
from typing import Any, final

from orbitdiff.errors import BadInput
from orbitdiff.samplers.base import Evaluation, SampledField, Sampler
from orbitdiff.samplers.noise import PerSampleNoise
from orbitdiff.samplers.transition import curvature, levels, noise_ratio, reverse_step
from orbitdiff.typing import PerSample, State

__all__ = ["ProbabilityFlow"]


@final
class ProbabilityFlow(Sampler):
    """Deterministic sampler on a time grid uniform from t_max to 0.

    The last step goes to zero noise and is an Euler step.

    Parameters
    ----------
    fields : mapping of name to SampledField
    steps : int
    order : int
        1 is DDIM, 2 is Heun (two network calls per step).
    t_max : float
        First time of the grid.
    clip : float
        See `Evaluation`.

    References
    ----------
    Song et al. 2021, DDIM, equation 13; Karras et al. 2022, algorithm 1.
    """

    def __init__(
        self,
        fields: Mapping[str, SampledField],
        *,
        steps: int,
        order: int = 1,
        t_max: float = 1.0,
        clip: float = 0.0,
    ) -> None:
        super().__init__(fields, steps=steps, t_max=t_max, clip=clip)
        if order not in (1, 2):
            raise BadInput(f"sampler.order must be 1 (DDIM) or 2 (Heun), got {order}")
        self.order = order
        self.calls_per_step = order

    @property
    def calls(self) -> int:
        """Network calls of one run."""
        return self.order * self.steps - (self.order - 1)

    def step(
        self,
        evaluate: Evaluation,
        state: State,
        t: PerSample,
        s: PerSample | None,
        noise: Mapping[str, PerSampleNoise],
        memory: dict[str, Any],
    ) -> State:
        """Return the state at s."""
        data = evaluate(state, t)
        ahead = {}
        for name, field in self.fields.items():
            x = state[name]
            now, then = levels(field.kernel, t, like=x), levels(field.kernel, s, like=x)
            ahead[name] = reverse_step(x, data[name], now, then)
        if self.order == 1 or s is None:
            return ahead
        middle = self.settle(ahead)
        second = evaluate(middle, s)
        for name, field in self.fields.items():
            x = state[name]
            now, then = levels(field.kernel, t, like=x), levels(field.kernel, s, like=x)
            # both predictions as lifts of one path: `middle` differs from `ahead` by a period
            change = (second[name] - middle[name] + ahead[name]) - data[name]
            ratio = noise_ratio(now, then)
            weight = ratio / (ratio - 1).clamp(min=1e-9) * curvature(ratio)
            guess = data[name] + change * weight.to(x.dtype)
            ahead[name] = reverse_step(x, guess, now, then)
        return ahead
