"""Crystal structure prediction: lattice and fractional coordinates given the composition."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from orbitdiff.batch import Batch
from orbitdiff.data.crystals import CrystalDataset
from orbitdiff.errors import BadInput
from orbitdiff.groups.torus import TorusTranslation
from orbitdiff.kernels import (
    CosineVP,
    GaussianKernel,
    GeometricSigma,
    Parametrization,
    WrappedNormalKernel,
)
from orbitdiff.kernels.wrapped_normal import score_power
from orbitdiff.nn.cspnet import CSPNet, CSPNetConfig
from orbitdiff.objective import DiffusedField, Objective
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.orbit.plain import PlainTarget
from orbitdiff.orbit.registry import build_estimator
from orbitdiff.samplers.config import SamplerConfig
from orbitdiff.tasks.yardstick import TorusYardstick
from orbitdiff.training.config import TrainConfig
from orbitdiff.typing import PerSample, Tensor

__all__ = ["Crystals", "CrystalsConfig", "DataConfig", "EvaluateConfig", "KernelConfig"]


@dataclass(frozen=True)
class DataConfig:
    """What `prepare` accepts.

    Parameters
    ----------
    max_atoms : int
        Crystals with more atoms are rejected.
    prototypes : int
        Number of crystals of the built-in data set.
    """

    __pydantic_config__ = {"extra": "forbid"}

    max_atoms: int = 20
    prototypes: int = 1200

    def __post_init__(self) -> None:
        if self.max_atoms < 1 or self.prototypes < 1:
            raise BadInput(
                "expected data.max_atoms and data.prototypes of at least 1, "
                f"got {self.max_atoms} and {self.prototypes}"
            )


@dataclass(frozen=True)
class KernelConfig:
    """Noise levels of the fractional coordinates (fractions of a period), lattice offset.

    Parameters
    ----------
    sigma_min, sigma_max : float
        Geometric schedule.
    cosine_offset : float
        s of the cosine schedule of the lattice.
    """

    __pydantic_config__ = {"extra": "forbid"}

    sigma_min: float = 0.005
    sigma_max: float = 0.5
    cosine_offset: float = 0.008


@dataclass(frozen=True)
class ValidationConfig:
    """The yardstick that all estimators share.

    Parameters
    ----------
    num : int
        Validation crystals, the first by the hash of their id.
    sigmas : tuple of float
        Noise levels.
    """

    __pydantic_config__ = {"extra": "forbid"}

    num: int = 256
    sigmas: tuple[float, ...] = (0.01, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)


@dataclass(frozen=True)
class SampleConfig:
    """How the test split is sampled.

    Parameters
    ----------
    num_test : int
        Test crystals, the first by the hash of their id; 0 takes all.
    samples_per_crystal : int
        k of match rate at k.
    batch_size : int
    sampler : SamplerConfig
    """

    __pydantic_config__ = {"extra": "forbid"}

    num_test: int
    samples_per_crystal: int
    batch_size: int
    sampler: SamplerConfig

    def __post_init__(self) -> None:
        if self.num_test < 0 or self.samples_per_crystal < 1 or self.batch_size < 1:
            raise BadInput(
                "expected sample.num_test >= 0, samples_per_crystal >= 1 and batch_size >= 1, "
                f"got {self.num_test}, {self.samples_per_crystal}, {self.batch_size}"
            )


@dataclass(frozen=True)
class EvaluateConfig:
    """Tolerances of pymatgen's StructureMatcher.

    Parameters
    ----------
    stol, ltol : float
        Site and length tolerance.
    angle_tol : float
        Degrees.
    """

    __pydantic_config__ = {"extra": "forbid"}

    stol: float = 0.5
    ltol: float = 0.3
    angle_tol: float = 10.0

    def __post_init__(self) -> None:
        if not (self.stol > 0 and self.ltol > 0 and self.angle_tol > 0):
            raise BadInput(f"expected positive tolerances, got {self}")


@dataclass(frozen=True)
class CurvesConfig:
    """Match rate during training and against network calls.

    Parameters
    ----------
    num_test : int
        Test crystals of each point, the first by the hash of their id; 0 takes all.
    samplers : tuple of SamplerConfig
        Samplers of the curve against network calls.
    """

    __pydantic_config__ = {"extra": "forbid"}

    num_test: int = 250
    samplers: tuple[SamplerConfig, ...] = ()

    def __post_init__(self) -> None:
        if self.num_test < 0:
            raise BadInput(f"expected curves.num_test of at least 0, got {self.num_test}")


@dataclass(frozen=True)
class CrystalsConfig:
    """One preset of the task in params.yaml."""

    __pydantic_config__ = {"extra": "forbid"}

    model: CSPNetConfig
    train: TrainConfig
    sample: SampleConfig
    estimators: dict[str, EstimatorSpec]
    data: DataConfig = field(default_factory=DataConfig)
    kernel: KernelConfig = field(default_factory=KernelConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    curves: CurvesConfig = field(default_factory=CurvesConfig)


@final
@dataclass(frozen=True)
class TorusScoreScale:
    """Root mean square of the plain score at sigma(t), the same for every estimator."""

    schedule: GeometricSigma

    def __call__(self, t: PerSample) -> PerSample:
        """Return the scale, (B,)."""
        return torch.sqrt(score_power(self.schedule(t).sigma))


@final
@dataclass(frozen=True)
class UnitScale:
    """Scale of targets that have unit variance at every t."""

    def __call__(self, t: PerSample) -> PerSample:
        """Return ones, (B,)."""
        return torch.ones_like(t)


def build_objective(kernel: KernelConfig, estimator: EstimatorSpec) -> Objective:
    """Kernels and estimators of the two fields; only `frac` is averaged over its orbit.

    Parameters
    ----------
    kernel : KernelConfig
    estimator : EstimatorSpec
    """
    schedule = GeometricSigma(kernel.sigma_min, kernel.sigma_max)
    frac = WrappedNormalKernel(schedule)
    lattice = GaussianKernel(CosineVP(kernel.cosine_offset))
    return Objective(
        {
            "lattice": DiffusedField(
                lattice,
                PlainTarget(lattice, parametrization=Parametrization.NOISE),
                UnitScale(),
                masked=False,
            ),
            "frac": DiffusedField(
                frac,
                build_estimator(
                    estimator,
                    frac,
                    parametrization=Parametrization.SCORE,
                    group=TorusTranslation(),
                ),
                TorusScoreScale(schedule),
            ),
        }
    )


def build_network(model: CSPNetConfig, *, generator: torch.Generator) -> CSPNet:
    """CSPNet whose start weights depend on the generator alone, not on the global state."""
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CSPNet(model)


@final
class Crystals:
    """The bundle that trains: prepared data, objective, network, yardstick.

    Parameters
    ----------
    config : CrystalsConfig
    estimator : EstimatorSpec
    data : Path
        Folder written by `prepare`.
    streamed : bool
        Leave the data on the disk.
    """

    name = "crystals"

    def __init__(
        self,
        config: CrystalsConfig,
        estimator: EstimatorSpec,
        data: Path,
        *,
        streamed: bool = False,
    ) -> None:
        self.settings = config
        self.estimator = estimator
        self.objective = build_objective(config.kernel, estimator)
        load = CrystalDataset.streamed if streamed else CrystalDataset.load
        self.training_set = load(data, "train")
        validation_set = load(data, "val")
        first = validation_set.first_k_by_hash(config.validation.num)
        self.yardstick = TorusYardstick(
            self.objective, validation_set.batch(first), config.validation.sigmas
        )

    def build_denoiser(self, *, generator: torch.Generator) -> nn.Module:
        """Return CSPNet at its start."""
        return build_network(self.settings.model, generator=generator)

    def train_sizes(self) -> Tensor:
        """Return the number of atoms of each training crystal."""
        return self.training_set.sizes

    def train_batch(self, rows: Tensor, *, generator: torch.Generator) -> Batch:
        """Return the batch of these training rows; nothing is drawn."""
        return self.training_set.batch(rows)

    def validate(self, denoiser: nn.Module) -> Mapping[str, Any]:
        """Distance to the exact translation x permutation target, by noise level."""
        return self.yardstick.measure(denoiser)

    def config(self) -> Mapping[str, Any]:
        """Return model, kernel and estimator settings for config.json."""
        return {
            "task": self.name,
            "model": dataclasses.asdict(self.settings.model),
            "kernel": dataclasses.asdict(self.settings.kernel),
            "sampler": dataclasses.asdict(self.settings.sample.sampler),
            "estimator": dataclasses.asdict(self.estimator),
        }
