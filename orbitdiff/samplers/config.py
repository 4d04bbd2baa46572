"""Settings of a sampler and the sampler made from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orbitdiff.errors import BadInput
from orbitdiff.samplers.ancestral import Ancestral
from orbitdiff.samplers.base import SampledField, Sampler
from orbitdiff.samplers.multistep import Multistep
from orbitdiff.samplers.ode import ProbabilityFlow
from orbitdiff.samplers.predictor_corrector import PredictorCorrector

__all__ = ["SamplerConfig", "build_sampler"]

Fields = Mapping[str, SampledField]


@dataclass(frozen=True)
class SamplerConfig:
    """Name of a sampler and its settings, as params.yaml writes them.

    Parameters
    ----------
    name : str
        `predictor_corrector` (DiffCSP, two calls per step), `ancestral` (DDPM), `ode`
        (deterministic, DDIM or Heun), `multistep` (deterministic, second order, one call per
        step, for few calls).
    steps : int
        Steps from noise to data.
    step_lr : float
        Langevin step of `predictor_corrector` at sigma_min, squared fractional units.
    order : int
        1 (DDIM) or 2 (Heun, two calls per step) of `ode`.
    eta : float
        Share of the ancestral noise of `ancestral`, 0 to 1.
    knee : float
        Where the time grid of `multistep` turns from even to geometric, 0 for an even grid.
    t_max : float
        First time of the grid of `ode` and `multistep`.
    clip : float
        Bound on entries of predicted data outside the torus (the lattice, in its unit), 0 for
        none.
    """

    __pydantic_config__ = {"extra": "forbid"}

    name: str
    steps: int
    step_lr: float = 5e-7
    order: int = 1
    eta: float = 1.0
    knee: float = 0.02
    t_max: float = 1.0
    clip: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in SAMPLERS:
            raise BadInput(f"expected sampler.name among {sorted(SAMPLERS)}, got {self.name!r}")


def _ancestral(config: SamplerConfig, fields: Fields) -> Sampler:
    return Ancestral(fields, steps=config.steps, eta=config.eta, clip=config.clip)


def _ode(config: SamplerConfig, fields: Fields) -> Sampler:
    return ProbabilityFlow(
        fields, steps=config.steps, order=config.order, t_max=config.t_max, clip=config.clip
    )


def _multistep(config: SamplerConfig, fields: Fields) -> Sampler:
    return Multistep(
        fields, steps=config.steps, knee=config.knee, t_max=config.t_max, clip=config.clip
    )


def _predictor_corrector(config: SamplerConfig, fields: Fields) -> Sampler:
    return PredictorCorrector(fields, steps=config.steps, step_lr=config.step_lr, clip=config.clip)


SAMPLERS: dict[str, Callable[[SamplerConfig, Fields], Sampler]] = {
    "ancestral": _ancestral,
    "multistep": _multistep,
    "ode": _ode,
    "predictor_corrector": _predictor_corrector,
}


def build_sampler(config: SamplerConfig, fields: Fields) -> Sampler:
    """Make the sampler that the settings name.

    Parameters
    ----------
    config : SamplerConfig
    fields : mapping of name to SampledField
        `Objective.fields`.

    Raises
    ------
    IncompatibleSampler
        The sampler has no update rule for a field's kernel.
    BadInput
        A setting is out of range.
    """
    return SAMPLERS[config.name](config, fields)
