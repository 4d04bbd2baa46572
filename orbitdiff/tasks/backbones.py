"""Protein backbones (CA traces) by flow matching: the bundle that trains, and its settings."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from orbitdiff.batch import Batch
from orbitdiff.data.proteins import BackboneLimits, ProteinDataset
from orbitdiff.errors import BadInput
from orbitdiff.groups.rotation import SO3
from orbitdiff.nn.backbone_transformer import BackboneTransformer, BackboneTransformerConfig
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.samplers.flow import FlowConfig
from orbitdiff.tasks.backbone_objective import FIELD, BackboneKernelConfig, BackboneObjective
from orbitdiff.tasks.backbone_yardstick import BackboneYardstick
from orbitdiff.training.config import TrainConfig
from orbitdiff.typing import Tensor

__all__ = ["Backbones", "BackbonesConfig", "build_network"]


@dataclass(frozen=True)
class BackboneValidationConfig:
    """The yardstick that all arms share.

    Parameters
    ----------
    num : int
        Validation chains, the first by the hash of their id; 0 for all.
    times : tuple of float
    """

    __pydantic_config__ = {"extra": "forbid"}

    num: int = 64
    times: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class BackboneSampleConfig:
    """What is drawn: `num` chains of each length.

    Parameters
    ----------
    lengths : tuple of int
        Residues.
    num, batch_size : int
    sampler : FlowConfig
    """

    __pydantic_config__ = {"extra": "forbid"}

    lengths: tuple[int, ...]
    num: int
    batch_size: int
    sampler: FlowConfig

    def __post_init__(self) -> None:
        if not self.lengths or min(*self.lengths, self.num, self.batch_size) < 1:
            raise BadInput(f"expected lengths, num and batch_size of at least 1, got {self}")


@dataclass(frozen=True)
class BackboneEvaluateConfig:
    """What is measured.

    Parameters
    ----------
    natural : int
        Held-out natural chains that every figure is also measured on, 0 for all.
    noise : float
        Standard deviation of what is added to them for the other control, angstrom.
    designs : int
        Chains of a set that ProteinMPNN draws sequences for, spread over the set; 0 for none.
    sequences : int
        Of each (published: 8).
    """

    __pydantic_config__ = {"extra": "forbid"}

    natural: int = 0
    noise: float = 1.0
    designs: int = 20
    sequences: int = 8

    def __post_init__(self) -> None:
        if min(self.natural, self.designs) < 0 or self.sequences < 1 or not self.noise > 0:
            raise BadInput(
                f"expected evaluate.natural and designs >= 0, sequences >= 1, noise > 0, got {self}"
            )


@dataclass(frozen=True)
class BackbonesConfig:
    """One preset of the task in params.yaml."""

    __pydantic_config__ = {"extra": "forbid"}

    model: BackboneTransformerConfig
    train: TrainConfig
    sample: BackboneSampleConfig
    estimators: dict[str, EstimatorSpec]
    finetune: TrainConfig | None = None
    data: BackboneLimits = field(default_factory=BackboneLimits)
    kernel: BackboneKernelConfig = field(default_factory=BackboneKernelConfig)
    validation: BackboneValidationConfig = field(default_factory=BackboneValidationConfig)
    evaluate: BackboneEvaluateConfig = field(default_factory=BackboneEvaluateConfig)

    def __post_init__(self) -> None:
        if self.sample.sampler.self_condition and not self.model.self_condition:
            raise BadInput(
                "sample.sampler.self_condition needs a network that reads its own prediction: "
                "set model.self_condition"
            )
        if self.model.prior_scale != self.kernel.prior_scale:
            raise BadInput(
                f"expected model.prior_scale and kernel.prior_scale to agree, got "
                f"{self.model.prior_scale} and {self.kernel.prior_scale}"
            )


def build_network(
    model: BackboneTransformerConfig, *, generator: torch.Generator
) -> BackboneTransformer:
    """The network at its start; its weights depend on the generator alone."""
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BackboneTransformer(model)


@final
class Backbones:
    """The bundle that trains: prepared chains, objective, network, yardstick.

    Parameters
    ----------
    config : BackbonesConfig
    arm : EstimatorSpec
    data : Path
        Folder written by `prepare`.
    streamed : bool
        Leave the data on the disk.
    """

    name = "backbones"

    def __init__(
        self,
        config: BackbonesConfig,
        arm: EstimatorSpec,
        data: Path,
        *,
        streamed: bool = False,
    ) -> None:
        self.settings = config
        self.arm = arm
        load = ProteinDataset.streamed if streamed else ProteinDataset.load
        self.training_set = load(data, "train")
        self.objective = BackboneObjective(
            config.kernel,
            arm,
            self_condition=config.model.self_condition,
            distogram=config.model.distogram_bins > 0,
        )
        validation_set = load(data, "val")
        chosen = validation_set.first_k_by_hash(config.validation.num or len(validation_set))
        self.yardstick = BackboneYardstick(
            config.kernel, validation_set.batch(chosen), config.validation.times
        )

    def build_denoiser(self, *, generator: torch.Generator) -> nn.Module:
        """Return the network at its start."""
        return build_network(self.settings.model, generator=generator)

    def train_sizes(self) -> Tensor:
        """Return the number of residues of each training chain."""
        return self.training_set.sizes

    def train_batch(self, rows: Tensor, *, generator: torch.Generator) -> Batch:
        """Return these chains, each in a random orientation."""
        batch = self.training_set.batch(rows)
        turned = SO3().sample(len(rows), generator=generator, dtype=torch.float32)
        batch.state[FIELD] = batch.state[FIELD] @ turned.mT
        return batch

    def validate(self, denoiser: nn.Module) -> Mapping[str, Any]:
        """Distance to the exact mean velocity and equivariance error, by time."""
        return self.yardstick.measure(denoiser)

    def config(self) -> Mapping[str, Any]:
        """Return model, kernel, sampler, estimator and range of lengths for config.json."""
        sizes = self.train_sizes()
        return {
            "task": self.name,
            "model": dataclasses.asdict(self.settings.model),
            "kernel": dataclasses.asdict(self.settings.kernel),
            "sampler": dataclasses.asdict(self.settings.sample.sampler),
            "estimator": dataclasses.asdict(self.arm),
            "lengths": [int(sizes.min()), int(sizes.max())],
        }
