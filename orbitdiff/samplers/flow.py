"""Sampler of flow matching from a Gaussian prior: the ODE, or the SDE with the same marginals.

With x_t = (1 - t) x_0 + t y the network gives u = E[y - x_0 | x_t], hence the data prediction
D = x_t - t u and the prior prediction Y = x_t + (1 - t) u. The ODE is dx / dt = u. Running down in
time, the SDE adds g (d log p / dx) and noise of variance 2 g gamma per unit of time; for a prior
N(0, C) the score is -C^-1 Y / t. With g = C t / (1 - t) and D constant over a step, Y is an
Ornstein-Uhlenbeck process with the stationary law N(0, gamma C), solved exactly:
    x_s = (1 - s) D + s (c Y + sqrt(gamma (1 - c^2)) z),  z ~ N(0, C),
    c = s (1 - t) / (t (1 - s)),
for gamma = 1 the ancestral step of DDPM. Euler-Maruyama steps of the same equation blow up along
stiff directions (bonds) near t = 0, where the score is singular; these do not.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch

from orbitdiff.batch import Batch
from orbitdiff.errors import BadInput
from orbitdiff.kernels.base import expand
from orbitdiff.nn.base import Denoiser
from orbitdiff.samplers.base import Callback
from orbitdiff.samplers.noise import PerSampleNoise
from orbitdiff.typing import Float, PerSample, State, Tensor

__all__ = ["Draw", "FlowConfig", "FlowSampler", "isotropic"]

Draw = Callable[[Tensor], Tensor]
"""Turns standard normal noise (B, N, 3), zero in padding, into samples of the prior."""

GRIDS = ("log", "uniform")
LOG_POWER = 2.0


def isotropic(scale: float) -> Draw:
    """Return the draw of the prior N(0, scale^2).

    Parameters
    ----------
    scale : float
        Standard deviation in each coordinate, unit of the field.
    """
    if not 0 < scale < math.inf:
        raise BadInput(f"expected a finite prior scale above 0, got {scale}")
    return lambda normal: scale * normal


@dataclass(frozen=True)
class FlowConfig:
    """Settings of the sampler, as params.yaml writes them.

    Parameters
    ----------
    steps : int
        Steps from the prior to the data (published for backbones: 400).
    order : int
        1 (Euler) or 2 (Heun, two network calls per step, ODE only).
    grid : str
        `log` (dense near the data, published for backbones) or `uniform`.
    noise_scale : float
        gamma, the temperature of the SDE's noise: 0 is the ODE, 1 keeps the marginals, between
        them samples are less diverse (published for backbones: 0.45).
    self_condition : bool
        Hand the last data prediction to the network as `self_condition` in its conditions.
    """

    __pydantic_config__ = {"extra": "forbid"}

    steps: int
    order: int = 1
    grid: str = "uniform"
    noise_scale: float = 0.0
    self_condition: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise BadInput(f"sampler.steps must be at least 1, got {self.steps}")
        if self.order not in (1, 2):
            raise BadInput(f"sampler.order must be 1 (Euler) or 2 (Heun), got {self.order}")
        if self.grid not in GRIDS:
            raise BadInput(f"expected sampler.grid among {GRIDS}, got {self.grid!r}")
        if not 0 <= self.noise_scale < math.inf:
            raise BadInput(f"sampler.noise_scale must be finite and >= 0, got {self.noise_scale}")
        if self.noise_scale > 0 and self.order == 2:
            raise BadInput("sampler.order 2 solves the ODE: set noise_scale 0, or order 1")


@final
class FlowSampler:
    """Draws one field of points with a network that predicts the velocity.

    Parameters
    ----------
    config : FlowConfig
    field : str
        Name of the field in the state, (B, N, 3) with the batch's mask.
    scale : callable, optional
        The network predicts velocity / scale(t), as in `DiffusedField`; default 1.

    Notes
    -----
    Points are centred over the mask at the start and after each step. The SDE holds for the
    straight interpolant; with a bridge around it use the ODE.

    References
    ----------
    Geffner et al. 2025 (Proteina): log grid, noise scale, g; its time runs the other way.
    """

    def __init__(
        self,
        config: FlowConfig,
        *,
        field: str = "positions",
        scale: Callable[[PerSample], PerSample] | None = None,
    ) -> None:
        self.config = config
        self.field = field
        self.scale = torch.ones_like if scale is None else scale

    @property
    def calls(self) -> int:
        """Network calls of one run."""
        order = self.config.order
        return order * self.config.steps - (order - 1)

    def grid(self) -> Float[Tensor, " steps_and_one"]:
        """Times from 1 down to 0, float64, (steps + 1,).

        `log`: t_k = (10^(-p k / n) - 10^-p) / (1 - 10^-p) with p = 2.
        """
        share = torch.linspace(0, 1, self.config.steps + 1, dtype=torch.float64)
        if self.config.grid == "uniform":
            return 1 - share
        last = 10.0**-LOG_POWER
        return (10.0 ** (-LOG_POWER * share) - last) / (1 - last)

    @torch.no_grad()
    def sample(
        self,
        denoiser: Denoiser,
        template: Batch,
        *,
        seed: int,
        draw: Draw,
        callback: Callback | None = None,
    ) -> State:
        """Draw one sample per row of the template.

        Parameters
        ----------
        denoiser : Denoiser
        template : Batch
            Mask, conditions, ids, and a state of the wanted shape whose values are not read.
        seed : int
            The noise of a row depends on (seed, id) alone: rows with one id are copies.
        draw : callable
            Maps standard normal noise (B, N, 3) to samples of the prior, row by row:
            `isotropic(scale)`, or with a covariance C over atoms its symmetric root applied to
            the noise (then padding has no influence).
        callback : callable, optional
            Called as callback(step, total, state) after each step.

        Returns
        -------
        dict of one tensor
            Centred samples of x_0; the last step lands on the network's data prediction.

        Raises
        ------
        BadInput
            The template lacks the field.
        """
        if self.field not in template.state:
            raise BadInput(
                f"expected template.state with {self.field!r}, got {sorted(template.state)}"
            )
        like, mask = template.state[self.field], template.mask
        noise = PerSampleNoise(self.field, like, template.ids, seed=seed, mask=mask)
        run = _Run(self, denoiser, template)
        x = centred(draw(noise.normal()).to(like.dtype), mask)
        times = self.grid().tolist()
        for index in range(self.config.steps):
            t, s = times[index], times[index + 1]
            u = run.velocity(x, t)
            if self.config.noise_scale > 0 and s > 0:
                z = draw(noise.normal()).to(x.dtype)
                x = renewed(x, u, z, t, s, noise_scale=self.config.noise_scale)
            else:
                ahead = x + (s - t) * u
                if self.config.order == 2 and s > 0:
                    ahead = x + (s - t) * 0.5 * (u + run.velocity(centred(ahead, mask), s))
                x = ahead
            x = centred(x, mask)
            if callback is not None:
                callback(index + 1, self.config.steps, {self.field: x})
        return {self.field: x}


@final
class _Run:
    """Network and conditions of one run, with the last data prediction."""

    def __init__(self, sampler: FlowSampler, denoiser: Denoiser, template: Batch) -> None:
        self.sampler, self.denoiser, self.template = sampler, denoiser, template
        self.cond = dict(template.cond)

    def velocity(self, x: Tensor, t: float) -> Tensor:
        """Ask the network at one time."""
        field, mask = self.sampler.field, self.template.mask
        time = torch.full((len(self.template),), t, dtype=x.dtype, device=x.device)
        said = self.denoiser({field: x}, time, self.cond, mask)[field]
        u = said.to(x.dtype) * expand(self.sampler.scale(time)) * mask[..., None]
        if self.sampler.config.self_condition:
            self.cond["self_condition"] = centred(x - t * u, mask)
        return u


def renewed(
    x_t: Float[Tensor, "B N D"],
    velocity: Float[Tensor, "B N D"],
    noise: Float[Tensor, "B N D"],
    t: float,
    s: float,
    *,
    noise_scale: float,
) -> Tensor:
    """One step of the SDE from t to s in (0, t).

    Parameters
    ----------
    x_t, velocity : (B, N, D)
    noise : (B, N, D)
        A sample of the prior.
    t, s : float
    noise_scale : float
        gamma.
    """
    kept = s * (1 - t) / (t * (1 - s))
    data, prior = x_t - t * velocity, x_t + (1 - t) * velocity
    fresh = math.sqrt(noise_scale * (1 - kept**2))
    return (1 - s) * data + s * (kept * prior + fresh * noise)


def centred(x: Float[Tensor, "B N D"], mask: Tensor) -> Tensor:
    """Points without the mean over the mask, zero in padding."""
    real = mask[..., None].to(x.dtype)
    mean = (x * real).sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp(min=1)
    return (x - mean) * real
