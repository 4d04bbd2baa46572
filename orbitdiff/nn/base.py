"""The interface of a denoiser: named fields in, named fields out."""

from typing import Protocol, runtime_checkable

from orbitdiff.typing import Bool, Float, State, Tensor

__all__ = ["Denoiser"]


@runtime_checkable
class Denoiser(Protocol):
    """A network that predicts, for each field of x_t, what its parametrization asks for."""

    def __call__(
        self,
        x_t: State,
        t: Float[Tensor, " B"],
        cond: State,
        mask: Bool[Tensor, "B N"],
    ) -> State:
        """Return the prediction of each field, same shapes as x_t."""
        ...
