"""Use a text-guided model: a prompt in, with or without a formula, pymatgen structures out."""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch

from orbitdiff.batch import Batch
from orbitdiff.data.crystals import Crystal, to_structure
from orbitdiff.data.prompts import framed
from orbitdiff.data.text_crystals import NONE
from orbitdiff.errors import BadInput, CheckpointError
from orbitdiff.inference.crystals import CrystalModel, parse_formula
from orbitdiff.inference.demo import demo_checkpoint
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

__all__ = ["TextCrystalModel", "TextCutWarning", "generate_text_crystals"]

STATED = re.compile(r"chemical formula is ([A-Za-z0-9()\[\]]+)", re.IGNORECASE)
LISTED = re.compile(r"elements are ([^.]+)", re.IGNORECASE)

SHOWN = 60
"""Letters of a lost end that a warning quotes."""


class TextCutWarning(UserWarning):
    """A prompt is longer than its encoder reads."""


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
        drawing = RevealingTypes(self.guided(guidance), kernel, template, seed=seed)
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


def stated_formula(prompt: str) -> str | None:
    """Return the formula that a prompt states; refuse elements that do not exist.

    Raises
    ------
    BadInput
        A stated formula or list of elements with an unknown one.
    """
    listed = LISTED.search(prompt)
    if listed is not None:
        for symbol in re.split(r"\s*(?:,|\band\b)\s*", listed.group(1).strip()):
            if symbol:
                parse_formula(symbol)
    found = STATED.search(prompt)
    if found is None:
        return None
    parse_formula(found.group(1))
    return found.group(1)


def read_prompt(prompt: str, encoder: TextEncoder) -> Tensor:
    """Return the vector of a user's prompt, (1, E); warn of what the encoder does not read.

    Raises
    ------
    BadInput
        Empty prompt.
    """
    if not prompt.strip():
        raise BadInput(
            "expected a prompt, such as 'The chemical formula is BaTiO3. The crystal system is "
            "cubic.', got an empty text"
        )
    count, lost = encoder.cut(prompt)
    if lost:
        end = lost if len(lost) <= SHOWN else lost[:SHOWN] + "..."
        warnings.warn(
            f"the prompt has {count} tokens, the encoder reads {encoder.max_tokens}: cut off from "
            f"{end!r} on",
            TextCutWarning,
            stacklevel=3,
        )
    return encoder([prompt])


def generate_text_crystals(
    prompt: str,
    n: int = 1,
    *,
    formula: str | None = None,
    checkpoint: Path | None = None,
    seed: int = 0,
    guidance: float | None = None,
    steps: int | None = None,
    callback: Callable[..., None] | None = None,
) -> list[Any]:
    """Draw crystal structures that a text describes.

    Parameters
    ----------
    prompt : str
        Such as "The chemical formula is BaTiO3. The crystal system is cubic."; models have seen
        sentences of this form (docs/text_crystals.md), and those of short prompts get the first
        and last sentence that all of these have.
    n : int
        Number of structures.
    formula : str, optional
        Atoms of one cell, such as BaTiO3. Without it the elements are drawn too; a model that
        does not draw them takes the formula that the prompt states.
    checkpoint : Path, optional
        Model folder; default: the demo model that the package ships.
    seed : int
        Structure k depends on (seed, k) alone.
    guidance : float, optional
        Weight of the text: 0 ignores it, 1 is the network as trained; default the preset's.
    steps : int, optional
        Sampler steps, default the preset's.
    callback : callable, optional
        Called after each sampler step.

    Returns
    -------
    list of pymatgen Structure

    Raises
    ------
    BadInput
        Empty prompt, unknown element, bad formula or n, a model that reads no text or needs a
        formula.
    CheckpointError
        Missing or damaged model, or one of another text encoder.

    Warns
    -----
    TextCutWarning
        The prompt has more tokens than the encoder reads.
    """
    if n < 1:
        raise BadInput(f"expected n of at least 1, got {n}")
    stated = stated_formula(prompt)
    model = TextCrystalModel.load(checkpoint or demo_checkpoint("text_crystals"))
    if model.text == NONE:
        raise BadInput("this model reads no text; take one trained with prompts")
    if formula is None and not model.draws_types:
        formula = stated
    numbers = None if formula is None else parse_formula(formula)
    if numbers is not None and max(numbers) > model.network.config.max_element:
        raise BadInput(
            f"the model knows elements up to number {model.network.config.max_element}, got "
            f"{max(numbers)} in {formula}"
        )
    asked = prompt if model.text == "long" else framed(prompt)
    text = read_prompt(asked, model.load_encoder()).expand(n, -1).contiguous()
    sampler = model.sampler if steps is None else replace(model.sampler, steps=steps)
    if numbers is None:
        crystals = model.generate(
            text, range(n), seed=seed, guidance=guidance, sampler=sampler, callback=callback
        )
    else:
        template = Batch(
            state={"lattice": torch.zeros(n, 3, 3), "frac": torch.zeros(n, len(numbers), 3)},
            mask=torch.ones(n, len(numbers), dtype=torch.bool),
            cond={
                "atom_types": torch.tensor(numbers).expand(n, -1).contiguous(),
                "text": text,
                "has_text": torch.ones(n, dtype=torch.bool),
            },
            ids=torch.arange(n),
        )
        crystals = model.predictor(guidance).sample(
            template, seed=seed, sampler=sampler, callback=callback
        )
    return [to_structure(crystal) for crystal in crystals]
