"""An objective that tells its estimator which atoms are alike."""

from collections.abc import Mapping
from typing import final

import torch

from orbitdiff.batch import Batch
from orbitdiff.nn.base import Denoiser
from orbitdiff.objective import Loss, Objective
from orbitdiff.orbit.base import OrbitContext
from orbitdiff.typing import Float, Tensor

__all__ = ["LikeAtomsObjective", "like_atoms"]


def like_atoms(batch: Batch) -> Mapping[str, OrbitContext]:
    """Return the context of the coordinates: atoms of one element may be exchanged.

    Parameters
    ----------
    batch : Batch
        `atom_types` among its conditions.
    """
    return {"frac": OrbitContext(atom_types=batch.cond["atom_types"])}


@final
class LikeAtomsObjective:
    """The loss of `structure`, with the atom types as the context of its estimator.

    Parameters
    ----------
    structure : Objective
        Of lattice and coordinates.
    """

    def __init__(self, structure: Objective) -> None:
        self.structure = structure

    def draw_times(
        self, num: int, *, generator: torch.Generator, device: torch.device
    ) -> Float[Tensor, " B"]:
        """Draw times uniformly from [0, 1)."""
        return self.structure.draw_times(num, generator=generator, device=device)

    def __call__(
        self, denoiser: Denoiser, batch: Batch, t: Tensor, *, generator: torch.Generator
    ) -> Loss:
        """Noise the batch and compare the network with the target.

        Parameters
        ----------
        denoiser : Denoiser
        batch : Batch
        t : (B,)
        generator : torch.Generator
        """
        return self.structure(denoiser, batch, t, context=like_atoms(batch), generator=generator)
