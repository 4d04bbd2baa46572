"""Samplers: they draw x_0 with a denoiser. `build_sampler` makes one from its settings."""

from orbitdiff.samplers.ancestral import Ancestral
from orbitdiff.samplers.base import Callback, Evaluation, SampledField, Sampler
from orbitdiff.samplers.config import SamplerConfig, build_sampler
from orbitdiff.samplers.multistep import Multistep
from orbitdiff.samplers.noise import PerSampleNoise
from orbitdiff.samplers.ode import ProbabilityFlow
from orbitdiff.samplers.predictor_corrector import PredictorCorrector

__all__ = [
    "Ancestral",
    "Callback",
    "Evaluation",
    "Multistep",
    "PerSampleNoise",
    "PredictorCorrector",
    "ProbabilityFlow",
    "SampledField",
    "Sampler",
    "SamplerConfig",
    "build_sampler",
]
