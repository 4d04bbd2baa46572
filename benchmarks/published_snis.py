"""SNIS over cell shifts written plainly, as the published DiffCSP code does it, for comparison.

Joint three-dimensional shifts, wrapped normals by 21 images |k| <= 10, weights and scores formed
for every shift, chunked over shifts so that it fits in memory. Nothing of it is used elsewhere.
"""

import math

import torch

IMAGES = 10


def wrapped_normal(z, sigma):
    """Density up to its norm, a loop over images as DiffCSP writes it."""
    total = 0
    for k in range(-IMAGES, IMAGES + 1):
        total += torch.exp(-((z + k) ** 2) / 2 / sigma**2)
    return total


def score_wrapped_normal(z, sigma):
    total = 0
    for k in range(-IMAGES, IMAGES + 1):
        total += (z + k) / sigma**2 * torch.exp(-((z + k) ** 2) / 2 / sigma**2)
    return -total / wrapped_normal(z, sigma)


def published_snis(x_t, x_0, sigma, *, num_samples, proposal, spread=2.0, chunk=50, generator=None):
    """Posterior mean of the score (B, N, 3), first shift zero, weights joint over the axes."""
    shape = (len(x_0), num_samples, 3)
    wide = sigma[:, None, None]
    if proposal == "uniform":
        shifts = torch.rand(shape, generator=generator, dtype=x_0.dtype)
    else:
        shifts = spread * wide * torch.randn(shape, generator=generator, dtype=x_0.dtype)
    shifts[:, 0] = 0.0
    log_w, scores = [], []
    narrow = sigma[:, None, None, None]
    for part in shifts.split(chunk, 1):
        z = x_t[:, None] - x_0[:, None] - part[:, :, None]
        z = z - torch.round(z)
        weight = torch.log(wrapped_normal(z, narrow)).sum((-2, -1))
        if proposal != "uniform":
            weight = weight - torch.log(wrapped_normal(part, spread * wide)).sum(-1)
        log_w.append(weight)
        scores.append(score_wrapped_normal(z, narrow))
    weights = torch.softmax(torch.cat(log_w, 1), 1)
    return torch.einsum("bk,bknd->bnd", weights, torch.nan_to_num(torch.cat(scores, 1)))


def draws_as_training(batch, atoms, generator):
    """Fractional coordinates, shifted and noised, t uniform and sigma geometric 0.005 to 0.5."""
    t = torch.rand(batch, generator=generator)
    sigma = 0.005 * torch.exp(t * math.log(100.0))
    x_0 = torch.rand(batch, atoms, 3, generator=generator)
    noise = torch.randn(batch, atoms, 3, generator=generator)
    return (x_0 + sigma[:, None, None] * noise) % 1.0, x_0, t, sigma
