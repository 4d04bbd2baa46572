"""The loss of crystals whose elements are unknown too: structure and types share one time."""

from dataclasses import replace
from typing import final

import torch

from orbitdiff.batch import Batch
from orbitdiff.kernels.absorbing import AbsorbingTypes
from orbitdiff.nn.base import Denoiser
from orbitdiff.objective import Loss, Objective
from orbitdiff.tasks.like_atoms import like_atoms
from orbitdiff.typing import Bool, Float, State, Tensor

__all__ = ["TypesObjective"]

GIVEN = 0.5
"""Share of training crystals that keep their types: one network then also predicts structures of a
stated composition."""


@final
class TypesObjective:
    """L = L_structure + E cross entropy of the hidden types.

    Parameters
    ----------
    structure : Objective
        Of lattice and coordinates.
    types : AbsorbingTypes
    """

    def __init__(self, structure: Objective, types: AbsorbingTypes) -> None:
        self.structure, self.types = structure, types

    def draw_times(
        self, num: int, *, generator: torch.Generator, device: torch.device
    ) -> Float[Tensor, " B"]:
        """Draw times uniformly from [0, 1)."""
        return self.structure.draw_times(num, generator=generator, device=device)

    def __call__(
        self, denoiser: Denoiser, batch: Batch, t: Tensor, *, generator: torch.Generator
    ) -> Loss:
        """Hide types, noise the structure, compare the network with both targets.

        Parameters
        ----------
        denoiser : Denoiser
            Predicts `types` beside the fields of the structure.
        batch : Batch
            `atom_types` among its conditions.
        t : (B,)
        generator : torch.Generator
            Draws which crystals keep their types, then which atoms are hidden, then the rest.
        """
        types = batch.cond["atom_types"]
        given = torch.rand(len(batch), generator=generator, device=t.device) < GIVEN
        hiding = torch.where(given, torch.zeros_like(t), t)
        noised = self.types.sample(types, hiding, generator=generator)
        logits: list[Tensor] = []

        def listening(x_t: State, t: Tensor, cond: State, mask: Bool[Tensor, "B N"]) -> State:
            found = denoiser(x_t, t, cond, mask)
            logits.append(found["types"])
            return found

        seen = replace(batch, cond={**batch.cond, "atom_types": noised})
        found = self.structure(listening, seen, t, context=like_atoms(batch), generator=generator)
        loss = self.types.loss(logits[0], types, noised)
        per_sample = found.per_sample + loss
        per_field = {**found.per_field, "types": loss}
        return Loss(per_sample.mean(), per_sample, per_field, found.info)
