"""Where sampled group elements come from, and with which density."""

import math
from typing import NamedTuple, Protocol, final, runtime_checkable

import torch

from orbitdiff.errors import BadInput, IncompatibleKernel
from orbitdiff.groups.base import Group
from orbitdiff.groups.torus import wrap
from orbitdiff.kernels.base import Density, NoiseKernel
from orbitdiff.kernels.wrapped_normal import wrapped_normal
from orbitdiff.typing import PerSample, Points, Tensor

__all__ = ["AroundTruth", "AroundXt", "GroupSamples", "Haar", "Proposal"]


WIDE = 0.45
"""Standard deviation above which three Fourier terms of a wrapped normal suffice."""


class GroupSamples(NamedTuple):
    """Elements (B, K, *element_shape) and their log density by block (B, K, A) under q."""

    elements: Tensor
    log_q: Tensor


@runtime_checkable
class Proposal(Protocol):
    """A density q over the group, absolutely continuous to the Haar measure.

    Attributes
    ----------
    independent : bool
        True where, given x_t and the orbit, the drawn images g x_0 do not depend on which of
        them made x_t: then the true element may join them without bias (i-SIR).
    """

    independent: bool

    def draw(
        self,
        num: int,
        x_t: Points,
        x_0: Points,
        t: PerSample,
        mask: Tensor,
        *,
        generator: torch.Generator | None,
    ) -> GroupSamples:
        """Draw `num` elements per sample; the density is relative to the Haar measure."""
        ...

    def log_density_of_identity(
        self, x_t: Points, x_0: Points, t: PerSample, mask: Tensor
    ) -> Tensor:
        """Log q(identity) by block, (B, A): the true element's own density."""
        ...


def _uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    where = generator.device if generator is not None else like.device
    return torch.rand(shape, generator=generator, dtype=like.dtype, device=where).to(like.device)


def _normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    where = generator.device if generator is not None else like.device
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=where).to(like.device)


@final
class Haar:
    """The uniform proposal: log q = 0.

    Parameters
    ----------
    group : Group
    """

    independent = True

    def __init__(self, group: Group) -> None:
        self.group = group

    def draw(
        self,
        num: int,
        x_t: Points,
        x_0: Points,
        t: PerSample,
        mask: Tensor,
        *,
        generator: torch.Generator | None,
    ) -> GroupSamples:
        """Draw from the Haar measure."""
        batch = len(x_0)
        drawn = self.group.sample(
            batch * num, generator=generator, dtype=x_0.dtype, device=x_0.device
        )
        elements = drawn.reshape(batch, num, *self.group.element_shape)
        return GroupSamples(elements, torch.zeros(batch, num, 1, device=x_0.device))

    def log_density_of_identity(
        self, x_t: Points, x_0: Points, t: PerSample, mask: Tensor
    ) -> Tensor:
        """Return zeros (B, 1)."""
        return torch.zeros(len(x_0), 1, device=x_0.device)


@final
class AroundTruth:
    """Shifts from WN(0; (C sigma)^2), centred on the element that made x_t (published: C = 2).

    Parameters
    ----------
    kernel : NoiseKernel
        Its schedule gives sigma.
    spread : float
        C.

    Notes
    -----
    The proposal depends on the true element, so the conditional-importance-sampling argument
    for unbiasedness does not apply; the measured bias is at most 0.9 % of 1 / sigma.
    """

    independent = False

    def __init__(self, kernel: NoiseKernel, spread: float) -> None:
        _check(kernel, spread)
        self.kernel = kernel
        self.spread = spread

    def draw(
        self,
        num: int,
        x_t: Points,
        x_0: Points,
        t: PerSample,
        mask: Tensor,
        *,
        generator: torch.Generator | None,
    ) -> GroupSamples:
        """Draw shifts around zero."""
        scale = self.spread * self.kernel.schedule(t).sigma[:, None, None].to(x_0.dtype)
        noise = _normal((len(x_0), num, x_0.shape[-1]), x_0, generator)
        shifts = wrap(scale * noise)
        return GroupSamples(shifts, wide_wrapped_normal(shifts, scale.expand_as(shifts)))

    def log_density_of_identity(
        self, x_t: Points, x_0: Points, t: PerSample, mask: Tensor
    ) -> Tensor:
        """Log density of the zero shift, (B, D)."""
        scale = self.spread * self.kernel.schedule(t).sigma[:, None].to(x_0.dtype)
        zero = torch.zeros(len(x_0), x_0.shape[-1], dtype=x_0.dtype, device=x_0.device)
        return wide_wrapped_normal(zero, scale.expand_as(zero))


