"""Checks of the inputs of `rotation_posterior`: shapes always, values where that is free."""

import torch

from orbitdiff.errors import BadInput
from orbitdiff.typing import Tensor

__all__ = ["check_numbers", "check_permutations", "check_precision", "check_shapes", "per_sample"]

FLOATS = (torch.float32, torch.float64)
ROW_SUM = 1e-5
"""Largest row sum of a precision, relative to its largest entry, that passes as rounding."""


def per_sample(name: str, value: float | Tensor, like: Tensor) -> Tensor:
    """Return a number, a tensor () or a tensor (B,) as float64 (B,).

    Raises
    ------
    BadInput
        Any other shape.
    """
    batch = like.shape[0]
    scale = torch.as_tensor(value, dtype=torch.float64, device=like.device)
    if scale.shape not in ((), (batch,)):
        raise BadInput(
            f"{name} must be a number or have shape ({batch},), got {tuple(scale.shape)}"
        )
    return scale.expand(batch)


def check_shapes(
    x_t: Tensor,
    x_0: Tensor,
    sigma: float | Tensor | None,
    precision: Tensor | None,
    mask: Tensor | None,
    log_prior: Tensor | None,
    permutations: Tensor | None,
    permutation_mask: Tensor | None,
) -> None:
    """Raise BadInput for shapes, dtypes or combinations that are not those of the signature."""
    if x_t.ndim != 3 or x_t.shape[-1] != 3:
        raise BadInput(f"expected x_t of shape (B, N, 3), got {tuple(x_t.shape)}")
    batch, count, _ = x_t.shape
    if x_0.ndim not in (3, 4) or (x_0.shape[0], *x_0.shape[-2:]) != (batch, count, 3):
        raise BadInput(
            f"expected x_0 of shape {(batch, count, 3)} or ({batch}, C, {count}, 3), "
            f"got {tuple(x_0.shape)}"
        )
    if x_0.ndim == 4 and x_0.shape[1] < 1:
        raise BadInput("expected at least one data point per sample, got C = 0")
    if x_t.dtype not in FLOATS or x_0.dtype != x_t.dtype:
        raise BadInput(f"expected float32 or float64 points, got {x_t.dtype} and {x_0.dtype}")
    if (sigma is None) == (precision is None):
        raise BadInput("give either sigma or precision, not both and not neither")
    if precision is not None:
        _expect("precision", precision, (batch, count, count), floating=True)
    if log_prior is not None:
        if x_0.ndim == 3:
            raise BadInput("log_prior needs several data points: x_0 of shape (B, C, N, 3)")
        _expect("log_prior", log_prior, (batch, x_0.shape[1]), floating=True)
    if mask is not None:
        _expect("mask", mask, (batch, count), dtype=torch.bool)
    if permutations is None:
        if permutation_mask is not None:
            raise BadInput("permutation_mask is given without permutations")
        return
    if permutations.ndim != 3 or permutations.shape[1] < 1:
        raise BadInput(f"expected permutations (B, P, N), got {tuple(permutations.shape)}")
    shape = (batch, permutations.shape[1], count)
    _expect("permutations", permutations, shape, dtype=torch.int64)
    if permutation_mask is not None:
        _expect("permutation_mask", permutation_mask, shape[:2], dtype=torch.bool)


def _expect(
    name: str,
    value: Tensor,
    shape: tuple[int, ...],
    *,
    dtype: torch.dtype | None = None,
    floating: bool = False,
) -> None:
    if value.shape != shape:
        raise BadInput(f"expected {name} of shape {shape}, got {tuple(value.shape)}")
    if (floating and not value.is_floating_point()) or (dtype is not None and value.dtype != dtype):
        raise BadInput(f"expected {name} of dtype {dtype or 'float'}, got {value.dtype}")


def check_numbers(
    x_t: Tensor, points: Tensor, alpha: Tensor, sigma: Tensor | None, log_prior: Tensor | None
) -> None:
    """Raise BadInput, naming the sample, for values no density has (this synchronises).

    Parameters
    ----------
    x_t : (B, N, 3)
    points : (B, C, N, 3)
    alpha, sigma : (B,)
    log_prior : (B, C) or None
    """
    _first(torch.isfinite(x_t).all((1, 2)), "finite coordinates x_t", x_t)
    _first(torch.isfinite(points).all((1, 2, 3)), "finite coordinates x_0", points)
    _first(torch.isfinite(alpha), "a finite alpha", alpha)
    if sigma is not None:
        _first(torch.isfinite(sigma) & (sigma > 0), "a finite sigma > 0", sigma)
    if log_prior is not None:
        good = (log_prior < torch.inf).all(1) & torch.isfinite(log_prior).any(1)
        _first(good, "log_prior below infinity and finite for one data point", log_prior)


def check_precision(precision: Tensor, factor_info: Tensor) -> None:
    """Raise BadInput unless each (N, N) is symmetric, with zero row sums, positive elsewhere.

    Parameters
    ----------
    precision : (B, N, N)
    factor_info : (B,)
        Zero where the Cholesky factorisation on the centred subspace exists.
    """
    _first(torch.isfinite(precision).all((1, 2)), "a finite precision", precision)
    limit = ROW_SUM * precision.abs().amax((1, 2))[:, None]
    sums = (precision.sum(2).abs() <= limit).all(1)
    _first(sums, "a precision with zero row sums (the pseudo-inverse of Sigma)", precision)
    symmetric = ((precision - precision.mT).abs() <= limit[..., None]).all((1, 2))
    _first(symmetric, "a symmetric precision", precision)
    _first(factor_info == 0, "a precision that is positive on the centred subspace", precision)


def check_permutations(permutations: Tensor, known: Tensor, real: Tensor) -> None:
    """Raise BadInput unless each known row is a permutation that keeps padding in place.

    Parameters
    ----------
    permutations : (B, P, N)
    known : (B, P) bool
    real : (B, N) bool
    """
    count = permutations.shape[-1]
    _first(known.any(1), "at least one true entry of permutation_mask", known)
    if permutations.numel() == 0:
        return
    least, most = permutations.aminmax()
    if int(least) < 0 or int(most) >= count:
        inside = ((permutations >= 0) & (permutations < count)).all((1, 2))
        _first(inside, f"indices in [0, {count})", permutations)
    hit = torch.zeros_like(permutations, dtype=torch.bool).scatter_(2, permutations, True)
    if not bool(hit.all()):
        _first((hit.all(2) | ~known).all(1), "rows that are permutations", permutations)
    if not bool(real.all()):
        kept = real[:, None].expand_as(permutations).gather(2, permutations) == real[:, None]
        _first((kept.all(2) | ~known).all(1), "permutations that keep padding", permutations)


def _first(good: Tensor, expected: str, found: Tensor) -> None:
    if bool(good.all()):
        return
    row = int((~good).nonzero()[0])
    raise BadInput(f"sample {row}: expected {expected}, got {found[row].tolist()}")
