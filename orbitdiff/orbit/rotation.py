"""Exact posterior of a rotation that produced noised points, by the matrix Fisher distribution.

For x_t = alpha R x_0 + noise with covariance Sigma (x) I_3 and R uniform, the density of x_t
depends on R through tr(F^T R) alone, F = alpha x_t^T Sigma^+ x_0, because a rotation leaves
tr(x_0^T Sigma^+ x_0) unchanged. Listed data points and permutations make a mixture of such
posteriors.
"""

from typing import NamedTuple

import torch

from orbitdiff.orbit.noise_density import NoiseDensity, noise_density
from orbitdiff.orbit.rotation_checks import (
    check_numbers,
    check_permutations,
    check_shapes,
    per_sample,
)
from orbitdiff.orbit.rotation_pruning import mixture_moments
from orbitdiff.typing import Bool, Float, Int, Tensor

__all__ = ["RotationPosterior", "rotation_posterior"]

AT_ONCE = {False: 2**21, True: 2**27}
"""Coordinates of listed images of one pass on the CPU and on CUDA: 16 MB and 1 GB."""


class RotationPosterior(NamedTuple):
    """Posterior means over the orbit, in the dtype of the points.

    Attributes
    ----------
    mean_x0 : (B, N, 3), E[g x_0 | x_t]
    mean_rotation : (B, 3, 3), E[g] where there is one component (C = P = 1), else None
    weights : (B, C, P), posterior of each data point and permutation
    reflection_probability : (B,), P(det g = -1 | x_t), zero for SO(3)
    log_evidence : (B,), log of the average of the density of x_t over group and prior
    """

    mean_x0: Tensor
    mean_rotation: Tensor | None
    weights: Tensor
    reflection_probability: Tensor
    log_evidence: Tensor


