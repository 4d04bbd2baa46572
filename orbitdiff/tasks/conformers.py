"""Conformers of molecules by flow matching: the bundle that trains, and its settings."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from orbitdiff.batch import Batch
from orbitdiff.data.molecules import MoleculeDataset
from orbitdiff.errors import BadInput
from orbitdiff.groups.rotation import SO3
from orbitdiff.nn.equivariant_transformer import (
    EquivariantTransformer,
    EquivariantTransformerConfig,
)
from orbitdiff.nn.molecule_transformer import MoleculeTransformer, MoleculeTransformerConfig
from orbitdiff.samplers.flow import FlowConfig
from orbitdiff.tasks.conformer_objective import (
    ConformerArm,
    ConformerKernelConfig,
    ConformerObjective,
    ConformerYardstick,
)
from orbitdiff.training.config import TrainConfig
from orbitdiff.typing import Tensor

__all__ = ["Conformers", "ConformersConfig", "build_network"]


@dataclass(frozen=True)
class ConformerDataConfig:
    """What `prepare` accepts.

    Parameters
    ----------
    max_atoms : int
        Molecules with more atoms, hydrogens included, are rejected.
    max_conformers : int
        Of a training molecule, the lowest in energy.
    demo : int
        Molecules of the built-in list whose ensembles are built for the demo.
    """

    __pydantic_config__ = {"extra": "forbid"}

    max_atoms: int = 40
    max_conformers: int = 10
    demo: int = 200

    def __post_init__(self) -> None:
        if min(self.max_atoms, self.max_conformers, self.demo) < 1:
            raise BadInput(f"expected positive numbers in section data, got {self}")


@dataclass(frozen=True)
class ConformerModelConfig:
    """The network: exactly one of both.

    Parameters
    ----------
    equivariant : EquivariantTransformerConfig, optional
    transformer : MoleculeTransformerConfig, optional
        Knows no symmetry: it is trained on random orientations.
    """

    __pydantic_config__ = {"extra": "forbid"}

    equivariant: EquivariantTransformerConfig | None = None
    transformer: MoleculeTransformerConfig | None = None

    def __post_init__(self) -> None:
        if (self.equivariant is None) == (self.transformer is None):
            raise BadInput("expected either model.equivariant or model.transformer")


@dataclass(frozen=True)
class ConformerValidationConfig:
    """The yardstick that the arms of one coupling share.

    Parameters
    ----------
    num : int
        Validation molecules.
    times : tuple of float
    """

    __pydantic_config__ = {"extra": "forbid"}

    num: int = 128
    times: tuple[float, ...] = (0.05, 0.2, 0.4, 0.6, 0.8, 0.95)


@dataclass(frozen=True)
class ConformerSampleConfig:
    """How the test split is sampled: 2 L conformers of a molecule with L references.

    Parameters
    ----------
    num_test : int
        The first test molecules; 0 takes all.
    batch_size : int
    sampler : FlowConfig
    """

    __pydantic_config__ = {"extra": "forbid"}

    num_test: int
    batch_size: int
    sampler: FlowConfig

    def __post_init__(self) -> None:
        if self.num_test < 0 or self.batch_size < 1:
            raise BadInput(f"expected sample.num_test >= 0 and batch_size >= 1, got {self}")


@dataclass(frozen=True)
class ConformerEvaluateConfig:
    """What is measured.

    Parameters
    ----------
    thresholds : tuple of float
        Of the coverage, angstrom.
    posebusters : int
        Conformers that PoseBusters checks, 0 for none.
    """

    __pydantic_config__ = {"extra": "forbid"}

    thresholds: tuple[float, ...] = (0.05, 0.1, 0.5, 0.75)
    posebusters: int = 200


@dataclass(frozen=True)
class ConformerCurvesConfig:
    """Quality against network calls.

    Parameters
    ----------
    num_test : int
        Test molecules of each point, the first.
    samplers : tuple of FlowConfig
    """

    __pydantic_config__ = {"extra": "forbid"}

    num_test: int = 50
    samplers: tuple[FlowConfig, ...] = ()


@dataclass(frozen=True)
class ConformersConfig:
    """One preset of the task in params.yaml."""

    __pydantic_config__ = {"extra": "forbid"}

    model: ConformerModelConfig
    train: TrainConfig
    sample: ConformerSampleConfig
    estimators: dict[str, ConformerArm]
    finetune: TrainConfig | None = None
    data: ConformerDataConfig = field(default_factory=ConformerDataConfig)
    kernel: ConformerKernelConfig = field(default_factory=ConformerKernelConfig)
    validation: ConformerValidationConfig = field(default_factory=ConformerValidationConfig)
    evaluate: ConformerEvaluateConfig = field(default_factory=ConformerEvaluateConfig)
    curves: ConformerCurvesConfig = field(default_factory=ConformerCurvesConfig)


def build_network(model: ConformerModelConfig, *, generator: torch.Generator) -> nn.Module:
    """The network at its start; its weights depend on the generator alone."""
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if model.equivariant is not None:
            return EquivariantTransformer(model.equivariant)
        assert model.transformer is not None  # checked by the config
        return MoleculeTransformer(model.transformer)


@final
class Conformers:
    """The bundle that trains: prepared molecules, objective, network, yardstick.

    Parameters
    ----------
    config : ConformersConfig
    arm : ConformerArm
    data : Path
        Folder written by `prepare`.
    """

    name = "conformers"

    def __init__(self, config: ConformersConfig, arm: ConformerArm, data: Path) -> None:
        self.settings = config
        self.arm = arm
        self.training_set = MoleculeDataset.load(data, "train")
        self.objective = ConformerObjective(config.kernel, arm, self.training_set)
        validation_set = MoleculeDataset.load(data, "val")
        rows = torch.arange(min(config.validation.num, len(validation_set)))
        best = dataclasses.replace(arm, conformers=config.data.max_conformers)
        self.yardstick = ConformerYardstick(
            ConformerObjective(config.kernel, best, validation_set), rows, config.validation.times
        )

    def build_denoiser(self, *, generator: torch.Generator) -> nn.Module:
        """Return the network at its start."""
        return build_network(self.settings.model, generator=generator)

    def train_sizes(self) -> Tensor:
        """Return the number of atoms of each training molecule."""
        return self.training_set.num_atoms

    def train_batch(self, rows: Tensor, *, generator: torch.Generator) -> Batch:
        """Return one conformer of each molecule, drawn evenly, in a random orientation."""
        counts = self.training_set.num_conformers[rows]
        share = torch.rand(len(rows), generator=generator)
        chosen = (share * counts).long().clamp(max=counts - 1)
        batch = self.training_set.batch(rows, conformer=chosen)
        turned = SO3().sample(len(rows), generator=generator).to(batch.state["positions"].dtype)
        batch.state["positions"] = batch.state["positions"] @ turned.mT
        return batch

    def validate(self, denoiser: nn.Module) -> Mapping[str, Any]:
        """Distance to the best known mean velocity, by time."""
        return self.yardstick.measure(denoiser)

    def config(self) -> Mapping[str, Any]:
        """Return model, kernel, sampler and arm for config.json."""
        return {
            "task": self.name,
            "model": dataclasses.asdict(self.settings.model),
            "kernel": dataclasses.asdict(self.settings.kernel),
            "sampler": dataclasses.asdict(self.settings.sample.sampler),
            "estimator": dataclasses.asdict(self.arm),
        }
