"""Exact posterior of a rotation that produced noised points, by the matrix Fisher distribution.

For x_t = alpha R x_0 + noise with covariance Sigma (x) I_3 and R uniform, the density of x_t
depends on R through tr(F^T R) alone, F = alpha x_t^T Sigma^+ x_0, because a rotation leaves
tr(x_0^T Sigma^+ x_0) unchanged. Listed data points and permutations make a mixture of such
posteriors.
"""

import math
from typing import NamedTuple

import torch

from orbitdiff.orbit.rotation_checks import (
    check_numbers,
    check_permutations,
    check_precision,
    check_shapes,
    per_sample,
)
from orbitdiff.orbit.rotation_pruning import mixture_moments
from orbitdiff.typing import Bool, Float, Int, Tensor

__all__ = ["RotationPosterior", "rotation_posterior"]


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


class _Noise(NamedTuple):
    """The Gaussian density: precision times x_t, quadratic forms (B,), (B, P C), its log norm."""

    whitened: Tensor
    quadratic_t: Tensor
    quadratic_0: Tensor
    log_norm: Tensor


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
    images = _images(points, permutations)
    if deviation is not None:
        noise = _isotropic(noised, points, deviation, real, known.shape[1])
    else:
        assert precision is not None
        noise = _over_atoms(noised, images, precision, real, checked)
    cross = scale[:, None, None] * (noise.whitened.mT @ images)
    cross = cross.unflatten(2, (-1, 3)).transpose(1, 2)
    log_factor = (
        _log_prior(points, log_prior, known) - 0.5 * (scale**2)[:, None] * noise.quadratic_0
    )
    found = mixture_moments(cross, log_factor, reflections=reflections)
    logits = found.log_constant + log_factor
    weights = torch.softmax(logits, 1)
    mean = images @ (weights[..., None, None] * found.mean).mT.flatten(1, 2)
    evidence = torch.logsumexp(logits, 1) - 0.5 * noise.quadratic_t + noise.log_norm
    kind = x_t.dtype
    return RotationPosterior(
        mean.to(kind),
        found.mean[:, 0].to(kind) if weights.shape[1] == 1 else None,
        weights.unflatten(1, (known.shape[1], points.shape[1])).mT.to(kind),
        (weights * found.reflected).sum(1).to(kind),
        evidence.to(kind),
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


def _isotropic(
    noised: Tensor, points: Tensor, sigma: Tensor, real: Tensor, permutations: int
) -> _Noise:
    """Density with covariance sigma^2 I in 3n dimensions."""
    rate = sigma**-2
    return _Noise(
        rate[:, None, None] * noised,
        rate * noised.square().sum((1, 2)),
        (rate[:, None] * points.square().sum((2, 3))).repeat(1, permutations),
        1.5 * real.sum(1).double() * torch.log(rate / (2 * math.pi)),
    )


def _over_atoms(
    noised: Tensor, images: Tensor, precision: Tensor, real: Tensor, checked: bool
) -> _Noise:
    """Density with precision Sigma^+ (x) I_3 in the 3(n - 1) centred dimensions."""
    pairs = real[:, :, None] & real[:, None, :]
    matrix = precision.double().masked_fill(~pairs, 0.0)
    size = real.sum(1).clamp(min=1).double()
    # the mean direction and padding get eigenvalue one, so that det is the pseudo-determinant
    filled = matrix + pairs / size[:, None, None] + torch.diag_embed((~real).double())
    factor, info = torch.linalg.cholesky_ex(filled)
    if checked:
        check_precision(matrix, info)
    log_det = 2 * torch.log(torch.diagonal(factor, dim1=1, dim2=2)).sum(1)
    whitened = matrix @ noised
    return _Noise(
        whitened,
        (noised * whitened).sum((1, 2)),
        (images * (matrix @ images)).sum(1).unflatten(1, (-1, 3)).sum(-1),
        1.5 * (log_det - (size - 1) * math.log(2 * math.pi)),
    )
