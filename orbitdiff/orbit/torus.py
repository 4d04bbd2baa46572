"""Exact orbit mean over translations of the torus (and listed permutations of like atoms).

With z_i = f_t,i - f_0,i, each axis on its own, the posterior mean of the score over a uniform
shift has two forms: a closed form over the n cyclic cuts of the sorted z where sigma is at most
0.13 / sqrt(n), and the periodic trapezoid with M = ceil(1.20 sqrt(n) / sigma) nodes above, whose
relative error is below 2 exp(-2 pi^2 M^2 sigma^2 / n) = 1e-12 for any z.
"""

import math
from typing import NamedTuple, final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.base import Group
from orbitdiff.groups.torus import TorusTranslation, wrap
from orbitdiff.kernels.base import Density, NoiseKernel, Parametrization
from orbitdiff.orbit.base import OrbitContext, OrbitEstimator, OrbitInfo, OrbitTarget
from orbitdiff.typing import Bool, Float, Int, Mask, PerSample, Points, Tensor

__all__ = ["TorusOrbit", "TorusPosterior", "torus_posterior"]

SWITCH = 0.13
"""Cuts where sigma sqrt(n) is at most this: neglected unwrappings weigh below 2e-11."""
NODES = 1.20
"""Trapezoid nodes per sqrt(n) / sigma, for a relative error of 1e-12."""
IMAGES = ((1, 0.18), (2, 0.31), (3, 0.44), (4, 0.57))
"""Images |k| <= K and the largest sigma at which they leave out less than 1e-13."""
GROUPS = (10, 16, 26, 42, 68, 110, math.inf)
"""Rows are computed together up to these node counts."""


class TorusPosterior(NamedTuple):
    """Posterior means over the orbit.

    Attributes
    ----------
    mean_score : (B, N, D), E[d log WN / d f_t | f_t] = d log_evidence / d f_t
    log_evidence : (B,), log of the orbit average of the density of f_t
    weights : (B, P), posterior of the permutations (P = 1 without any)
    """

    mean_score: Tensor
    log_evidence: Tensor
    weights: Tensor


@torch.no_grad()
def torus_posterior(
    f_t: Float[Tensor, "B N D"],
    f_0: Float[Tensor, "B N D"],
    sigma: float | Tensor,
    *,
    mask: Bool[Tensor, "B N"] | None = None,
    permutations: Int[Tensor, "B P N"] | None = None,
    permutation_mask: Bool[Tensor, "B P"] | None = None,
    check_values: bool = False,
) -> TorusPosterior:
    """Exact posterior mean of the wrapped-normal score over a uniform shift of f_0.

    mean_score_i = E[d log WN(f_t,i - f_0,i - tau; sigma) / d f_t,i | f_t], tau uniform.

    Parameters
    ----------
    f_t, f_0 : (B, N, D)
        Fractional coordinates, any real representative; f_0 need not have produced f_t.
    sigma : float, or tensor () or (B,)
        Standard deviation in fractional units.
    mask : (B, N) bool, optional
        Real atoms.
    permutations : (B, P, N) long, optional
        Images of f_0 that are averaged over as well: f_0[permutations[k]]. A subgroup, or a
        random subset that contains the true element.
    permutation_mask : (B, P) bool, optional
        Real entries of `permutations`.
    check_values : bool
        Check for NaN and sigma on CUDA too (this synchronises); on the CPU always done.

    Returns
    -------
    TorusPosterior
        In the dtype of f_t; the inside is float64.

    Raises
    ------
    BadInput
        Wrong shapes, NaN, or sigma that is not positive, naming the sample.

    References
    ----------
    docs/estimators.md, section on the torus.
    """
    batch, count, dim = f_t.shape
    if f_0.shape != f_t.shape:
        raise BadInput(f"f_t and f_0 must have one shape, got {f_t.shape} and {f_0.shape}")
    scale = torch.as_tensor(sigma, dtype=torch.float64, device=f_t.device)
    if scale.ndim > 1 or scale.shape not in ((), (batch,)):
        raise BadInput(f"sigma must be a number or have shape ({batch},), got {scale.shape}")
    scale = scale.expand(batch)
    if not f_t.is_cuda or check_values:
        _check_values(f_t, f_0, scale)
    real = torch.ones_like(f_t[..., 0], dtype=torch.bool) if mask is None else mask
    if permutations is None:
        images = f_0[:, None]
    else:
        index = permutations[..., None].expand(-1, -1, -1, dim)
        images = f_0[:, None].expand(-1, permutations.shape[1], -1, -1).gather(2, index)
    z = (f_t.double()[:, None] - images.double()).transpose(2, 3)
    num = images.shape[1]
    rows = (batch, num, dim)
    log_z, score = _translation_mean(
        z.reshape(-1, count),
        scale[:, None, None].expand(rows).reshape(-1),
        real[:, None, None].expand(*rows, count).reshape(-1, count),
    )
    log_z = log_z.reshape(rows).sum(-1)
    score = score.reshape(*rows, count).transpose(2, 3)
    if permutation_mask is None:
        order = torch.full((batch,), float(num), dtype=torch.float64, device=f_t.device)
    else:
        log_z = log_z.masked_fill(~permutation_mask, -math.inf)
        order = permutation_mask.sum(1).double()
    weights = torch.softmax(log_z, 1)
    mean = torch.einsum("bp,bpnd->bnd", weights, score) if num > 1 else score[:, 0]
    evidence = torch.logsumexp(log_z, 1) - torch.log(order)
    kind = f_t.dtype
    return TorusPosterior(mean.to(kind), evidence.to(kind), weights.to(kind))


