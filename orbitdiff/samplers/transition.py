"""One reverse step of a Gaussian or wrapped-normal kernel, and what the network says at t.

Both kernels have x_t = alpha x_0 + sigma eps (on the torus: modulo 1, alpha = 1). With the
posterior mean D of x_0 and eps = (x_t - alpha_t D) / sigma_t, the step from t to s is
    x_s = alpha_s D + sqrt(sigma_s^2 - v) eps + sqrt(v) z,
    v = eta^2 sigma_s^2 (1 - (alpha_t sigma_s / (alpha_s sigma_t))^2),
DDPM's ancestral step and the predictor of variance-exploding models for eta = 1, DDIM for
eta = 0. On the torus D = x_t + sigma^2 score is kept as a lift, x_s is taken modulo 1.
"""

from typing import NamedTuple

import torch

from orbitdiff.kernels.base import Density, NoiseKernel, Parametrization, expand
from orbitdiff.typing import Float, PerSample, Points, Tensor

__all__ = ["Levels", "clean_data", "curvature", "levels", "noise_ratio", "reverse_step"]


class Levels(NamedTuple):
    """alpha and sigma at one time, (B, 1, 1) each."""

    alpha: Tensor
    sigma: Tensor


def levels(kernel: NoiseKernel, t: PerSample | None, *, like: Points) -> Levels:
    """Signal and noise level at t; None stands for clean data, alpha = 1 and sigma = 0.

    Parameters
    ----------
    kernel : NoiseKernel
    t : (B,) or None
    like : (B, N, D)
        Gives dtype and device.
    """
    if t is None:
        one = torch.ones(like.shape[0], 1, 1, dtype=like.dtype, device=like.device)
        return Levels(one, torch.zeros_like(one))
    alpha, sigma = kernel.schedule(t)
    return Levels(expand(alpha).to(like.dtype), expand(sigma).to(like.dtype))


def clean_data(
    kernel: NoiseKernel,
    value: Float[Tensor, "B N D"],
    parametrization: Parametrization,
    x_t: Float[Tensor, "B N D"],
    t: PerSample,
) -> Tensor:
    """Posterior mean D of x_0; on the torus the lift x_t + sigma^2 score.

    Parameters
    ----------
    kernel : NoiseKernel
    value : (B, N, D)
        What the network says in this parametrization, scale multiplied in.
    parametrization : Parametrization
    x_t : (B, N, D)
    t : (B,)
    """
    if kernel.density is Density.WRAPPED_NORMAL:
        score = kernel.convert(value, parametrization, Parametrization.SCORE, x_t, t)
        return x_t + levels(kernel, t, like=x_t).sigma ** 2 * score
    return kernel.convert(value, parametrization, Parametrization.DATA, x_t, t)


def reverse_step(
    x_t: Float[Tensor, "B N D"],
    data: Float[Tensor, "B N D"],
    now: Levels,
    then: Levels,
    *,
    eta: float = 0.0,
    noise: Tensor | None = None,
) -> Tensor:
    """x_s given x_t and the posterior mean of x_0 (no modulo; the caller wraps).

    Parameters
    ----------
    x_t, data : (B, N, D)
    now, then : Levels
        At t and at s < t.
    eta : float
        Share of the ancestral noise, 0 to 1.
    noise : (B, N, D), optional
        Standard normal z, needed for eta > 0.
    """
    ratio = now.alpha * then.sigma / (then.alpha * now.sigma)
    variance = eta**2 * then.sigma**2 * (1 - ratio**2).clamp(min=0)
    kept = torch.sqrt((then.sigma**2 - variance).clamp(min=0)) / now.sigma
    x_s = then.alpha * data + kept * (x_t - now.alpha * data)
    if noise is not None and eta > 0:
        x_s = x_s + torch.sqrt(variance) * noise
    return x_s


def noise_ratio(now: Levels, then: Levels) -> Tensor:
    """Rho = s_t / s_s >= 1 with s = sigma / alpha, float64 so that tiny steps keep their digits.

    Parameters
    ----------
    now, then : Levels
        At t and at s < t.
    """
    return (now.sigma.double() * then.alpha) / (now.alpha.double() * then.sigma)


def curvature(ratio: Tensor) -> Tensor:
    """1 - log(rho) / (rho - 1), the weight of dD/ds in an exact step with D linear in s.

    With u = alpha / sigma the probability-flow ODE is d(x / sigma) / du = D; integrating
    D = D_t + c (s - s_t) from u to rho u is a DDIM step with D_t - c s_t (1 - log rho / (rho - 1))
    in place of D_t.

    Parameters
    ----------
    ratio : tensor
        rho > 1.
    """
    step = (ratio - 1).clamp(min=1e-9)
    return torch.where(step < 1e-4, step / 2, 1 - torch.log1p(step) / step)
