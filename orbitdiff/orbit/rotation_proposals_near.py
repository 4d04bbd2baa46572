"""Rotations drawn near the posterior: around its mode, or around the true element."""

import math
from collections.abc import Iterator, Sequence
from typing import final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.quaternion import davenport, quaternion_eigen, to_rotation
from orbitdiff.orbit.rotation_proposals import RotationDraws, RotationProposal
from orbitdiff.typing import Tensor

__all__ = ["LaplaceRotations", "WrappedNormalRotations"]

NEWTON_STEPS = 8
"""Steps for the width of the envelope; any width gives a valid proposal."""
WIDEST = 1.0
"""Largest angle scale, radians, of a wrapped normal: its density is then at least 0.09 Haar."""
TURNS = (-1, 0, 1)
"""Full turns that count in its density; beyond the next one it weighs below 1e-8."""


@final
class LaplaceRotations(RotationProposal):
    """Quaternions from the angular central Gaussian that envelops exp(q^T K q).

    q(y) = det(Omega)^(1/2) (y^T Omega y)^(-2) in the eigenvectors of K, with
    Omega_j = 1 + 2 delta_j / b and sum_j 1 / (b + 2 delta_j) = 1: at small noise the Laplace
    approximation around the mode with heavier tails, at large noise the Haar measure.

    Notes
    -----
    Density and target are even in each coordinate y_j, so each draw stands for its eight
    images under changes of sign, which costs nothing.

    References
    ----------
    Kent, Ganeiban, Mardia, arXiv 1310.8110 (the envelope of a Bingham distribution).
    """

    independent = True

    def draws(
        self,
        cross: Tensor,
        gram: Tensor,
        sizes: Sequence[int],
        *,
        generator: torch.Generator | None,
    ) -> Iterator[RotationDraws]:
        """Yield draws in the eigenvectors of K."""
        gaps, vectors, omega, top = _envelope(cross)
        for size in sizes:
            normal = _normal((len(cross), size, 4), cross, generator)
            squares = normal.square() / omega[:, None]
            squares = squares / squares.sum(-1, keepdim=True)
            exponent = top[:, None] - (squares * gaps[:, None]).sum(-1)
            log_q = _log_angular(squares, omega[:, None])

            def mean(weights: Tensor, squares: Tensor = squares) -> Tensor:
                moment = (weights[:, None] @ squares)[:, 0]
                return to_rotation((vectors * moment[:, None]) @ vectors.mT)

            yield RotationDraws(exponent - log_q, mean)

    def log_density_of_identity(self, cross: Tensor, gram: Tensor) -> Tensor:
        """Log q at the quaternion (1, 0, 0, 0)."""
        _, vectors, omega, _ = _envelope(cross)
        return _log_angular(vectors[:, 0].square(), omega)


def _envelope(cross: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gaps (B, 4), eigenvectors (B, 4, 4), Omega (B, 4) and the largest eigenvalue (B,)."""
    values, vectors = quaternion_eigen(cross)
    top = values.amax(-1)
    gaps = (top[:, None] - values).clamp(min=0)
    width = torch.ones_like(top)[:, None]
    for _ in range(NEWTON_STEPS):
        inverse = 1 / (width + 2 * gaps)
        excess = inverse.sum(-1, keepdim=True) - 1
        width = width + excess / inverse.square().sum(-1, keepdim=True)
    return gaps, vectors, 1 + 2 * gaps / width, top


def _log_angular(squares: Tensor, omega: Tensor) -> Tensor:
    """Log density of squared coordinates (..., 4) under the angular central Gaussian."""
    return 0.5 * torch.log(omega).sum(-1) - 2 * torch.log((squares * omega).sum(-1))


@final
class WrappedNormalRotations(RotationProposal):
    """Rotations exp(v) around the element that made x_t, v ~ N(0, s^2 I_3).

    s = C / sqrt(smallest sum of two eigenvalues of alpha^2 x_0^T Sigma^+ x_0), at most 1 radian:
    C times the standard deviation of the posterior about its widest axis.

    Parameters
    ----------
    spread : float
        C (published for translations: 2).

    Notes
    -----
    The proposal depends on the true element, so that the true one may not join without bias;
    `LaplaceRotations` is centred on the mode and has none.
    """

    independent = False
    numbers = 80

    def __init__(self, spread: float = 2.0) -> None:
        if not spread > 0:
            raise BadInput(f"spread must be positive, got {spread}")
        self.spread = spread

    def _scale(self, gram: Tensor) -> Tensor:
        values = torch.linalg.eigvalsh(gram)
        pair = (values[:, 0] + values[:, 1]).clamp(min=(self.spread / WIDEST) ** 2)
        return self.spread / torch.sqrt(pair)

    def draws(
        self,
        cross: Tensor,
        gram: Tensor,
        sizes: Sequence[int],
        *,
        generator: torch.Generator | None,
    ) -> Iterator[RotationDraws]:
        """Yield rotations by their own vectors."""
        scale = self._scale(gram)[:, None]
        form = davenport(cross).flatten(1)[:, :, None]
        for size in sizes:
            vector = scale[..., None] * _normal((len(cross), size, 3), cross, generator)
            angle = vector.norm(dim=-1)
            # sin(angle / 2) / angle, finite at zero
            ratio = 0.5 * torch.sinc(angle / (2 * math.pi))
            quaternion = torch.cat([torch.cos(angle / 2)[..., None], ratio[..., None] * vector], -1)
            moment = (quaternion[..., :, None] * quaternion[..., None, :]).flatten(2)

            def mean(weights: Tensor, moment: Tensor = moment) -> Tensor:
                return to_rotation((weights[:, None] @ moment)[:, 0].unflatten(1, (4, 4)))

            yield RotationDraws((moment @ form)[..., 0] - _log_wrapped(angle, scale), mean)

    def log_density_of_identity(self, cross: Tensor, gram: Tensor) -> Tensor:
        """Log q at no rotation."""
        scale = self._scale(gram)
        return _log_wrapped(torch.zeros_like(scale), scale)


def _log_wrapped(angle: Tensor, scale: Tensor) -> Tensor:
    """Log density of exp(v) relative to Haar: over full turns, N(v_k) 4 pi^2 |v_k|^2 / (1 - cos).

    The Haar measure in the vector v is (1 - cos |v|) / (4 pi^2 |v|^2) dv.
    """
    turns = 2 * math.pi * torch.tensor(TURNS, dtype=angle.dtype, device=angle.device)
    lifted = (angle - 2 * math.pi * torch.round(angle / (2 * math.pi)))[..., None] + turns
    # sin^2(angle / 2) is the same for all turns; sinc keeps the turn 0 finite at angle 0
    half = torch.sin(angle / 2).square()[..., None]
    tiny = half < 1e-20
    ratio = torch.where(tiny, 4.0, lifted.square() / torch.where(tiny, 1.0, half))
    # at angle zero the other turns have a density without bound on a set of measure zero
    ratio = torch.where(tiny & (turns != 0), 0.0, ratio)
    terms = torch.log(2 * math.pi**2 * ratio) - 0.5 * (lifted / scale[..., None]) ** 2
    return torch.logsumexp(terms, -1) - 1.5 * torch.log(2 * math.pi * scale**2)


def _normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    where = generator.device if generator is not None else like.device
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=where).to(like.device)
