"""The harmonic prior: bonded atoms on springs, N(0, H^+ (x) I_3) with H a graph Laplacian."""

import math
from typing import final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.typing import Bool, Float, Tensor

__all__ = ["HarmonicPrior"]

FLAT = 1e-10
"""Modes below this share of the largest eigenvalue are free: the mean, and padding."""


@final
class HarmonicPrior:
    """Centred Gaussian over atoms with precision H, in the eigenvectors of H.

    Parameters
    ----------
    stiffness : (N, N) or (B, N, N)
        H: symmetric, zero row sums, positive on the centred points, 1 / angstrom^2.
    mask : (N,) or (B, N) bool, optional
        Real atoms.

    Attributes
    ----------
    variances : (..., N), float64
        Variance of each mode, angstrom^2; zero for the mean and padding.
    vectors : (..., N, N), float64
        Modes as columns; zero columns for the mean and padding.

    Raises
    ------
    BadInput
        Wrong shape, or a graph that is not connected, naming the sample.

    Notes
    -----
    The eigenvectors are found once, here. Methods act on points (B, ..., N, D): with H of one
    sample each, the first axis of the points is the batch.

    References
    ----------
    Jing et al. 2023 (EigenFold); Hassan et al. 2024 (ET-Flow).
    """

    def __init__(self, stiffness: Tensor, *, mask: Tensor | None = None) -> None:
        count = stiffness.shape[-1]
        if stiffness.ndim not in (2, 3) or stiffness.shape[-2] != count:
            raise BadInput(
                f"expected a stiffness (N, N) or (B, N, N), got {tuple(stiffness.shape)}"
            )
        real = stiffness.new_ones(stiffness.shape[:-1], dtype=torch.bool) if mask is None else mask
        if real.shape != stiffness.shape[:-1]:
            raise BadInput(
                f"expected a mask {tuple(stiffness.shape[:-1])}, got {tuple(real.shape)}"
            )
        pairs = real[..., :, None] & real[..., None, :]
        values, vectors = torch.linalg.eigh(stiffness.double().masked_fill(~pairs, 0.0))
        bound = values > FLAT * values.amax(-1, keepdim=True).clamp(min=math.ulp(0.0))
        _check_connected(bound.sum(-1), real.sum(-1))
        self.bound = bound
        self.variances = torch.where(bound, 1.0 / torch.where(bound, values, 1.0), 0.0)
        self.vectors = vectors * bound[..., None, :]

    @classmethod
    def from_bonds(
        cls,
        adjacency: Bool[Tensor, "*B N N"],
        *,
        spring: float = 1.0,
        mask: Bool[Tensor, "*B N"] | None = None,
    ) -> "HarmonicPrior":
        """Springs of one stiffness along the bonds: H = spring (degree - adjacency).

        Parameters
        ----------
        adjacency : (..., N, N) bool
            Symmetric, true for bonded pairs.
        spring : float
            Stiffness, 1 / angstrom^2.
        mask : (..., N) bool, optional
            Real atoms.
        """
        bonds = spring * adjacency.double()
        return cls(torch.diag_embed(bonds.sum(-1)) - bonds, mask=mask)

    @classmethod
    def isotropic(cls, mask: Bool[Tensor, "*B N"]) -> "HarmonicPrior":
        """Unit normal noise without its mean: H is the centring projector of the real atoms."""
        real = mask.double()
        size = real.sum(-1).clamp(min=1)[..., None, None]
        centring = torch.diag_embed(real) - real[..., :, None] * real[..., None, :] / size
        return cls(centring, mask=mask)

    def modes(self, leading: int) -> tuple[Tensor, Tensor, Tensor]:
        """Variances, vectors and which modes are bound, with `leading` axes before those of atoms.

        Axes of length one follow the batch axis.
        """
        parts = self.variances, self.vectors, self.bound
        if self.vectors.ndim == 2:
            return parts
        for _ in range(leading - 1):
            parts = parts[0][:, None], parts[1][:, None], parts[2][:, None]
        return parts

    def scaled(self, x: Float[Tensor, "*#B N D"], factor: Float[Tensor, "*#B N"]) -> Tensor:
        """Return V diag(factor) V^T x in float64: each mode of x times its factor."""
        vectors = self.modes(x.ndim - 2)[1].to(x.device)
        return vectors @ (factor[..., None] * (vectors.mT @ x.double()))

    def log_density(self, x: Float[Tensor, "*#B N D"], variances: Float[Tensor, "*#B N"]) -> Tensor:
        """Log density of centred points whose modes have these variances.

        Parameters
        ----------
        x : (..., N, D)
            The mean is left out.
        variances : (..., N)
            Of each mode; those of free modes do not count.

        Returns
        -------
        (...,), float64
            In the D (n - 1) dimensions of centred points.
        """
        _, vectors, bound = (part.to(x.device) for part in self.modes(x.ndim - 2))
        safe = torch.where(bound, variances, 1.0)
        square = (vectors.mT @ x.double()).square().sum(-1) / safe
        norm = x.shape[-1] * torch.log(2 * math.pi * safe) * bound
        return -0.5 * (square + norm).sum(-1)

    def log_prob(self, x: Float[Tensor, "*#B N D"]) -> Tensor:
        """Log density of the prior at centred points x."""
        return self.log_density(x, self.modes(x.ndim - 2)[0].to(x.device))

    def sample(
        self, like: Float[Tensor, "*#B N D"], *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw a centred sample of the shape, dtype and device of `like`."""
        where = generator.device if generator is not None else like.device
        draw = torch.randn(like.shape, generator=generator, dtype=torch.float64, device=where)
        deviation = self.modes(like.ndim - 2)[0].to(like.device).sqrt()
        return self.scaled(draw.to(like.device), deviation).to(like.dtype)

    def centred(self, x: Float[Tensor, "*#B N D"]) -> Tensor:
        """Return x without its mean and zero in padding, in float64."""
        return self.scaled(x, self.modes(x.ndim - 2)[2].to(x.device).double())


def _check_connected(bound: Tensor, atoms: Tensor) -> None:
    good = bound == (atoms - 1).clamp(min=0)
    if bool(good.all()):
        return
    row = int((~good).flatten().nonzero()[0])
    free = int((atoms - bound).flatten()[row])
    raise BadInput(
        f"sample {row}: expected a connected graph of bonds, whose only free mode is the mean, "
        f"got {free} free modes; give each fragment its own sample"
    )
