"""Text-guided crystals: structure given composition and a text, or everything given a text."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from orbitdiff.batch import Batch
from orbitdiff.data.prompts import KINDS
from orbitdiff.data.splits import SPLITS
from orbitdiff.data.text_crystals import NONE, load_text_crystals, read_about
from orbitdiff.errors import BadInput
from orbitdiff.kernels.absorbing import AbsorbingTypes
from orbitdiff.nn.cspnet import CSPNet, CSPNetConfig
from orbitdiff.nn.text import DEFAULT_ENCODER
from orbitdiff.nn.text_conditioning import TextConditioning, TextConfig
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.samplers.config import SamplerConfig
from orbitdiff.tasks.crystals import (
    EvaluateConfig,
    KernelConfig,
    SampleConfig,
    ValidationConfig,
    build_objective,
)
from orbitdiff.tasks.like_atoms import LikeAtomsObjective
from orbitdiff.tasks.types_objective import TypesObjective
from orbitdiff.tasks.yardstick import TorusYardstick
from orbitdiff.training.config import TrainConfig
from orbitdiff.training.task import TrainingObjective
from orbitdiff.typing import Tensor

__all__ = [
    "DENOISED",
    "GIVEN",
    "PromptsConfig",
    "TextArm",
    "TextCrystals",
    "TextCrystalsConfig",
    "TextCurvesConfig",
    "TextModelConfig",
    "TextSampleConfig",
    "build_text_network",
    "unknown_type",
]

GIVEN, DENOISED = "given", "denoised"

GENERATION = SamplerConfig("ancestral", 100, clip=30.0)
"""Angstrom: no entry of a cell of at most 20 atoms is larger."""


@dataclass(frozen=True)
class PromptsConfig:
    """What the stage `texts` writes.

    Parameters
    ----------
    kinds : tuple of str
        short, composition, long.
    seed : int
        Draws the order of sentences.
    encoder : str
        minilm, or the folder of a Hugging Face model.
    max_tokens : int
        Limit of the encoder, 0 for its own.
    parts : dict
        By data set and split the number of crystals that get prompts, the first by the hash of
        their id; a split that is not named is taken whole.
    """

    __pydantic_config__ = {"extra": "forbid"}

    kinds: tuple[str, ...] = KINDS
    seed: int = 0
    encoder: str = DEFAULT_ENCODER
    max_tokens: int = 0
    parts: dict[str, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise BadInput(f"expected prompts.kinds among {list(KINDS)}, got {list(self.kinds)}")
        if self.max_tokens < 0:
            raise BadInput(f"expected prompts.max_tokens of at least 0, got {self.max_tokens}")
        for dataset, part in self.parts.items():
            if not set(part) <= set(SPLITS) or min(part.values(), default=1) < 1:
                raise BadInput(
                    f"expected prompts.parts.{dataset} with numbers of at least 1 for splits among "
                    f"{list(SPLITS)}, got {part}"
                )


@dataclass(frozen=True)
class TextArm:
    """What one run is trained with.

    Parameters
    ----------
    target : EstimatorSpec
        Target of the fractional coordinates.
    text : str
        Kind of prompt that the network reads, or none.
    types : str
        given: the composition is known; denoised: the elements are drawn too.
    """

    __pydantic_config__ = {"extra": "forbid"}

    target: EstimatorSpec
    text: str = NONE
    types: str = GIVEN

    def __post_init__(self) -> None:
        if self.text not in (NONE, *KINDS):
            raise BadInput(f"expected an arm's text among {[NONE, *KINDS]}, got {self.text!r}")
        if self.types not in (GIVEN, DENOISED):
            raise BadInput(f"expected an arm's types given or denoised, got {self.types!r}")


@dataclass(frozen=True)
class TextModelConfig:
    """Network and conditioning.

    Parameters
    ----------
    network : CSPNetConfig
    text : TextConfig
    """

    __pydantic_config__ = {"extra": "forbid"}

    network: CSPNetConfig
    text: TextConfig = field(default_factory=TextConfig)


@dataclass(frozen=True)
class TextSampleConfig(SampleConfig):
    """How the test split is sampled.

    Parameters
    ----------
    guidance : float
        Weight of the text; 1 is the network as trained.
    generation : SamplerConfig
        Sampler of arms that draw the elements too. A multistep rule extrapolates from call to
        call, which jumps whenever an element is revealed; predicted cells need a bound, since
        they are unknown at first.
    """

    __pydantic_config__ = {"extra": "forbid"}

    guidance: float = 1.0
    generation: SamplerConfig = GENERATION

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guidance < 0:
            raise BadInput(f"expected sample.guidance of at least 0, got {self.guidance}")

    def sampler_of(self, arm: TextArm) -> SamplerConfig:
        """Return the sampler of an arm."""
        return self.generation if arm.types == DENOISED else self.sampler


@dataclass(frozen=True)
class TextCurvesConfig:
    """Quality against the guidance weight.

    Parameters
    ----------
    num_test : int
        Test crystals of each point, the first by the hash of their id; 0 takes all.
    guidance : tuple of float
        Weights.
    """

    __pydantic_config__ = {"extra": "forbid"}

    num_test: int = 250
    guidance: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)

    def __post_init__(self) -> None:
        if self.num_test < 0 or not self.guidance or min(self.guidance) < 0:
            raise BadInput(f"expected curves.num_test and guidance of at least 0, got {self}")


@dataclass(frozen=True)
class TextCrystalsConfig:
    """One preset of the task in params.yaml."""

    __pydantic_config__ = {"extra": "forbid"}

    model: TextModelConfig
    train: TrainConfig
    sample: TextSampleConfig
    estimators: dict[str, TextArm]
    prompts: PromptsConfig = field(default_factory=PromptsConfig)
    kernel: KernelConfig = field(default_factory=KernelConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    curves: TextCurvesConfig = field(default_factory=TextCurvesConfig)


def unknown_type(network: CSPNetConfig) -> int:
    """Return the number that stands for an unknown element."""
    return network.max_element + 1


def build_text_network(
    model: TextModelConfig, arm: TextArm, *, dim: int, generator: torch.Generator
) -> CSPNet:
    """CSPNet of an arm; what all arms share starts from the same weights for the same generator.

    Parameters
    ----------
    model : TextModelConfig
    arm : TextArm
    dim : int
        Length of the encoder's vectors.
    generator : torch.Generator
    """
    network = model.network
    seeds = torch.randint(2**62, (2,), generator=generator).tolist()
    with torch.random.fork_rng(devices=[]):
        text = None
        if arm.text != NONE:
            torch.manual_seed(seeds[1])
            text = TextConditioning(
                model.text, dim=dim, hidden=network.hidden, layers=network.layers
            )
        torch.manual_seed(seeds[0])
        return CSPNet(network, text=text, types=arm.types == DENOISED)


@final
class TextCrystals:
    """The bundle that trains: crystals with vectors of their prompts, objective, network.

    Parameters
    ----------
    config : TextCrystalsConfig
    arm : TextArm
    data : Path
        Folder written by the stage `texts`.
    """

    name = "text_crystals"

    def __init__(self, config: TextCrystalsConfig, arm: TextArm, data: Path) -> None:
        self.settings, self.arm = config, arm
        self.prompts = read_about(data)
        structure = build_objective(config.kernel, arm.target)
        self.objective: TrainingObjective = LikeAtomsObjective(structure)
        if arm.types == DENOISED:
            kernel = AbsorbingTypes(unknown_type(config.model.network))
            self.objective = TypesObjective(structure, kernel)
        self.training_set = load_text_crystals(data, "train", arm.text)
        validation_set = load_text_crystals(data, "val", arm.text)
        first = validation_set.first_k_by_hash(config.validation.num)
        self.yardstick = TorusYardstick(
            structure, validation_set.batch(first), config.validation.sigmas
        )

    def build_denoiser(self, *, generator: torch.Generator) -> nn.Module:
        """Return CSPNet at its start, texts standardised by those of the training set."""
        network = build_text_network(
            self.settings.model, self.arm, dim=int(self.prompts["dim"]), generator=generator
        )
        if network.text is not None:
            network.text.standardise(self.training_set.conditions["text"])
        return network

    def train_sizes(self) -> Tensor:
        """Return the number of atoms of each training crystal."""
        return self.training_set.num_atoms

    def train_batch(self, rows: Tensor, *, generator: torch.Generator) -> Batch:
        """Return the batch of these training rows, some of its texts left out."""
        batch = self.training_set.batch(rows)
        if self.arm.text == NONE:
            return batch
        kept = torch.rand(len(batch), generator=generator) >= self.settings.model.text.dropout
        return dataclasses.replace(batch, cond={**batch.cond, "has_text": kept})

    def validate(self, denoiser: nn.Module) -> Mapping[str, Any]:
        """Distance to the exact target of crystals whose types are known, by noise level."""
        return self.yardstick.measure(denoiser)

    def config(self) -> Mapping[str, Any]:
        """Return what is needed to build the network again, and to read a user's prompt."""
        counts = torch.bincount(self.training_set.num_atoms)
        return {
            "task": self.name,
            "model": dataclasses.asdict(self.settings.model),
            "kernel": dataclasses.asdict(self.settings.kernel),
            "sampler": dataclasses.asdict(self.settings.sample.sampler_of(self.arm)),
            "guidance": self.settings.sample.guidance,
            "estimator": dataclasses.asdict(self.arm.target),
            "text": self.arm.text,
            "types": self.arm.types,
            "encoder": {
                name: self.prompts[name] for name in ("encoder", "max_tokens", "fingerprint", "dim")
            },
            "sizes": counts.tolist(),
        }
