"""Use a text-guided model: a prompt in, with or without a formula, pymatgen structures out."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from orbitdiff.batch import Batch
from orbitdiff.data.crystals import to_structure
from orbitdiff.data.prompt_reading import Wording, read_wording
from orbitdiff.data.prompts import framed
from orbitdiff.data.text_crystals import NONE
from orbitdiff.errors import BadInput
from orbitdiff.inference.crystals import parse_formula
from orbitdiff.inference.demo import demo_checkpoint
from orbitdiff.inference.text_crystal_model import TextCrystalModel
from orbitdiff.nn.text import TextEncoder
from orbitdiff.typing import Tensor

__all__ = ["RewordedWarning", "SizeWarning", "TextCutWarning", "generate_text_crystals"]

SHOWN = 60
"""Letters of a lost end that a warning quotes."""


class TextCutWarning(UserWarning):
    """A prompt is longer than its encoder reads."""


class RewordedWarning(UserWarning):
    """Free words that the model reads in other words, or that say nothing it knows."""


class SizeWarning(UserWarning):
    """A cell has a number of atoms that the model was not trained on."""


def in_its_words(prompt: str, wording: Wording, kind: str) -> str:
    """Return the text that a model of a kind of prompt reads for a user's prompt."""
    if kind == "long" or wording.is_prompt:
        return prompt if kind == "long" else framed(prompt)
    sentences = wording.sentences(kind)
    if prompt.strip():
        warnings.warn(
            f"the prompt is read as {sentences!r}"
            if sentences
            else "the prompt names no formula, elements, space group or crystal system, which is "
            "what the model has read of; it gets the words as they are",
            RewordedWarning,
            stacklevel=3,
        )
    return framed(sentences or prompt)


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
        Such as "The chemical formula is BaTiO3. The crystal system is cubic.": models have seen
        sentences of this form (docs/text_crystals.md). Free words are put into it as far as they
        name formula, elements, space group and crystal system.
    n : int
        Number of structures.
    formula : str, optional
        Atoms of one cell, such as BaTiO3; default the formula in the prompt. Without one the
        elements are drawn, from those that the prompt names where it names some.
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
    RewordedWarning
        How free words were read.
    SizeWarning
        A formula with a number of atoms that no training crystal has.
    """
    if n < 1:
        raise BadInput(f"expected n of at least 1, got {n}")
    wording = read_wording(prompt)
    model = TextCrystalModel.load(checkpoint or demo_checkpoint("text_crystals"))
    if model.text == NONE:
        raise BadInput("this model reads no text; take one trained with prompts")
    formula = formula or wording.formula or None
    numbers = None if formula is None else parse_formula(formula)
    only = parse_formula("".join(wording.elements)) if wording.elements else []
    for number in numbers or only:
        if number > model.network.config.max_element:
            raise BadInput(
                f"the model knows elements up to number {model.network.config.max_element}, got "
                f"{number} in {formula or prompt!r}"
            )
    if numbers is not None and len(numbers) not in (seen := model.sizes.nonzero()[:, 0].tolist()):
        warnings.warn(
            f"{formula} is a cell of {len(numbers)} atoms; the model has seen cells of "
            f"{', '.join(map(str, seen))} atoms, others come out badly",
            SizeWarning,
            stacklevel=2,
        )
    asked = in_its_words(prompt, wording, model.text)
    text = read_prompt(asked, model.load_encoder()).expand(n, -1).contiguous()
    sampler = model.sampler if steps is None else replace(model.sampler, steps=steps)
    if numbers is None:
        crystals = model.generate(
            text, range(n), seed=seed, guidance=guidance, only=only, sampler=sampler,
            callback=callback,
        )  # fmt: skip
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
