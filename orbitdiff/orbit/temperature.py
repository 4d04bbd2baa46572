"""Temperatures that divide the log weights of an orbit mean: a bias, kept for comparison."""

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch

from orbitdiff.errors import BadInput
from orbitdiff.typing import PerSample

__all__ = ["ConstantTemperature", "PublishedTemperature", "Temperature"]


@runtime_checkable
class Temperature(Protocol):
    """Temperature at time t."""

    def __call__(self, t: PerSample, /) -> PerSample:
        """Return the temperature, (B,), positive."""
        ...


@final
@dataclass(frozen=True)
class ConstantTemperature:
    """The same temperature at all times.

    Parameters
    ----------
    value : float
        1 is no tempering.
    """

    value: float

    def __post_init__(self) -> None:
        if not 0 < self.value < float("inf"):
            raise BadInput(f"temperature must be positive, got {self.value}")

    def __call__(self, t: PerSample) -> PerSample:
        """Return the value for each sample."""
        return torch.full_like(t, self.value)


@final
@dataclass(frozen=True)
class PublishedTemperature:
    """min(1, z / t): sharper weights the more noise.

    Parameters
    ----------
    z : float
        Published for conformers: 0.4.

    References
    ----------
    Code of arXiv 2502.09890, folder IEF, min(1, z / (1 - t)) in its time, which is reversed.
    """

    z: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < self.z < float("inf"):
            raise BadInput(f"z must be positive, got {self.z}")

    def __call__(self, t: PerSample) -> PerSample:
        """Return min(1, z / t)."""
        return (self.z / t.clamp(min=torch.finfo(t.dtype).tiny)).clamp(max=1.0)
