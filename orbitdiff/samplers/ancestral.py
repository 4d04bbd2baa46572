"""Ancestral sampling: DDPM on Gaussian fields, its variance-exploding form on the torus."""

from collections.abc import Mapping
from typing import Any, final

from orbitdiff.errors import BadInput
from orbitdiff.samplers.base import Evaluation, SampledField, Sampler
from orbitdiff.samplers.noise import PerSampleNoise
from orbitdiff.samplers.transition import levels, reverse_step
from orbitdiff.typing import PerSample, State

__all__ = ["Ancestral"]


@final
class Ancestral(Sampler):
    """x_s ~ p(x_s | x_t, x_0 = D(x_t, t)), one network call per step.

    Parameters
    ----------
    fields : mapping of name to SampledField
    steps : int
    eta : float
        Share of the ancestral noise: 1 is DDPM, 0 would be DDIM.
    clip : float
        See `Evaluation`.

    References
    ----------
    Ho et al. 2020; Song, Meng and Ermon 2021, equation 12.
    """

    def __init__(
        self,
        fields: Mapping[str, SampledField],
        *,
        steps: int,
        eta: float = 1.0,
        clip: float = 0.0,
    ) -> None:
        super().__init__(fields, steps=steps, clip=clip)
        if not 0 <= eta <= 1:
            raise BadInput(f"sampler.eta must lie in [0, 1], got {eta}")
        self.eta = eta

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
            drawn = noise[name].normal() if self.eta > 0 else None
            moved[name] = reverse_step(x, data[name], now, then, eta=self.eta, noise=drawn)
        return moved
