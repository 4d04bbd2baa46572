"""One validation figure for all estimators: distance to the exact orbit target."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import nn

from orbitdiff.batch import Batch
from orbitdiff.groups.permutation import BlockPermutations, padded_lists
from orbitdiff.kernels.base import expand
from orbitdiff.objective import Objective, mean_over_points
from orbitdiff.orbit.torus import torus_posterior
from orbitdiff.seeding import stream
from orbitdiff.typing import State, Tensor

__all__ = ["TorusYardstick", "permutation_table"]

LARGEST = 120
"""Permutations of a crystal up to which they are listed."""


def permutation_table(atom_types: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Permutations of like atoms of each crystal, (B, P, N), and their mask (B, P).

    Crystals whose group is too large to enumerate get the identity alone.
    """
    tables = []
    for types, real in zip(atom_types, mask, strict=True):
        count = int(real.sum())
        group = BlockPermutations(types[:count])
        listed = group.order <= LARGEST
        tables.append(group.elements() if listed else group.identity()[None])
    return padded_lists(tables, atom_types.shape[1])


@final
class TorusYardstick:
    """Mean square distance of the network's score to E[score | x_t], by noise level.

    The target is exact over translations x permutations of like atoms (translations alone
    where a crystal has more than 120 permutations); distances are in units of the plain
    target's mean square. Noise is fixed, so that all networks see the same x_t.

    Parameters
    ----------
    objective : Objective
        Fields `lattice` and `frac`; its kernels noise the batch.
    batch : Batch
        Validation crystals.
    sigmas : sequence of float
        Noise levels of the fractional coordinates.
    """

    def __init__(self, objective: Objective, batch: Batch, sigmas: Sequence[float]) -> None:
        self.batch = batch
        self.sigmas = tuple(sigmas)
        kernel = objective.fields["frac"].kernel
        low, high = (float(kernel.schedule(torch.tensor(t)).sigma) for t in (0.0, 1.0))
        permutations, permutation_mask = permutation_table(batch.cond["atom_types"], batch.mask)
        self.levels: list[tuple[State, Tensor, Tensor]] = []
        self.target_power: dict[str, float] = {}
        for index, sigma in enumerate(self.sigmas):
            position = torch.tensor(sigma / low).log() / torch.tensor(high / low).log()
            t = position.clamp(0, 1).expand(len(batch)).contiguous()
            x_t, _ = objective.noise(batch, t, generator=stream("yardstick", index))
            exact = torus_posterior(
                x_t["frac"],
                batch.state["frac"],
                kernel.schedule(t).sigma,
                mask=batch.mask,
                permutations=permutations,
                permutation_mask=permutation_mask,
            ).mean_score
            target = exact / expand(objective.fields["frac"].scale(t))
            self.levels.append((x_t, t, target))
            power = mean_over_points(target**2, batch.mask)
            self.target_power[f"{sigma:g}"] = float(power.mean())

    @torch.no_grad()
    def measure(self, denoiser: nn.Module) -> Mapping[str, Any]:
        """Return `distance` by noise level and `distance_mean`."""
        device = next(denoiser.parameters()).device
        batch = self.batch.to(device)
        training = denoiser.training
        denoiser.eval()
        distance = {}
        for sigma, (x_t, t, target) in zip(self.sigmas, self.levels, strict=True):
            moved = {name: value.to(device) for name, value in x_t.items()}
            prediction = denoiser(moved, t.to(device), batch.cond, batch.mask)["frac"]
            error = mean_over_points((prediction - target.to(device)) ** 2, batch.mask)
            distance[f"{sigma:g}"] = float(error.mean())
        denoiser.train(training)
        mean = sum(distance.values()) / len(distance)
        return {"distance": distance, "distance_mean": mean}
