"""The probability-flow ODE by Euler (DDIM) or Heun steps.

In x / alpha and s = sigma / alpha the ODE is d(x / alpha) / ds = eps with eps = -sigma score, for
the Gaussian and, with alpha = 1, for the wrapped normal kernel. In terms of the data prediction
D = (x - sigma eps) / alpha an Euler step is `reverse_step` without noise.
"""

from collections.abc import Mapping
from typing import Any, final

from orbitdiff.errors import BadInput
from orbitdiff.samplers.base import Evaluation, SampledField, Sampler
from orbitdiff.samplers.noise import PerSampleNoise
from orbitdiff.samplers.transition import levels, reverse_step
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
            eps = (x - now.alpha * data[name]) / now.sigma
            eps_ahead = (middle[name] - then.alpha * second[name]) / then.sigma
            slope = 0.5 * (eps + eps_ahead)
            rate = then.sigma / then.alpha - now.sigma / now.alpha
            ahead[name] = then.alpha * (x / now.alpha + rate * slope)
        return ahead
