"""What a mean over rotations needs of a Gaussian kernel: alpha, and sigma or a precision."""

from typing import NamedTuple, Protocol, runtime_checkable

from orbitdiff.kernels.base import NoiseKernel, expand
from orbitdiff.typing import Float, PerSample, Points, Tensor

__all__ = ["AtomPrecision", "GaussianForm"]


@runtime_checkable
class AtomPrecision(Protocol):
    """A kernel whose Gaussian has a covariance over atoms."""

    def precision(self, t: PerSample) -> Float[Tensor, "*B N N"]:
        """Return Sigma^+ at t."""
        ...


class GaussianForm(NamedTuple):
    """x_t = alpha x_0 + noise of covariance sigma^2 I, or Sigma (x) I_3.

    Attributes
    ----------
    alpha : (B,)
    sigma : (B,), None with a precision
    precision : (B, N, N), Sigma^+, None with a sigma
    """

    alpha: Tensor
    sigma: Tensor | None
    precision: Tensor | None

    @classmethod
    def of(cls, kernel: NoiseKernel, t: PerSample) -> "GaussianForm":
        """Return the form of a Gaussian kernel at t (B,), in the dtype of t or float64."""
        alpha, sigma = kernel.schedule(t)
        if isinstance(kernel, AtomPrecision):
            return cls(alpha, None, kernel.precision(t))
        return cls(alpha, sigma, None)

    def tempered(self, temperature: Tensor) -> "GaussianForm":
        """Form of p^(1 / temperature), temperature (B,): the covariance is multiplied by it."""
        if self.sigma is not None:
            return self._replace(sigma=self.sigma * temperature.sqrt())
        assert self.precision is not None  # one of the two is given
        return self._replace(precision=self.precision / expand(temperature))

    def cross(self, x_t: Points, x_0: Points) -> Float[Tensor, "B 3 3"]:
        """Return F = alpha x_t^T Sigma^+ x_0, all that tells rotations of x_0 apart."""
        if self.precision is not None:
            weighed = self.precision @ x_0
        else:
            assert self.sigma is not None  # one of the two is given
            weighed = x_0 / expand(self.sigma) ** 2
        return expand(self.alpha) * x_t.mT @ weighed
