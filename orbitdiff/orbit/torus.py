"""Exact orbit mean over translations of the torus (and listed permutations of like atoms).

Axes are independent given the permutation; `orbitdiff.orbit.circle` averages one axis.
"""

import math
from typing import NamedTuple, final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.base import Group
from orbitdiff.groups.torus import TorusTranslation
from orbitdiff.kernels.base import Density, NoiseKernel, Parametrization
from orbitdiff.orbit.base import OrbitContext, OrbitEstimator, OrbitInfo, OrbitTarget
from orbitdiff.orbit.circle import translation_mean
from orbitdiff.typing import Bool, Float, Int, Mask, PerSample, Points, Tensor

__all__ = ["TorusOrbit", "TorusPosterior", "torus_posterior"]

AT_ONCE = {False: 2**21, True: 2**27}
"""Coordinates of listed images of one pass on the CPU and on CUDA: 16 MB and 1 GB a tensor."""


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
    _check_shapes(f_t, f_0, mask, permutations, permutation_mask)
    batch, count, dim = f_t.shape
    scale = torch.as_tensor(sigma, dtype=torch.float64, device=f_t.device)
    if scale.ndim > 1 or scale.shape not in ((), (batch,)):
        raise BadInput(f"sigma must be a number or have shape ({batch},), got {scale.shape}")
    scale = scale.expand(batch)
    if not f_t.is_cuda or check_values:
        _check_values(f_t, f_0, scale)
    real = torch.ones_like(f_t[..., 0], dtype=torch.bool) if mask is None else mask
    num = 1 if permutations is None else permutations.shape[1]
    size = max(1, AT_ONCE[f_t.is_cuda] // max(1, num * count * dim))
    parts = []
    for start in range(0, max(1, batch), size):
        rows = slice(start, start + size)
        lists = None if permutations is None else permutations[rows]
        known = None if permutation_mask is None else permutation_mask[rows]
        parts.append(_mixture(f_t[rows], f_0[rows], scale[rows], real[rows], lists, known))
    mean, evidence, weights = (torch.cat(part) for part in zip(*parts, strict=True))
    kind = f_t.dtype
    return TorusPosterior(mean.to(kind), evidence.to(kind), weights.to(kind))


def _mixture(
    f_t: Tensor,
    f_0: Tensor,
    scale: Tensor,
    real: Tensor,
    permutations: Tensor | None,
    permutation_mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean score, log evidence and weights of the permutations, in float64."""
    batch, count, dim = f_t.shape
    if permutations is None:
        images = f_0[:, None]
    else:
        index = permutations[..., None].expand(-1, -1, -1, dim)
        images = f_0[:, None].expand(-1, permutations.shape[1], -1, -1).gather(2, index)
    z = (f_t.double()[:, None] - images.double()).transpose(2, 3)
    num = images.shape[1]
    rows = (batch, num, dim)
    log_z, score = translation_mean(
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
    return mean, evidence, weights


def _check_shapes(
    f_t: Tensor,
    f_0: Tensor,
    mask: Tensor | None,
    permutations: Tensor | None,
    permutation_mask: Tensor | None,
) -> None:
    if f_t.ndim != 3 or f_0.shape != f_t.shape:
        raise BadInput(
            f"expected f_t and f_0 of one shape (B, N, D), got {tuple(f_t.shape)} and "
            f"{tuple(f_0.shape)}"
        )
    if f_t.dtype not in (torch.float32, torch.float64) or f_0.dtype != f_t.dtype:
        raise BadInput(f"expected float32 or float64 points, got {f_t.dtype} and {f_0.dtype}")
    batch, count, _ = f_t.shape
    if mask is not None and (mask.shape != (batch, count) or mask.dtype != torch.bool):
        raise BadInput(
            f"expected a bool mask {(batch, count)}, got {mask.dtype} {tuple(mask.shape)}"
        )
    if permutations is None:
        if permutation_mask is not None:
            raise BadInput("permutation_mask is given without permutations")
        return
    if permutations.ndim != 3 or permutations.shape[::2] != (batch, count):
        raise BadInput(
            f"expected permutations ({batch}, P, {count}), got {tuple(permutations.shape)}"
        )
    if permutations.dtype != torch.int64 or permutations.shape[1] < 1:
        raise BadInput(f"expected at least one int64 permutation, got {permutations.dtype}")
    known = permutation_mask
    if known is not None and (known.shape != permutations.shape[:2] or known.dtype != torch.bool):
        raise BadInput(
            f"expected a bool permutation_mask {tuple(permutations.shape[:2])}, got "
            f"{known.dtype} {tuple(known.shape)}"
        )


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
    `info.ess` and `info.max_weight` are those of the listed permutations, None without any:
    the shifts are a continuum.
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
        if context is not None and context.permutations is not None:
            info = info._replace(
                ess=1.0 / (found.weights**2).sum(1), max_weight=found.weights.amax(1)
            )
        return OrbitTarget(found.mean_score, info)
