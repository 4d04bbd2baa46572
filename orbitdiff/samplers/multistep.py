"""A few-call sampler: the probability-flow ODE by a second-order multistep rule.

With u = alpha / sigma the ODE is d(x / sigma) / du = D, D the data prediction. D is taken as linear
in s = sigma / alpha through the last two calls and integrated exactly: a DDIM step with
    D' = D + (D - D_before) / (rho_before - 1) (1 - log rho / (rho - 1)),  rho = s_t / s_s,
one network call per step. It is DPM-Solver++ 2M (Lu et al. 2022) with s in place of log s, which
stays bounded at both ends, where log(alpha / sigma) of the lattice jumps. On the torus (alpha = 1)
x and D are lifts that move together.
"""

import math
from collections.abc import Mapping
from typing import Any, final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.torus import wrap
from orbitdiff.kernels.base import Density
from orbitdiff.samplers.base import Evaluation, SampledField, Sampler
from orbitdiff.samplers.noise import PerSampleNoise
from orbitdiff.samplers.transition import curvature, levels, noise_ratio, reverse_step
from orbitdiff.typing import PerSample, State, Tensor

__all__ = ["Multistep"]


@final
class Multistep(Sampler):
    """Deterministic second-order sampler; 10 to 100 calls.

    Parameters
    ----------
    fields : mapping of name to SampledField
    steps : int
        Network calls.
    knee : float
        Steps grow geometrically where t_max - t is above `knee` and are even below, so that the
        noisy end, where alpha of the lattice is tiny, is taken in small steps; 0 spaces t
        evenly.
    t_max : float
        First time of the grid.
    clip : float
        See `Evaluation`.
    """

    def __init__(
        self,
        fields: Mapping[str, SampledField],
        *,
        steps: int,
        knee: float = 0.02,
        t_max: float = 1.0,
        clip: float = 0.0,
    ) -> None:
        super().__init__(fields, steps=steps, t_max=t_max, clip=clip)
        if knee < 0:
            raise BadInput(f"sampler.knee must not be negative, got {knee}")
        self.knee = knee

    def grid(self) -> Tensor:
        """Return times from t_max to 0, t_max - t = knee sinh(w) with w evenly spaced."""
        if self.knee == 0:
            return super().grid()
        even = torch.linspace(0, 1, self.steps, dtype=torch.float64)
        return self.t_max - self.knee * torch.sinh(even * math.asinh(self.t_max / self.knee))

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
        moved = {}
        for name, field in self.fields.items():
            x = state[name]
            now, then = levels(field.kernel, t, like=x), levels(field.kernel, s, like=x)
            guess = data[name]
            if s is not None and name in memory:
                x_before, data_before, before = memory[name]
                change = data[name] - data_before
                if field.kernel.density is Density.WRAPPED_NORMAL:
                    # lift of the earlier prediction that lies next to this one
                    change = wrap(x - x_before) + (data[name] - x) - (data_before - x_before)
                slope = (noise_ratio(before, now) - 1).clamp(min=1e-9)
                weight = (curvature(noise_ratio(now, then)) / slope).clamp(max=1.0)
                guess = guess + change * weight.to(x.dtype)
            memory[name] = (x, data[name], now)
            moved[name] = reverse_step(x, guess, now, then)
        return moved
