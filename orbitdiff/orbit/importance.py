"""Sampled orbit means: self-normalised importance sampling, and i-SIR (unbiased for every K)."""

import math
from typing import final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.base import Group
from orbitdiff.kernels.base import NoiseKernel, Parametrization
from orbitdiff.orbit.base import OrbitContext, OrbitEstimator, OrbitInfo, OrbitTarget
from orbitdiff.orbit.proposals import Proposal
from orbitdiff.orbit.streaming import WeightedSums
from orbitdiff.typing import Mask, PerSample, Points, Tensor

__all__ = ["ImportanceOrbit"]

ELEMENTS_PER_CHUNK = 2**18
"""Coordinates of group images evaluated at once, whatever K; a chunk's largest tensors hold
nine times as many numbers (the images of the wrapped normal)."""


def _sums(log_w: Tensor, target: Tensor) -> WeightedSums:
    """Sums of one chunk: log weights (B, K, A), targets (B, K, N, D)."""
    peak = log_w.amax(1)
    scaled = torch.exp(log_w - peak[:, None])
    value = (scaled[:, :, None].to(target.dtype) * target).sum(1)
    return WeightedSums(peak, scaled.sum(1), (scaled**2).sum(1), value)


@final
class ImportanceOrbit(OrbitEstimator):
    """sum_k w_k target(x_t, g_k x_0), w_k proportional to p(x_t | g_k x_0) / q(g_k).

    Parameters
    ----------
    kernel : NoiseKernel
    group : Group
        Must be among `kernel.invariant_under`.
    proposal : Proposal
        `Haar`, `AroundTruth` (published wrapped normal) or `AroundXt`.
    parametrization : Parametrization
    num_samples : int
        K, the true element included where `include_true`.
    include_true : bool
        First element is the identity, which made x_t, weighed by its own density. Without it
        the target is biased and at small noise far worse than no averaging.
    per_axis : bool
        Weigh each axis on its own, where kernel and proposal factorise.
    temperature : float
        Divides the log weights; anything but 1 is biased.
    chunk : int
        Coordinates of images evaluated at once (at least one image of the batch): bounds the
        memory, whatever K. Part of the random stream.

    Notes
    -----
    Weights are formed in chunks by a running maximum (streaming log-sum-exp).
    With the true element, temperature 1 and a proposal that does not depend on it given x_t,
    this is i-SIR: E[value | x_t] is the exact mean for every K, and K = 1 is the plain target.

    References
    ----------
    Orbit Diffusion, arXiv 2502.09890 (SNIS); docs/estimators.md (i-SIR).
    """

    densities = None
    exact = False

    def __init__(
        self,
        kernel: NoiseKernel,
        group: Group,
        proposal: Proposal,
        *,
        parametrization: Parametrization,
        num_samples: int,
        include_true: bool = True,
        per_axis: bool = False,
        temperature: float = 1.0,
        chunk: int = ELEMENTS_PER_CHUNK,
    ) -> None:
        if num_samples < 1:
            raise BadInput(f"num_samples (K) must be at least 1, got {num_samples}")
        if not temperature > 0:
            raise BadInput(f"temperature must be positive, got {temperature}")
        if chunk < 1:
            raise BadInput(f"chunk must be at least 1, got {chunk}")
        self.group: type[Group] | None = type(group)
        self.check(kernel)
        self.kernel = kernel
        self.act = group.act
        self.identity = group.identity
        self.proposal = proposal
        self.parametrization = parametrization
        self.num_samples = num_samples
        self.include_true = include_true
        self.per_axis = per_axis
        self.temperature = temperature
        self.chunk = chunk
        self.unbiased = include_true and proposal.independent and temperature == 1.0

    @torch.no_grad()
    def __call__(
        self,
        x_t: Points,
        x_0: Points,
        t: PerSample,
        *,
        context: OrbitContext | None = None,
        noise: Points | None = None,
        mask: Mask | None = None,
        generator: torch.Generator | None = None,
    ) -> OrbitTarget:
        """Return the weighted mean, ESS (of the worst axis), log evidence, largest weight."""
        real = torch.ones_like(x_0[..., 0], dtype=torch.bool) if mask is None else mask
        size = max(1, self.chunk // max(1, x_0.numel()))
        sums: WeightedSums | None = None
        done = 0
        while done < self.num_samples:
            num = min(size, self.num_samples - done)
            with_true = self.include_true and done == 0
            log_w, target = self._draw(x_t, x_0, t, real, num, with_true, generator)
            part = _sums(log_w, target)
            sums = part if sums is None else sums.merged(part)
            done += num
        assert sums is not None  # num_samples is at least 1
        evidence = sums.log_total - math.log(self.num_samples)
        info = OrbitInfo(
            ess=sums.ess,
            log_evidence=evidence.sum(1) if self.temperature == 1.0 else None,
            max_weight=sums.max_weight,
        )
        return OrbitTarget(sums.mean * real[..., None], info)

    def _draw(
        self,
        x_t: Tensor,
        x_0: Tensor,
        t: Tensor,
        real: Tensor,
        num: int,
        with_true: bool,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """Log weights (B, num, A) in float64 and targets (B, num, N, D)."""
        drawn = num - int(with_true)
        elements, log_q = self.proposal.draw(drawn, x_t, x_0, t, real, generator=generator)
        if with_true:
            one = self.identity(dtype=x_0.dtype, device=x_0.device)
            elements = torch.cat([one.expand(len(x_0), 1, *one.shape), elements], 1)
            own = self.proposal.log_density_of_identity(x_t, x_0, t, real)[:, None]
            log_q = torch.cat([own, log_q], 1)
        images = self.act(elements, x_0[:, None])
        x_bk, t_bk, mask_bk = x_t[:, None], t[:, None], real[:, None]
        log_p, target = self.kernel.log_prob_and_target(
            x_bk, images, t_bk, self.parametrization, mask=mask_bk
        )
        log_p, log_q = log_p.double(), log_q.double()
        if not self.per_axis:
            log_p, log_q = log_p.sum(-1, keepdim=True), log_q.sum(-1, keepdim=True)
        log_w = (log_p - log_q) / self.temperature
        return log_w, target
