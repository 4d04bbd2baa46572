"""Mean score over a shift that the atoms of a row share, on one periodic axis.

With z_i = f_t,i - f_0,i the mean over a uniform shift has two forms: a closed form over the n
cyclic cuts of the sorted z where sigma is at most 0.13 / sqrt(n), and the periodic trapezoid with
M = ceil(1.20 sqrt(n) / sigma) nodes above, whose relative error is below
2 exp(-2 pi^2 M^2 sigma^2 / n) = 1e-12 for any z.
"""

import math

import torch

from orbitdiff.kernels.wrapped_normal import IMAGES, images_needed, sum_images
from orbitdiff.typing import Tensor

__all__ = ["cuts", "translation_mean", "trapezoid"]

SWITCH = 0.13
"""Cuts where sigma sqrt(n) is at most this: neglected unwrappings weigh below 2e-11."""
NODES = 1.20
"""Trapezoid nodes per sqrt(n) / sigma, for a relative error of 1e-12."""
GROUPS = (10, 16, 26, 42, 68, 110, math.inf)
"""Rows are computed together up to these node counts."""
AT_ONCE = {False: 2**21, True: 2**27}
"""Terms (row, atom, node) of one pass on the CPU and on CUDA: 16 MB and 1 GB a tensor."""


def translation_mean(z: Tensor, sigma: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Log Z (R,) and mean score (R, N) of rows z (R, N); each row takes its own formula."""
    width = z.shape[1]
    if z.is_cuda:
        closed = cuts(z, sigma, real)
        safe = torch.clamp(sigma, min=SWITCH / math.sqrt(max(width, 1)))
        nodes = math.ceil(NODES / SWITCH * width)
        most = _rows_at_once(z, nodes)
        parts = [
            trapezoid(some, level, there, nodes, IMAGES[-1][0])
            for some, level, there in zip(
                z.split(most), safe.split(most), real.split(most), strict=True
            )
        ]
        smooth = torch.cat([log_z for log_z, _ in parts]), torch.cat([mean for _, mean in parts])
        small = sigma * torch.sqrt(real.sum(1).double()) <= SWITCH
        return (
            torch.where(small, closed[0], smooth[0]),
            torch.where(small[:, None], closed[1], smooth[1]),
        )
    spread = sigma * torch.sqrt(real.sum(1).double())
    log_z, score = torch.empty_like(sigma), torch.empty_like(z)
    small = spread <= SWITCH
    if bool(small.all()):
        return cuts(z, sigma, real)
    rows = small.nonzero()[:, 0]
    if len(rows):
        log_z[rows], score[rows] = cuts(z[rows], sigma[rows], real[rows])
    large = (~small).nonzero()[:, 0]
    needed = torch.ceil(NODES * real.sum(1).double()[large] / spread[large])
    low = 0.0
    for high in GROUPS:
        chosen = (needed > low) & (needed <= high)
        low = high
        rows = large[chosen]
        if len(rows) == 0:
            continue
        images = images_needed(float(sigma[rows].max()))
        nodes = int(needed[chosen].max())
        for part in rows.split(_rows_at_once(z, nodes)):
            log_z[part], score[part] = trapezoid(z[part], sigma[part], real[part], nodes, images)
    return log_z, score


def _rows_at_once(z: Tensor, nodes: int) -> int:
    return max(1, AT_ONCE[z.is_cuda] // max(1, z.shape[1] * nodes))


def _normalise(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logsumexp and softmax over axis 1 with one exponential."""
    if logits.shape[1] == 0:
        return torch.zeros_like(logits.sum(1)), logits
    peak = logits.amax(1, keepdim=True)
    weights = torch.exp(logits - peak)
    total = weights.sum(1, keepdim=True)
    return (peak + torch.log(total))[:, 0], weights.div_(total)


def cuts(z: Tensor, sigma: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Return log Z and the mean score in closed form, for sigma at most 0.13 / sqrt(n).

    Only the n unwrappings count that cut the circle between neighbours of the sorted z.

    Parameters
    ----------
    z : (R, N)
    sigma : (R,)
    real : (R, N) bool

    Returns
    -------
    tuple of tensors
        (R,) and (R, N).
    """
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


def trapezoid(
    z: Tensor, sigma: Tensor, real: Tensor, nodes: int, images: int
) -> tuple[Tensor, Tensor]:
    """Return log Z and the mean score by the periodic trapezoid over the shift.

    Parameters
    ----------
    z : (R, N)
    sigma : (R,)
    real : (R, N) bool
    nodes : int
        M; the relative error of Z is at most 2 exp(-2 pi^2 M^2 sigma^2 / n).
    images : int
        The wrapped normal is summed over |k| <= images.
    """
    tau = torch.arange(nodes, dtype=z.dtype, device=z.device) / nodes
    rate = (1.0 / sigma**2)[:, None]
    d = z.T[..., None] - tau
    d -= torch.round(d)
    total, moment = sum_images(d, rate, images)
    moment.div_(total).add_(d)
    log_density = total.log_().addcmul_(d, d * rate, value=-0.5)
    logits = (log_density * real.T[..., None]).sum(0)
    log_sum, weights = _normalise(logits)
    mean = (moment.mul_(weights).sum(2) * -rate[:, 0]).T * real
    norm = real.sum(1) * torch.log(sigma * math.sqrt(2 * math.pi))
    return log_sum - math.log(nodes) - norm, mean
