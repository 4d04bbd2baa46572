"""The training objective: the only place where a denoiser and orbit estimators meet."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, final, runtime_checkable

import torch

from orbitdiff.batch import Batch
from orbitdiff.kernels.base import NoiseKernel, expand
from orbitdiff.nn.base import Denoiser
from orbitdiff.orbit.base import OrbitContext, OrbitEstimator, OrbitInfo
from orbitdiff.typing import Float, PerSample, State, Tensor

__all__ = [
    "DiffusedField",
    "Loss",
    "Objective",
    "PointLoss",
    "TargetScale",
    "mean_norm",
    "mean_square",
]


NORM_SOFTENING = 1e-12  # keeps the gradient of a distance of zero finite


@runtime_checkable
class TargetScale(Protocol):
    """Scale of the target at time t: the network predicts target / scale."""

    def __call__(self, t: PerSample, /) -> PerSample:
        """Return the scale, (B,)."""
        ...


@runtime_checkable
class PointLoss(Protocol):
    """Loss of each sample of a batch of points."""

    def __call__(self, predicted: Tensor, target: Tensor, mask: Tensor | None, /) -> Tensor:
        """Return the loss, (B,), of points (B, N, D) with a mask (B, N)."""
        ...


def mean_over_points(value: Float[Tensor, "B N D"], mask: Tensor | None) -> Float[Tensor, " B"]:
    """Mean over real atoms and axes of each sample."""
    if mask is None:
        return value.mean((1, 2))
    weight = mask[..., None].to(value.dtype)
    return (value * weight).sum((1, 2)) / (weight.sum((1, 2)) * value.shape[-1]).clamp(min=1)


def mean_square(
    predicted: Float[Tensor, "B N D"], target: Float[Tensor, "B N D"], mask: Tensor | None
) -> Float[Tensor, " B"]:
    """Squared error of each coordinate; its minimiser is the conditional mean."""
    return mean_over_points((predicted - target) ** 2, mask)


def mean_norm(
    predicted: Float[Tensor, "B N D"], target: Float[Tensor, "B N D"], mask: Tensor | None
) -> Float[Tensor, " B"]:
    """Unsquared distance of each atom (ET-Flow); its minimiser is a conditional median."""
    square = (predicted - target).square().sum(-1, keepdim=True)
    return mean_over_points((square + NORM_SOFTENING).sqrt(), mask)


@final
@dataclass(frozen=True)
class DiffusedField:
    """How one named field of the state is noised and what is regressed on.

    Parameters
    ----------
    kernel : NoiseKernel
    estimator : OrbitEstimator
        Gives the target; every arm of a comparison differs in this alone.
    scale : TargetScale
        Root mean square of the PLAIN target at t, the same for every estimator.
    weight : float
        Weight of this field's loss.
    masked : bool
        True where the field has an atom axis to which the batch's mask applies.
    loss : PointLoss
        Squared error unless stated; averaging a target leaves the minimiser in place for it alone.
    """

    kernel: NoiseKernel
    estimator: OrbitEstimator
    scale: TargetScale
    weight: float = 1.0
    masked: bool = True
    loss: PointLoss = mean_square


class Loss(NamedTuple):
    """Loss of a batch: `value` to differentiate, per-sample values, diagnostics per field."""

    value: Float[Tensor, ""]
    per_sample: Float[Tensor, " B"]
    per_field: dict[str, Tensor]
    info: dict[str, OrbitInfo]


@final
class Objective:
    """sum_f weight_f E |D_f(x_t, t) - target_f / scale_f(t)|^2 / coordinates.

    Parameters
    ----------
    fields : mapping of name to DiffusedField
        All fields share t.
    """

    def __init__(self, fields: Mapping[str, DiffusedField]) -> None:
        self.fields = dict(fields)

    def draw_times(
        self, num: int, *, generator: torch.Generator, device: torch.device
    ) -> Float[Tensor, " B"]:
        """Draw times uniformly from [0, 1)."""
        return torch.rand(num, generator=generator, device=device)

    def noise(
        self, batch: Batch, t: Float[Tensor, " B"], *, generator: torch.Generator | None
    ) -> tuple[State, State]:
        """Draw x_t and the noise of every field."""
        x_t, noise = {}, {}
        for name, field in self.fields.items():
            mask = batch.mask if field.masked else None
            drawn = field.kernel.sample(batch.state[name], t, mask=mask, generator=generator)
            x_t[name], noise[name] = drawn
        return x_t, noise

    def __call__(
        self,
        denoiser: Denoiser,
        batch: Batch,
        t: Float[Tensor, " B"],
        *,
        context: Mapping[str, OrbitContext] | None = None,
        generator: torch.Generator | None = None,
    ) -> Loss:
        """Noise the batch, average the target over the orbit, compare with the network.

        Parameters
        ----------
        denoiser : Denoiser
        batch : Batch
        t : (B,)
            Times in [0, 1].
        context : mapping of field to OrbitContext, optional
        generator : torch.Generator, optional
            Draws the noise first, then the estimators' samples.
        """
        x_t, noise = self.noise(batch, t, generator=generator)
        prediction = denoiser(x_t, t, batch.cond, batch.mask)
        total = torch.zeros(len(batch), dtype=prediction[next(iter(self.fields))].dtype)
        total = total.to(t.device)
        per_field, info = {}, {}
        for name, field in self.fields.items():
            mask = batch.mask if field.masked else None
            target = field.estimator(
                x_t[name],
                batch.state[name],
                t,
                context=None if context is None else context.get(name),
                noise=noise[name],
                mask=mask,
                generator=generator,
            )
            wanted = target.value / expand(field.scale(t))
            per_field[name] = field.loss(prediction[name], wanted, mask)
            info[name] = target.info
            total = total + field.weight * per_field[name]
        return Loss(total.mean(), total, per_field, info)
