"""Flow matching from a harmonic prior with an independent coupling."""

from typing import Any, final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.base import Group
from orbitdiff.groups.rotation import O3, SO3
from orbitdiff.kernels.base import (
    Density,
    Noised,
    NoiseKernel,
    Parametrization,
    expand,
    normal_like,
)
from orbitdiff.kernels.harmonic_prior import HarmonicPrior
from orbitdiff.kernels.interpolant import Interpolant
from orbitdiff.typing import Float, Mask, PerSample, Points, Tensor

__all__ = ["HarmonicKernel"]


@final
class HarmonicKernel(NoiseKernel):
    """x_t = (1 - t) x_0 + t y + s_t eps, y from the harmonic prior and independent of x_0.

    p(x_t | x_0) = N((1 - t) x_0, Sigma (x) I_3), Sigma = t^2 H^+ + s_t^2 P, on centred points;
    P is the centring projector and s_t = sigma sqrt(t (1 - t)).

    Parameters
    ----------
    harmonic : HarmonicPrior
        Of the molecules of this batch; `HarmonicPrior.isotropic` for unit normal noise.
    sigma : float
        Scale of the bridge, angstrom.

    Notes
    -----
    The mean of x_t is that of (1 - t) x_0. All maps are linear in x_0, so that they carry a
    posterior mean E[R] x_0 over to the mean velocity, score and prior sample.

    References
    ----------
    Hassan et al. 2024 (ET-Flow), whose time runs the other way; its coupling is aligned, for
    which see `AlignedCoupling`.
    """

    invariant_under: tuple[type[Group], ...] = (SO3, O3)
    density = Density.ATOM_COVARIANCE_GAUSSIAN

    def __init__(self, harmonic: HarmonicPrior, *, sigma: float = 0.0) -> None:
        self.harmonic = harmonic
        self.schedule: Interpolant = Interpolant(sigma)

    def sample(
        self,
        x_0: Points,
        t: PerSample,
        *,
        context: Any = None,
        mask: Mask | None = None,
        generator: torch.Generator | None = None,
    ) -> Noised:
        """Draw x_t; its noise is y + s_t' eps, which is d x_t / dt + x_0."""
        drawn = self.harmonic.sample(x_0, generator=generator)
        eps = self.harmonic.centred(normal_like(x_0, generator)).to(x_0.dtype)
        return self.schedule.mix(x_0, drawn, eps, t.to(x_0.dtype))

    def _variances(self, t: PerSample) -> tuple[Tensor, Tensor]:
        """Variance of each bound mode of x_t (one elsewhere) and its slope in time, (..., N)."""
        time = t.double()[..., None]
        prior, _, bound = (part.to(t.device) for part in self.harmonic.modes(t.ndim))
        variance = torch.where(bound, self.schedule.variance(time, prior), 1.0)
        return variance, torch.where(bound, self.schedule.variance_slope(time, prior), 0.0)

    def precision(self, t: PerSample) -> Float[Tensor, "*B N N"]:
        """Sigma^+ at t, float64, 1 / angstrom^2.

        Parameters
        ----------
        t : (B,)
            Time in (0, 1].

        Returns
        -------
        (B, N, N)
            With zero row sums, zero in padding.
        """
        vectors = self.harmonic.modes(t.ndim)[1].to(t.device)
        return (vectors / self._variances(t)[0][..., None, :]) @ vectors.mT

    def log_prob(
        self, x_t: Points, x_0: Points, t: PerSample, *, mask: Mask | None = None
    ) -> PerSample:
        """Log density of x_t without its mean, in 3(n - 1) dimensions."""
        alpha = expand(self.schedule(t.double()).alpha)
        difference = x_t.double() - alpha * x_0.double()
        found = self.harmonic.log_density(difference, self._variances(t)[0])
        return found.to(x_t.dtype)

    def target(
        self,
        x_t: Points,
        x_0: Points,
        t: PerSample,
        parametrization: Parametrization,
        *,
        noise: Points | None = None,
    ) -> Tensor:
        """Training target given x_0: DATA, SCORE or VELOCITY.

        The velocity is noise - x_0 where the noise is given, else its mean given x_t and x_0.
        """
        if parametrization is Parametrization.VELOCITY and noise is not None:
            return noise - x_0
        return self.convert(x_0, Parametrization.DATA, parametrization, x_t, t)

    def convert(
        self, value: Points, src: Parametrization, dst: Parametrization, x_t: Points, t: PerSample
    ) -> Tensor:
        """Convert between DATA, SCORE and VELOCITY, all affine in each other given x_t.

        score = Sigma^+ ((1 - t) x_0 - x_t), velocity = -x_0 + G (x_t - (1 - t) x_0) with
        G = (1/2) dSigma/dt Sigma^+.
        """
        if src is dst:
            return value
        known = (Parametrization.DATA, Parametrization.SCORE, Parametrization.VELOCITY)
        if src not in known or dst not in known:
            strange = dst if src in known else src
            raise BadInput(f"HarmonicKernel has no {strange.value} parametrization")
        wide, noised = value.double(), x_t.double()
        data = self._to_data(wide, src, noised, t)
        alpha = expand(self.schedule(t.double()).alpha)
        variance, slope = self._variances(t)
        match dst:
            case Parametrization.SCORE:
                found = self.harmonic.scaled(alpha * data - noised, 1 / variance)
            case Parametrization.VELOCITY:
                drift = self.harmonic.scaled(noised - alpha * data, 0.5 * slope / variance)
                found = drift - data
            case _:
                found = data
        return found.to(value.dtype)

    def _to_data(self, value: Tensor, src: Parametrization, x_t: Tensor, t: PerSample) -> Tensor:
        """Return x_0 of a score or a velocity, float64."""
        alpha = self.schedule(t.double()).alpha
        variance, slope = self._variances(t)
        if src is Parametrization.SCORE:
            return (x_t + self.harmonic.scaled(value, variance)) / expand(alpha)
        if src is Parametrization.VELOCITY:
            gain = 0.5 * slope / variance
            rest = self.harmonic.scaled(x_t, gain) - value
            # (I + alpha G)^-1, the identity on the mean
            return rest + self.harmonic.scaled(rest, 1 / (1 + alpha[..., None] * gain) - 1)
        return value

    def mean_prior_sample(self, x_t: Points, x_0: Points, t: PerSample) -> Tensor:
        """E[y | x_t, x_0] = t H^+ Sigma^+ (x_t - (1 - t) x_0); with E[R] x_0: E[y | x_t].

        Parameters
        ----------
        x_t, x_0 : (B, N, 3)
            Noised points; data, or their posterior mean.
        t : (B,)
            Time in (0, 1].

        Returns
        -------
        (B, N, 3)
        """
        alpha, scale = self.schedule(t.double())
        prior = self.harmonic.modes(t.ndim)[0].to(t.device)
        gain = scale[..., None] * prior / self._variances(t)[0]
        difference = x_t.double() - expand(alpha) * x_0.double()
        return self.harmonic.scaled(difference, gain).to(x_t.dtype)

    def prior(self, shape: tuple[int, ...], *, generator: torch.Generator | None = None) -> Tensor:
        """Draw x_1 from the harmonic prior."""
        like = torch.empty(shape, device=self.harmonic.vectors.device)
        return self.harmonic.sample(like, generator=generator)