@torch.no_grad()
def rotation_posterior(
    x_t: Float[Tensor, "B N 3"],
    x_0: Float[Tensor, "B N 3"] | Float[Tensor, "B C N 3"],
    alpha: float | Tensor,
    sigma: float | Tensor | None = None,
    *,
    precision: Float[Tensor, "B N N"] | None = None,
    mask: Bool[Tensor, "B N"] | None = None,
    log_prior: Float[Tensor, "B C"] | None = None,
    permutations: Int[Tensor, "B P N"] | None = None,
    permutation_mask: Bool[Tensor, "B P"] | None = None,
    reflections: bool = False,
    check_values: bool = False,
) -> RotationPosterior:
    """Exact posterior mean of g x_0 for x_t = alpha g x_0 + noise, g uniform on SO(3) or O(3).

    E[g x_0 | x_t] = sum_k w_k x_k E[g | F_k]^T, F_k = alpha x_t^T Sigma^+ x_k,
    w_k prop p_k c(F_k) exp(-alpha^2 tr(x_k^T Sigma^+ x_k) / 2) over data points and permutations.

    Parameters
    ----------
    x_t : (B, N, 3)
        Noised points, angstrom; rows are points. Need not be centred.
    x_0 : (B, N, 3) or (B, C, N, 3)
        Clean points, angstrom, used as given: the group acts about the origin. C data points
        (conformers) share the mean.
    alpha : float, or tensor () or (B,)
        Signal scale.
    sigma : float, or tensor () or (B,), optional
        Isotropic standard deviation, angstrom.
    precision : (B, N, N), optional
        Instead of sigma: Sigma^+ of the covariance Sigma (x) I_3, 1 / angstrom^2, with zero
        row sums.
    mask : (B, N) bool, optional
        Real atoms.
    log_prior : (B, C), optional
        Log prior of the data points up to a constant; -inf for padding. Default uniform.
    permutations : (B, P, N) long, optional
        The k-th image of x_0 is x_0[permutations[k]]. A subgroup, or a random subset that
        contains the true element.
    permutation_mask : (B, P) bool, optional
        Real entries of `permutations`.
    reflections : bool
        Average over O(3). Chiral data need SO(3): O(3) mixes enantiomers.
    check_values : bool
        Check values on CUDA too (this synchronises); on the CPU always done.

    Returns
    -------
    RotationPosterior
        In the dtype of x_t; the inside is float64. The evidence is that of the density in 3n
        dimensions, n real atoms, with `precision` of that in the 3(n - 1) of the centred
        subspace.

    Raises
    ------
    BadInput
        Wrong shapes or dtypes; NaN, sigma that is not positive, a precision that is none, or
        index lists that are no permutations, naming the sample.

    References
    ----------
    Downs 1972; Mardia and Jupp, Directional Statistics, section 13.2; `orbit.matrix_fisher`.
    """
    check_shapes(x_t, x_0, sigma, precision, mask, log_prior, permutations, permutation_mask)
    real = torch.ones_like(x_t[..., 0], dtype=torch.bool) if mask is None else mask
    noised = x_t.double().masked_fill(~real[..., None], 0.0)
    points = (x_0 if x_0.ndim == 4 else x_0[:, None]).double()
    points = points.masked_fill(~real[:, None, :, None], 0.0)
    scale = per_sample("alpha", alpha, x_t)
    deviation = None if sigma is None else per_sample("sigma", sigma, x_t)
    checked = check_values or not x_t.is_cuda
    if checked:
        check_numbers(noised, points, scale, deviation, log_prior)
    if permutations is None:
        known = torch.ones(len(x_t), 1, dtype=torch.bool, device=x_t.device)
    else:
        listed = torch.ones_like(permutations[..., 0], dtype=torch.bool)
        known = listed if permutation_mask is None else permutation_mask
        if checked:
            check_permutations(permutations, known, real)
    density = noise_density(
        noised, points, real, sigma=deviation, precision=precision, checked=checked
    )
    prior = _log_prior(points, log_prior, known)
    size = max(1, AT_ONCE[x_t.is_cuda] // max(1, known.shape[1] * points[0:1].numel()))
    parts = []
    for start in range(0, max(1, len(x_t)), size):
        rows = slice(start, start + size)
        lists = None if permutations is None else permutations[rows]
        some = density.rows(rows)
        parts.append(_mixture(points[rows], lists, scale[rows], some, prior[rows], reflections))
    mean, rotation, weights, reflected, evidence = (
        torch.cat(part).to(x_t.dtype) for part in zip(*parts, strict=True)
    )
    return RotationPosterior(
        mean,
        rotation if weights.shape[1] == 1 else None,
        weights.unflatten(1, (known.shape[1], points.shape[1])).mT,
        reflected,
        evidence,
    )


def _mixture(
    points: Tensor,
    permutations: Tensor | None,
    scale: Tensor,
    density: NoiseDensity,
    log_prior: Tensor,
    reflections: bool,
) -> tuple[Tensor, ...]:
    """Mean, rotation of the first component, weights (B, P C), P(reflection), log evidence."""
    images = _images(points, permutations)
    if permutations is None:
        quadratic = density.quadratic_0
    elif density.precision is None:
        quadratic = density.quadratic_0.repeat(1, permutations.shape[1])
    else:
        # a permutation need not commute with the precision
        quadratic = (images * (density.precision @ images)).sum(1).unflatten(1, (-1, 3)).sum(-1)
    cross = scale[:, None, None] * (density.whitened.mT @ images)
    cross = cross.unflatten(2, (-1, 3)).transpose(1, 2)
    log_factor = log_prior - 0.5 * (scale**2)[:, None] * quadratic
    found = mixture_moments(cross, log_factor, reflections=reflections)
    logits = found.log_constant + log_factor
    weights = torch.softmax(logits, 1)
    return (
        images @ (weights[..., None, None] * found.mean).mT.flatten(1, 2),
        found.mean[:, 0],
        weights,
        (weights * found.reflected).sum(1),
        torch.logsumexp(logits, 1) - 0.5 * density.quadratic_t + density.log_norm,
    )


def _images(points: Tensor, permutations: Tensor | None) -> Tensor:
    """Images of points (B, C, N, 3) as columns (B, N, P C 3): two matrix products use them all."""
    rows = points.transpose(1, 2).flatten(2)
    if permutations is None:
        return rows
    count = rows.shape[1]
    first = count * torch.arange(len(rows), device=rows.device)
    place = (permutations.mT + first[:, None, None]).flatten()
    found = rows.flatten(0, 1).index_select(0, place)
    return found.view(len(rows), count, permutations.shape[1] * rows.shape[2])


def _log_prior(points: Tensor, log_prior: Tensor | None, known: Tensor) -> Tensor:
    """Normalised log prior of permutations and data points, (B, P C)."""
    if log_prior is None:
        log_prior = torch.zeros_like(points[:, :, 0, 0])
    listed = torch.where(known, 0.0, -torch.inf).double()
    data = torch.log_softmax(log_prior.double(), 1)
    return (data[:, None] + torch.log_softmax(listed, 1)[:, :, None]).flatten(1)
