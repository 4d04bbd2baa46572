"""A trained text-guided network, and how it draws: given a composition, or with the elements."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from orbitdiff.batch import Batch
from orbitdiff.data.crystals import Crystal
from orbitdiff.data.text_crystals import NONE
from orbitdiff.errors import BadInput, CheckpointError
from orbitdiff.inference.crystals import CrystalModel
from orbitdiff.kernels.absorbing import AbsorbingTypes
from orbitdiff.nn.cspnet import CSPNet, CSPNetConfig
from orbitdiff.nn.guidance import Guided
from orbitdiff.nn.text import TextEncoder, load_encoder
from orbitdiff.nn.text_conditioning import TextConfig
from orbitdiff.objective import Objective
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.samplers.absorbing import RevealingTypes
from orbitdiff.samplers.config import SamplerConfig, build_sampler
from orbitdiff.seeding import stream
from orbitdiff.tasks.crystals import KernelConfig, build_objective
from orbitdiff.tasks.text_crystals import (
    DENOISED,
    TextArm,
    TextModelConfig,
    build_text_network,
    unknown_type,
)
from orbitdiff.training import checkpoint as store
from orbitdiff.typing import Tensor

__all__ = ["TextCrystalModel"]


@final
@dataclass(frozen=True)
class TextCrystalModel:
    """A trained network with the kernels, the kind of prompt and the encoder it was trained for.

    Parameters
    ----------
    network : CSPNet
        In evaluation mode.
    objective : Objective
        Of lattice and coordinates.
    sampler : SamplerConfig
        Sampler of the preset.
    guidance : float
        Weight of the text in the preset.
    text : str
        Kind of prompt, or none.
    draws_types : bool
        The elements can be drawn too.
    encoder : dict
        Name, token limit, fingerprint and length of the text encoder.
    sizes : (S,)
        Number of training crystals with 0, 1, ... atoms.
    about : dict
        Preset, data set, estimator, seed, git revision, data hash.
    """

    network: CSPNet
    objective: Objective
    sampler: SamplerConfig
    guidance: float
    text: str
    draws_types: bool
    encoder: dict[str, Any]
    sizes: Tensor
    about: dict[str, Any]

    @classmethod
    def load(cls, folder: Path, *, device: torch.device | str = "cpu") -> "TextCrystalModel":
        """Read a model or checkpoint folder.

        Parameters
        ----------
        folder : Path
        device : device
        """
        weights, config = store.load_task_model(folder, "text_crystals")
        sizes = config.pop("model")
        model = TextModelConfig(CSPNetConfig(**sizes["network"]), TextConfig(**sizes["text"]))
        arm = TextArm(EstimatorSpec(kind="plain"), config.pop("text"), config.pop("types"))
        encoder = config.pop("encoder")
        network = build_text_network(
            model, arm, dim=encoder["dim"], generator=torch.Generator().manual_seed(0)
        )
        network.load_state_dict(weights)
        return cls(
            network.to(device).eval(),
            build_objective(KernelConfig(**config.pop("kernel")), EstimatorSpec(kind="plain")),
            SamplerConfig(**config.pop("sampler")),
            config.pop("guidance"),
            arm.text,
            arm.types == DENOISED,
            encoder,
            torch.tensor(config.pop("sizes")),
            config,
        )

    def predictor(self, guidance: float | None = None) -> CrystalModel:
        """Return the model of structures whose elements are given.

        Parameters
        ----------
        guidance : float, optional
            Weight of the text, default the preset's.
        """
        network = _WithoutTypes(self.guided(guidance))
        return CrystalModel(network, self.objective, self.sampler, self.about)

    def guided(self, guidance: float | None = None) -> torch.nn.Module:
        """Return the network with a weight on its text; itself where it reads none."""
        if self.text == NONE:
            return self.network
        return Guided(self.network, self.guidance if guidance is None else guidance)

    def load_encoder(self) -> TextEncoder:
        """Return the encoder that the model was trained with.

        Raises
        ------
        CheckpointError
            The encoder of that name has other weights now.
        """
        found = load_encoder(self.encoder["encoder"], max_tokens=self.encoder["max_tokens"])
        if found.fingerprint != self.encoder["fingerprint"]:
            raise CheckpointError(
                f"the model was trained with another text encoder than {self.encoder['encoder']!r} "
                "is here; install the package versions of constraints.txt, or give its folder"
            )
        return found

    def draw_sizes(self, ids: Sequence[int], *, seed: int) -> Tensor:
        """Draw a number of atoms for each sample from those of the training crystals, (B,)."""
        weights = self.sizes.double()
        drawn = [
            int(torch.multinomial(weights, 1, generator=stream(seed, "size", id))) for id in ids
        ]
        return torch.tensor(drawn)

    def generate(
        self,
        text: Tensor,
        ids: Sequence[int],
        *,
        seed: int,
        guidance: float | None = None,
        only: Sequence[int] = (),
        sampler: SamplerConfig | None = None,
        callback: Callable[..., None] | None = None,
    ) -> list[Crystal]:
        """Draw crystals given texts alone: size, elements, cell and coordinates.

        Parameters
        ----------
        text : (B, E)
            Vectors of the texts; not read by a model without text.
        ids : sequence of int
            Sample k depends on (seed, ids[k]) and its text alone.
        seed : int
        guidance : float, optional
        only : sequence of int
            Atomic numbers to draw from, default all that the network knows.
        sampler : SamplerConfig, optional
        callback : callable, optional
            Called after each step.

        Raises
        ------
        BadInput
            The model needs a composition.
        """
        if not self.draws_types:
            raise BadInput(
                "this model predicts structures of a given composition: give --formula, or take a "
                "model trained with `types: denoised`"
            )
        device = next(self.network.parameters()).device
        counts = self.draw_sizes(ids, seed=seed)
        mask = torch.arange(int(counts.max())) < counts[:, None]
        kernel = AbsorbingTypes(unknown_type(self.network.config))
        template = Batch(
            state={"lattice": torch.zeros(len(ids), 3, 3), "frac": torch.zeros(*mask.shape, 3)},
            mask=mask,
            cond={
                "atom_types": kernel.prior(mask),
                "text": text,
                "has_text": torch.ones(len(ids), dtype=torch.bool),
            },
            ids=torch.tensor(list(ids)),
        ).to(device)
        network = self.guided(guidance)
        if only:
            network = _OnlyTypes(network, only)
        drawing = RevealingTypes(network, kernel, template, seed=seed)
        drawn = build_sampler(sampler or self.sampler, self.objective.fields).sample(
            drawing, template, seed=seed, callback=callback
        )
        types = drawing.finish().cpu().numpy()
        frac, lattice = drawn["frac"].double().cpu(), drawn["lattice"].double().cpu()
        return [
            Crystal(
                id=str(id),
                atom_types=types[row, :count],
                frac=frac[row, :count].numpy() % 1.0,
                lattice=lattice[row].numpy(),
            )
            for row, (id, count) in enumerate(zip(ids, counts.tolist(), strict=True))
        ]


@final
class _WithoutTypes(torch.nn.Module):
    """A network without the logits of its types, which stay as they are given."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *arguments: Any) -> dict[str, Tensor]:
        """Return the fields of the structure."""
        found = self.network(*arguments)
        return {name: value for name, value in found.items() if name != "types"}


@final
class _OnlyTypes(torch.nn.Module):
    """A network whose types are among some, by their atomic numbers."""

    def __init__(self, network: torch.nn.Module, only: Sequence[int]) -> None:
        super().__init__()
        self.network, self.only = network, list(only)

    def forward(self, *arguments: Any) -> dict[str, Tensor]:
        """Return the fields, without a chance for other types."""
        found: dict[str, Tensor] = self.network(*arguments)
        logits = torch.full_like(found["types"], -torch.inf)
        places = [number - 1 for number in self.only]
        logits[..., places] = found["types"][..., places]
        return {**found, "types": logits}
