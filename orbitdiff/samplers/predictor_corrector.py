"""Predictor-corrector sampling as DiffCSP publishes it: two network calls per step.

Fractional coordinates first take a Langevin step at the same noise level,
    f <- f + h score + sqrt(2 h) z,   h = step_lr (sigma_t / sigma_min)^2,
then an ancestral step to the next level. Fields with a Gaussian kernel (the lattice) take the
ancestral (DDPM) step alone, with the second call's prediction.
"""

from collections.abc import Mapping
from typing import Any, final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.kernels.base import Density
from orbitdiff.samplers.base import Evaluation, SampledField, Sampler
from orbitdiff.samplers.noise import PerSampleNoise
from orbitdiff.samplers.transition import levels, reverse_step
from orbitdiff.typing import PerSample, State

__all__ = ["PredictorCorrector"]


@final
class PredictorCorrector(Sampler):
    """Langevin corrector, then ancestral predictor.

    Parameters
    ----------
    fields : mapping of name to SampledField
    steps : int
        Published: 1000.
    step_lr : float
        Langevin step in squared fractional units at sigma_min (published: 5e-7 for Perov-5,
        1e-5 for MP-20).
    clip : float
        See `Evaluation`.

    References
    ----------
    Jiao et al. 2023 (DiffCSP), algorithm 2; DiffCSP's network predicts the negative score.
    """

    calls_per_step = 2

    def __init__(
        self,
        fields: Mapping[str, SampledField],
        *,
        steps: int,
        step_lr: float,
        clip: float = 0.0,
    ) -> None:
        super().__init__(fields, steps=steps, clip=clip)
        if step_lr <= 0:
            raise BadInput(f"sampler.step_lr must be positive, got {step_lr}")
        self.step_lr = step_lr

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
        corrected = dict(state)
        for name, field in self.fields.items():
            if field.kernel.density is not Density.WRAPPED_NORMAL:
                continue
            x = state[name]
            sigma = levels(field.kernel, t, like=x).sigma
            lowest = levels(field.kernel, torch.zeros_like(t), like=x).sigma
            size = self.step_lr * (sigma / lowest) ** 2
            score = (data[name] - x) / sigma**2
            moved = x + size * score
            if s is not None:
                moved = moved + torch.sqrt(2 * size) * noise[name].normal()
            corrected[name] = moved
        corrected = self.settle(corrected)
        data = evaluate(corrected, t)
        for name, field in self.fields.items():
            x = corrected[name]
            now, then = levels(field.kernel, t, like=x), levels(field.kernel, s, like=x)
            drawn = noise[name].normal()
            corrected[name] = reverse_step(x, data[name], now, then, eta=1.0, noise=drawn)
        return corrected