def _check_values(f_t: Tensor, f_0: Tensor, sigma: Tensor) -> None:
    fine = torch.isfinite(f_t.sum() + f_0.sum() + sigma.sum())
    if len(sigma) == 0 or bool(fine & (sigma.amin() > 0)):
        return
    good = torch.isfinite(f_t).all((1, 2)) & torch.isfinite(f_0).all((1, 2))
    good &= torch.isfinite(sigma) & (sigma > 0)
    if not bool(good.all()):
        row = int((~good).nonzero()[0])
        raise BadInput(
            f"sample {row}: expected finite coordinates and sigma > 0, "
            f"got sigma = {float(sigma[row])} and coordinates {f_t[row].tolist()}"
        )


def _translation_mean(z: Tensor, sigma: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """log Z (R,) and mean score (R, N) of rows z (R, N); each row takes its own formula."""
    width = z.shape[1]
    if z.is_cuda:
        cuts = _cuts(z, sigma, real)
        safe = torch.clamp(sigma, min=SWITCH / math.sqrt(max(width, 1)))
        nodes = math.ceil(NODES / SWITCH * width)
        smooth = _trapezoid(z, safe, real, nodes, IMAGES[-1][0])
        small = sigma * torch.sqrt(real.sum(1).double()) <= SWITCH
        return (
            torch.where(small, cuts[0], smooth[0]),
            torch.where(small[:, None], cuts[1], smooth[1]),
        )
    spread = sigma * torch.sqrt(real.sum(1).double())
    log_z, score = torch.empty_like(sigma), torch.empty_like(z)
    small = spread <= SWITCH
    if bool(small.all()):
        return _cuts(z, sigma, real)
    rows = small.nonzero()[:, 0]
    if len(rows):
        log_z[rows], score[rows] = _cuts(z[rows], sigma[rows], real[rows])
    large = (~small).nonzero()[:, 0]
    needed = torch.ceil(NODES * real.sum(1).double()[large] / spread[large])
    low = 0.0
    for high in GROUPS:
        chosen = (needed > low) & (needed <= high)
        low = high
        rows = large[chosen]
        if len(rows) == 0:
            continue
        largest = float(sigma[rows].max())
        images = next((k for k, limit in IMAGES if largest <= limit), math.ceil(8 * largest))
        nodes = int(needed[chosen].max())
        log_z[rows], score[rows] = _trapezoid(z[rows], sigma[rows], real[rows], nodes, images)
    return log_z, score


def _normalise(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logsumexp and softmax over axis 1 with one exponential."""
    if logits.shape[1] == 0:
        return torch.zeros_like(logits.sum(1)), logits
    peak = logits.amax(1, keepdim=True)
    weights = torch.exp(logits - peak)
    total = weights.sum(1, keepdim=True)
    return (peak + torch.log(total))[:, 0], weights.div_(total)


def _cuts(z: Tensor, sigma: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Closed form over the n unwrappings that cut the circle between neighbours."""
    width = z.shape[1]
    n = real.sum(1).double().clamp(min=1)
    keys = torch.remainder(z, 1.0).masked_fill(~real, 2.0)
    sorted_z, order = torch.sort(keys, dim=1)
    j = torch.arange(width, dtype=z.dtype, device=z.device)
    present = j < n[:, None]
    sorted_z = sorted_z * present
    mean = sorted_z.sum(1) / n
    c = (sorted_z - mean[:, None]) * present
    power = (c * c).sum(1)
    before = torch.cumsum(c, 1) - c
    v = power[:, None] + 2 * before + j - j * j / n[:, None]
    logits = (-0.5 * v / sigma[:, None] ** 2).masked_fill(~present, -math.inf)
    log_sum, weights = _normalise(logits)
    shifted = (1.0 - torch.cumsum(weights, 1)) * present
    score = -(c + shifted - shifted.sum(1, keepdim=True) / n[:, None]) / sigma[:, None] ** 2
    variance = 2 * math.pi * sigma**2
    log_z = log_sum - 0.5 * n * torch.log(variance) + 0.5 * torch.log(variance / n)
    unsorted = torch.empty_like(score).scatter_(1, order, score * present)
    empty = real.sum(1) == 0
    return log_z.masked_fill(empty, 0.0), unsorted


def _trapezoid(
    z: Tensor, sigma: Tensor, real: Tensor, nodes: int, images: int
) -> tuple[Tensor, Tensor]:
    """Periodic trapezoid over the shift, the wrapped normal summed over images |k| <= images.

    Images are taken relative to the nearest one: exp(-k (k/2 +- d) / sigma^2), at most 1 for
    |d| <= 1/2, so nothing overflows and no density underflows.
    """
    tau = torch.arange(nodes, dtype=z.dtype, device=z.device) / nodes
    rate = (1.0 / sigma**2)[:, None]
    d = z.T[..., None] - tau
    d -= torch.round(d)
    total, moment = torch.ones_like(d), torch.zeros_like(d)
    for k in range(1, images + 1):
        after = torch.add(d, 0.5 * k).mul_(-k * rate).exp_()
        before = torch.sub(d, 0.5 * k).mul_(k * rate).exp_()
        total += after
        total += before
        moment.add_(after.sub_(before), alpha=k)
    moment.div_(total).add_(d)
    log_density = total.log_().addcmul_(d, d * rate, value=-0.5)
    logits = (log_density * real.T[..., None]).sum(0)
    log_sum, weights = _normalise(logits)
    mean = (moment.mul_(weights).sum(2) * -rate[:, 0]).T * real
    norm = real.sum(1) * torch.log(sigma * math.sqrt(2 * math.pi))
    return log_sum - math.log(nodes) - norm, mean


@final
class TorusOrbit(OrbitEstimator):
    """Exact mean of the score over translations, and over listed permutations of like atoms.

    Parameters
    ----------
    kernel : NoiseKernel
        A wrapped normal invariant under TorusTranslation.
    parametrization : Parametrization
        SCORE.

    Notes
    -----
    `info.ess` is the effective number of permutations; the shift has a continuum.
    """

    group: type[Group] | None = TorusTranslation
    densities = (Density.WRAPPED_NORMAL,)
    exact = True
    unbiased = True

    def __init__(self, kernel: NoiseKernel, *, parametrization: Parametrization) -> None:
        self.check(kernel)
        if parametrization is not Parametrization.SCORE:
            raise BadInput(f"TorusOrbit averages the score, not {parametrization.value}")
        self.kernel = kernel
        self.parametrization = parametrization

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
        """Return the exact mean score and its log evidence."""
        found = torus_posterior(
            x_t,
            x_0,
            self.kernel.schedule(t).sigma,
            mask=mask,
            permutations=None if context is None else context.permutations,
            permutation_mask=None if context is None else context.permutation_mask,
        )
        info = OrbitInfo(log_evidence=found.log_evidence)
        return OrbitTarget(found.mean_score, info)