@final
class AroundXt:
    """Shifts around the circular mean of x_t - x_0, per axis, mixed with the uniform density.

    q = (1 - u) WN(tau - m; (C sigma)^2 / n) + u, m the circular mean over atoms.

    Parameters
    ----------
    kernel : NoiseKernel
    spread : float
        C.
    uniform_share : float
        u, keeps q/p bounded away from zero.

    Notes
    -----
    q depends on x_0 only through x_0 - x_t up to the group, so given x_t and the orbit it is
    independent of the true element, which i-SIR needs.
    """

    independent = True

    def __init__(self, kernel: NoiseKernel, spread: float, uniform_share: float = 0.2) -> None:
        _check(kernel, spread)
        if not 0 < uniform_share < 1:
            raise BadInput(f"uniform_share must lie in (0, 1), got {uniform_share}")
        self.kernel = kernel
        self.spread = spread
        self.uniform_share = uniform_share

    def _centre(
        self, x_t: Points, x_0: Points, t: PerSample, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        angle = 2 * math.pi * (x_t - x_0)
        real = mask[..., None].to(x_0.dtype)
        mean = torch.atan2((angle.sin() * real).sum(1), (angle.cos() * real).sum(1))
        count = mask.sum(1).clamp(min=1).to(x_0.dtype)
        scale = self.spread * self.kernel.schedule(t).sigma.to(x_0.dtype) / torch.sqrt(count)
        return mean / (2 * math.pi), scale[:, None]

    def _log_density(self, offset: Tensor, scale: Tensor) -> Tensor:
        peak = wide_wrapped_normal(offset, scale.expand_as(offset))
        share = self.uniform_share
        flat = torch.full_like(peak, math.log(share))
        return torch.logaddexp(peak + math.log1p(-share), flat)

    def draw(
        self,
        num: int,
        x_t: Points,
        x_0: Points,
        t: PerSample,
        mask: Tensor,
        *,
        generator: torch.Generator | None,
    ) -> GroupSamples:
        """Draw shifts around the circular mean."""
        centre, scale = self._centre(x_t, x_0, t, mask)
        shape = (len(x_0), num, x_0.shape[-1])
        peak = scale[:, None] * _normal(shape, x_0, generator)
        flat = _uniform(shape, x_0, generator)
        choice = _uniform(shape, x_0, generator) < self.uniform_share
        offset = wrap(torch.where(choice, flat, peak))
        log_q = self._log_density(offset, scale[:, None])
        return GroupSamples(wrap(centre[:, None] + offset), log_q)

    def log_density_of_identity(
        self, x_t: Points, x_0: Points, t: PerSample, mask: Tensor
    ) -> Tensor:
        """Log density of the zero shift, (B, D)."""
        centre, scale = self._centre(x_t, x_0, t, mask)
        return self._log_density(wrap(-centre), scale)


def _check(kernel: NoiseKernel, spread: float) -> None:
    if kernel.density is not Density.WRAPPED_NORMAL:
        raise IncompatibleKernel(
            f"shifts around a point need a wrapped normal kernel, got {type(kernel).__name__}; "
            "take the uniform proposal (Haar)"
        )
    if not spread > 0:
        raise BadInput(f"spread must be positive, got {spread}")


def wide_wrapped_normal(offset: Tensor, sigma: Tensor) -> Tensor:
    """Log density of a wrapped normal of any width, elementwise, to 1e-12.

    Images |k| <= 4 up to sigma = 0.45, above it the Fourier series
    1 + 2 sum_h exp(-2 pi^2 h^2 sigma^2) cos(2 pi h z), h <= 3.
    """
    series = torch.ones_like(offset)
    for h in (1, 2, 3):
        decay = torch.exp(-2.0 * (math.pi * h * sigma) ** 2)
        series = series + 2 * decay * torch.cos(2 * math.pi * h * offset)
    wide = torch.log(series.clamp(min=1e-30))
    return torch.where(sigma < WIDE, wrapped_normal(offset, sigma.clamp(max=WIDE))[0], wide)
