"""The loss of a batch of protein chains: times, path, estimator, extra parts of the network."""

from dataclasses import dataclass
from typing import final

import torch

from orbitdiff.batch import Batch
from orbitdiff.errors import BadInput
from orbitdiff.kernels.base import Parametrization, expand
from orbitdiff.kernels.gaussian import GaussianKernel
from orbitdiff.kernels.schedule import ScaledPath
from orbitdiff.nn.base import Denoiser
from orbitdiff.nn.chain_features import distogram_loss
from orbitdiff.objective import DiffusedField, Loss, Objective
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.orbit.registry import build_estimator
from orbitdiff.typing import Float, PerSample, State, Tensor

__all__ = ["FIELD", "BackboneKernelConfig", "BackboneObjective"]

FIELD = "positions"
SQUARE_NANOMETRE = 0.01
"""Per square angstrom: the loss is in the published unit."""

DISTOGRAM_WEIGHT = 1.0
SELF_CONDITIONED = 0.5
"""Share of the steps whose network sees its own first prediction (published)."""


@dataclass(frozen=True)
class BackboneKernelConfig:
    """Path of the flow x_t = (1 - t) x_0 + t prior_scale eps, and the times that training draws.

    Parameters
    ----------
    prior_scale : float
        Standard deviation of the prior in each coordinate, angstrom (published: 10).
    power : float
        Times are 1 - u^(1 / power), u uniform, the law 1 - Beta(power, 1) (published: 1.9).
    uniform : float
        Share of uniform times (published: 0.02).
    margin : float
        Least time.
    """

    __pydantic_config__ = {"extra": "forbid"}

    prior_scale: float = 10.0
    power: float = 1.9
    uniform: float = 0.02
    margin: float = 1e-3

    def __post_init__(self) -> None:
        if not self.power > 0 or not 0 <= self.uniform <= 1 or not 0 < self.margin < 1:
            raise BadInput(
                f"expected kernel.power > 0, uniform in [0, 1], margin in (0, 1), got {self}"
            )
        ScaledPath(self.prior_scale)  # checks the scale

    def kernel(self) -> GaussianKernel:
        """Noise kernel on centred chains."""
        return GaussianKernel(ScaledPath(self.prior_scale), centred=True)

    def draw_times(
        self, num: int, *, generator: torch.Generator, device: torch.device
    ) -> Float[Tensor, " num"]:
        """Draw times in [margin, 1)."""
        share, choice = torch.rand(2, num, generator=generator, device=device)
        law = torch.where(choice < self.uniform, share, 1 - share ** (1 / self.power))
        return self.margin + (1 - self.margin) * law


@final
class BackboneObjective:
    """E |D(x_t, t) - E[velocity | x_t]|^2, mean over coordinates, nm^2, and what else is trained.

    Parameters
    ----------
    kernel : BackboneKernelConfig
    target : EstimatorSpec
        plain, rotation, rotation_samples, or another one that covers rotations.
    self_condition : bool
        In half of the steps the network sees its own first prediction.
    distogram : bool
        Add the loss of the predicted distances.
    """

    def __init__(
        self,
        kernel: BackboneKernelConfig,
        target: EstimatorSpec,
        *,
        self_condition: bool = False,
        distogram: bool = False,
    ) -> None:
        self.kernel = kernel
        self.self_condition = self_condition
        self.distogram = distogram
        self.field = self.diffused(target)
        self._objective = Objective({FIELD: self.field})

    def diffused(self, target: EstimatorSpec) -> DiffusedField:
        """Kernel and estimator of the velocity."""
        kernel = self.kernel.kernel()
        estimator = build_estimator(target, kernel, parametrization=Parametrization.VELOCITY)
        return DiffusedField(kernel, estimator, torch.ones_like, weight=SQUARE_NANOMETRE)

    def draw_times(
        self, num: int, *, generator: torch.Generator, device: torch.device
    ) -> Float[Tensor, " B"]:
        """Draw the times of a batch."""
        return self.kernel.draw_times(num, generator=generator, device=device)

    def __call__(
        self, denoiser: Denoiser, batch: Batch, t: PerSample, *, generator: torch.Generator
    ) -> Loss:
        """Noise the batch, average the velocity, compare with the network."""
        twice = False
        if self.self_condition:
            coin = torch.rand((), generator=generator, device=t.device)
            twice = bool(coin < SELF_CONDITIONED)
        network = _Passes(denoiser, twice=twice, distogram=self.distogram)
        loss = self._objective(network, batch, t, generator=generator)
        if network.logits is None:
            return loss
        extra = distogram_loss(network.logits, batch.state[FIELD], t, batch.mask)
        per_sample = loss.per_sample + DISTOGRAM_WEIGHT * extra
        per_field = {**loss.per_field, "distogram": extra}
        return Loss(per_sample.mean(), per_sample, per_field, loss.info)


@final
class _Passes:
    """A denoiser that may look twice and keeps the logits of the distances."""

    def __init__(self, network: Denoiser, *, twice: bool, distogram: bool) -> None:
        self.network, self.twice = network, twice
        self.asked = {"distogram": True} if distogram else {}
        self.logits: Tensor | None = None

    def __call__(self, x_t: State, t: Tensor, cond: State, mask: Tensor) -> State:
        """Return the velocity."""
        if self.twice:
            with torch.no_grad():
                velocity = self.network(x_t, t, cond, mask)[FIELD]
            cond = {**cond, "self_condition": x_t[FIELD] - expand(t) * velocity}
        found = self.network(x_t, t, cond, mask, **self.asked)
        self.logits = found.get("distogram")
        return found
