"""The interface of a sampler: draws x_0 with a denoiser, step by step from noise."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol, final, runtime_checkable

import torch

from orbitdiff.batch import Batch
from orbitdiff.errors import BadInput, IncompatibleSampler
from orbitdiff.kernels.base import Density, NoiseKernel, expand
from orbitdiff.nn.base import Denoiser
from orbitdiff.samplers.noise import PerSampleNoise
from orbitdiff.samplers.transition import clean_data
from orbitdiff.typing import PerSample, State, Tensor

__all__ = ["Callback", "Evaluation", "SampledField", "Sampler"]

Callback = Callable[[int, int, State], Any]


@runtime_checkable
class SampledField(Protocol):
    """What a sampler reads of a field; `orbitdiff.objective.DiffusedField` is one."""

    @property
    def kernel(self) -> NoiseKernel:
        """How the field was noised."""
        ...

    @property
    def estimator(self) -> Any:
        """Anything with a `parametrization`: what the network was trained to predict."""
        ...

    @property
    def scale(self) -> Callable[[PerSample], PerSample]:
        """The network predicts target / scale(t)."""
        ...

    @property
    def masked(self) -> bool:
        """True where the field has an atom axis to which the batch's mask applies."""
        ...


@final
class Evaluation:
    """Network and template of one sampling run: asks the network for data predictions.

    Parameters
    ----------
    denoiser : Denoiser
    template : Batch
    fields : mapping of name to SampledField
    clip : float
        Bound on the entries of predicted data of fields that do not live on the torus, in the
        field's unit; 0 sets none.

    Attributes
    ----------
    calls : int
        Network calls so far.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        template: Batch,
        fields: Mapping[str, SampledField],
        *,
        clip: float = 0.0,
    ) -> None:
        self.denoiser, self.template, self.fields, self.clip = denoiser, template, fields, clip
        self.calls = 0

    def mask(self, name: str) -> Tensor | None:
        """Mask of a field, None where it has no atom axis."""
        return self.template.mask if self.fields[name].masked else None

    def __call__(self, x_t: State, t: PerSample) -> State:
        """Return the posterior mean of x_0 of each field (a lift where it is periodic)."""
        self.calls += 1
        predicted = self.denoiser(x_t, t, self.template.cond, self.template.mask)
        data = {}
        for name, field in self.fields.items():
            value = predicted[name] * expand(field.scale(t)).to(x_t[name].dtype)
            kind = field.estimator.parametrization
            data[name] = clean_data(field.kernel, value, kind, x_t[name], t)
            if self.clip > 0 and field.kernel.density is not Density.WRAPPED_NORMAL:
                data[name] = data[name].clamp(-self.clip, self.clip)
        return data


class Sampler(ABC):
    """Draws samples; subclasses give the time grid and the step.

    Parameters
    ----------
    fields : mapping of name to SampledField
    steps : int
        Steps from t_max to clean data.
    t_max : float
        First time of the grid; below 1 the start is drawn from the prior all the same.
    clip : float
        See `Evaluation`.

    Attributes
    ----------
    densities : tuple of Density
        Kernel families that the sampler has an update rule for.
    calls_per_step : int
        Network calls per step.

    Raises
    ------
    IncompatibleSampler
        A field's kernel is of another family.
    BadInput
        Number of steps below 1.
    """

    densities: tuple[Density, ...] = (Density.ISOTROPIC_GAUSSIAN, Density.WRAPPED_NORMAL)
    calls_per_step: int = 1

    def __init__(
        self,
        fields: Mapping[str, SampledField],
        *,
        steps: int,
        t_max: float = 1.0,
        clip: float = 0.0,
    ) -> None:
        if steps < 1:
            raise BadInput(f"sampler.steps must be at least 1, got {steps}")
        if not 0 < t_max <= 1:
            raise BadInput(f"sampler.t_max must lie in (0, 1], got {t_max}")
        covered = [density.value for density in self.densities]
        for name, field in fields.items():
            if field.kernel.density not in self.densities:
                found = field.kernel.density.value if field.kernel.density else "none"
                raise IncompatibleSampler(
                    f"{type(self).__name__} updates kernels with a density in {covered}, field "
                    f"{name!r} has {type(field.kernel).__name__} with: {found}"
                )
        self.fields = dict(fields)
        self.steps = steps
        self.t_max = t_max
        self.clip = clip

    @property
    def calls(self) -> int:
        """Network calls of one run."""
        return self.steps * self.calls_per_step

    def grid(self) -> Tensor:
        """Return the times at which the network is asked, from t_max down to 0, (steps,)."""
        return torch.linspace(self.t_max, 0, self.steps, dtype=torch.float64)

    @abstractmethod
    def step(
        self,
        evaluate: Evaluation,
        state: State,
        t: PerSample,
        s: PerSample | None,
        noise: Mapping[str, PerSampleNoise],
        memory: dict[str, Any],
    ) -> State:
        """Return the state at s < t; s is None for clean data.

        Parameters
        ----------
        evaluate : Evaluation
        state : dict
        t, s : (B,)
        noise : mapping of field to PerSampleNoise
        memory : dict
            Kept from step to step of one run.
        """

    @torch.no_grad()
    def sample(
        self,
        denoiser: Denoiser,
        template: Batch,
        *,
        seed: int,
        callback: Callback | None = None,
    ) -> State:
        """Draw one sample per row of the template.

        Parameters
        ----------
        denoiser : Denoiser
        template : Batch
            Mask, conditions, ids, and a state of the wanted shapes whose values are not read.
        seed : int
            The noise of a row depends on (seed, id) alone: rows with one id are copies.
        callback : callable, optional
            Called as callback(step, total, state) after each step.

        Returns
        -------
        dict of tensors
            Samples of x_0; fractional coordinates lie in [0, 1).

        Raises
        ------
        BadInput
            The template lacks a field.
        """
        missing = sorted(set(self.fields) - set(template.state))
        if missing:
            raise BadInput(f"expected template.state with {sorted(self.fields)}, lacks {missing}")
        evaluate = Evaluation(denoiser, template, self.fields, clip=self.clip)
        noise = {
            name: PerSampleNoise(
                name, template.state[name], template.ids, seed=seed, mask=evaluate.mask(name)
            )
            for name in self.fields
        }
        state = {name: noise[name].prior(field.kernel) for name, field in self.fields.items()}
        kind = next(iter(state.values()))
        times = self.grid().to(kind.device, kind.dtype)[:, None].expand(-1, len(template))
        memory: dict[str, Any] = {}
        for index in range(self.steps):
            s = times[index + 1] if index + 1 < self.steps else None
            state = self.step(evaluate, state, times[index], s, noise, memory)
            state = self.settle(state)
            for name in state:
                mask = evaluate.mask(name)
                state[name] = state[name] if mask is None else state[name] * mask[..., None]
            if callback is not None:
                callback(index + 1, self.steps, state)
        return state

    def settle(self, state: State) -> State:
        """Take the fields that live on the torus modulo 1."""
        settled = dict(state)
        for name, field in self.fields.items():
            if field.kernel.density is Density.WRAPPED_NORMAL:
                x = torch.remainder(state[name], 1.0)
                # a tiny negative number rounds up to the period itself
                settled[name] = torch.where(x >= 1.0, torch.zeros_like(x), x)
        return settled
