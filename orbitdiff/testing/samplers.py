"""What every sampler must satisfy, shown on laws whose score is known."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch

from orbitdiff.batch import Batch
from orbitdiff.kernels.base import NoiseKernel, Parametrization, expand
from orbitdiff.kernels.gaussian import GaussianKernel
from orbitdiff.kernels.schedule import CosineVP
from orbitdiff.objective import DiffusedField
from orbitdiff.orbit.plain import PlainTarget
from orbitdiff.samplers.base import Sampler
from orbitdiff.typing import PerSample, State, Tensor

__all__ = ["SamplerContract"]

FIELD = "x"


class SamplerContract(ABC):
    """Recover a Gaussian whose score is known; inherit and give `build`."""

    mean, std = 1.5, 0.4
    steps = 100
    parametrization = Parametrization.NOISE
    relative_tolerance = 0.03

    @abstractmethod
    def build(self, fields: Mapping[str, DiffusedField], *, steps: int) -> Sampler:
        """Return the sampler under test."""

    def kernel(self) -> NoiseKernel:
        """Return the kernel; x_0 is N(mean, std^2) in each coordinate."""
        return GaussianKernel(CosineVP())

    def sampler(self, steps: int | None = None) -> Sampler:
        """Return the sampler with one field."""
        kernel = self.kernel()
        plain = PlainTarget(kernel, parametrization=self.parametrization)
        field = DiffusedField(kernel, plain, lambda t: torch.full_like(t, 2.0))
        return self.build({FIELD: field}, steps=steps or self.steps)

    def denoise(self, x_t: State, t: PerSample, cond: State, mask: Tensor) -> State:
        """Answer with the known score, in the field's parametrization and scale."""
        self.calls += 1
        kernel = self.kernel()
        alpha, sigma = (expand(part) for part in kernel.schedule(t))
        x = x_t[FIELD]
        score = (alpha * self.mean - x) / (alpha**2 * self.std**2 + sigma**2)
        value = kernel.convert(score, Parametrization.SCORE, self.parametrization, x, t)
        return {FIELD: value / 2.0}

    def template(self, ids: list[int], count: int = 500) -> Batch:
        """Return a batch of rows with these ids."""
        mask = torch.ones(len(ids), count, dtype=torch.bool)
        mask[:, -1] = False
        state = {FIELD: torch.zeros(len(ids), count, 3)}
        return Batch(state, mask, {}, torch.tensor(ids))

    def draw(self, ids: list[int], seed: int = 0, steps: int | None = None) -> Tensor:
        """Draw samples (B, N, 3), the last atom being padding."""
        self.calls = 0
        return self.sampler(steps).sample(self.denoise, self.template(ids), seed=seed)[FIELD]

    def test_a_known_gaussian_is_recovered(self) -> None:
        """Mean and standard deviation, to the sampling error plus the step error."""
        drawn = self.draw([0, 1, 2, 3, 4, 5])[:, :-1]
        error = self.std / math.sqrt(drawn.numel())
        slack = self.relative_tolerance * self.std
        assert abs(float(drawn.mean()) - self.mean) < 4 * error + slack
        assert abs(float(drawn.std()) - self.std) < 4 * error + slack

    def test_padding_stays_zero(self) -> None:
        """Padding atoms are zero in the result."""
        assert bool((self.draw([0, 1], steps=5)[:, -1] == 0).all())

    def test_a_row_depends_on_seed_and_id_alone(self) -> None:
        """Batch composition and order change nothing; another seed changes all."""
        together, alone = self.draw([3, 8, 5], steps=5), self.draw([8], steps=5)
        assert torch.allclose(together[1], alone[0], rtol=1e-5, atol=1e-5)
        assert not torch.allclose(self.draw([8], seed=1, steps=5), alone, atol=1e-3)

    def test_calls_and_callback_are_counted(self) -> None:
        """`calls` network calls, one callback per step."""
        self.calls = 0
        sampler, seen = self.sampler(7), []
        sampler.sample(
            self.denoise,
            self.template([0], 3),
            seed=0,
            callback=lambda step, total, state: seen.append((step, total)),
        )
        assert self.calls == sampler.calls
        assert seen == [(step, 7) for step in range(1, 8)]
