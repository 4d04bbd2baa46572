"""Two figures of a network by time: distance to the exact mean velocity, equivariance error."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import nn

from orbitdiff.batch import Batch
from orbitdiff.groups.rotation import SO3
from orbitdiff.objective import mean_over_points
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.seeding import stream
from orbitdiff.tasks.backbone_objective import FIELD, BackboneKernelConfig, BackboneObjective
from orbitdiff.typing import Tensor

__all__ = ["BackboneYardstick"]


@final
class BackboneYardstick:
    """Mean square errors of a network's velocity on fixed noised chains, angstrom^2.

    distance(t) = E |D(x_t, t) - E[velocity | x_t]|^2 per coordinate, the mean over all rotations;
    equivariance(t) = E |R^T D(R x_t, t) - D(x_t, t)|^2 per coordinate, R uniform. Chains, noise and
    rotations are fixed, so that all networks see the same.

    Parameters
    ----------
    kernel : BackboneKernelConfig
    batch : Batch
        Validation chains.
    times : sequence of float
    """

    def __init__(self, kernel: BackboneKernelConfig, batch: Batch, times: Sequence[float]) -> None:
        field = BackboneObjective(kernel, EstimatorSpec(kind="rotation")).field
        x_0 = batch.state[FIELD]
        x_0 = x_0 @ _rotations(len(batch), stream("yardstick", "pose")).mT
        self.batch = batch
        self.times = tuple(times)
        self.levels: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for index, time in enumerate(times):
            generator = stream("yardstick", index)
            t = torch.full((len(batch),), time)
            x_t, noise = field.kernel.sample(x_0, t, mask=batch.mask, generator=generator)
            exact = field.estimator(x_t, x_0, t, noise=noise, mask=batch.mask).value
            self.levels.append((x_t, t, exact, _rotations(len(batch), generator)))

    @torch.no_grad()
    def measure(self, denoiser: nn.Module) -> Mapping[str, Any]:
        """Return `distance` and `equivariance` by time, and the mean of each."""
        device = next(denoiser.parameters()).device
        batch = self.batch.to(device)
        training = denoiser.training
        denoiser.eval()
        distance: dict[str, float] = {}
        equivariance: dict[str, float] = {}
        for time, level in zip(self.times, self.levels, strict=True):
            x_t, t, exact, turn = (part.to(device) for part in level)
            said = denoiser({FIELD: x_t}, t, batch.cond, batch.mask)[FIELD]
            turned = denoiser({FIELD: x_t @ turn.mT}, t, batch.cond, batch.mask)[FIELD] @ turn
            for found, other in ((distance, exact), (equivariance, turned)):
                error = mean_over_points((said - other) ** 2, batch.mask)
                found[f"{time:g}"] = float(error.mean())
        denoiser.train(training)
        return {
            "distance": distance,
            "distance_mean": sum(distance.values()) / len(distance),
            "equivariance": equivariance,
            "equivariance_mean": sum(equivariance.values()) / len(equivariance),
        }


def _rotations(num: int, generator: torch.Generator) -> Tensor:
    return SO3().sample(num, generator=generator, dtype=torch.float32)
