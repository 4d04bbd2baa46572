"""Features of atoms and pairs that the molecular networks share; their linear velocity."""

from typing import Any, final

import torch
from torch import nn
from torch.nn import functional

from orbitdiff.errors import BadInput
from orbitdiff.typing import Bool, Float, Int, Tensor

__all__ = [
    "AtomEmbedding",
    "RadialBasis",
    "centred",
    "check_sizes",
    "graph_features",
    "linear_velocity",
    "noised_variance",
]

UNDERFLOW = -40.0  # exponents below it would make denormal floats, which processors compute slowly


def centred(x: Float[Tensor, "B N 3"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N 3"]:
    """Subtract the mean over real atoms; padding becomes zero.

    Parameters
    ----------
    x : (B, N, 3)
    mask : (B, N)
    """
    real = mask[..., None].to(x.dtype)
    mean = (x * real).sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp(min=1)
    return (x - mean) * real


def linear_velocity(
    t: Float[Tensor, " B"], *, data_scale: float, prior_scale: float
) -> Float[Tensor, " B"]:
    """Coefficient c(t) of the best linear prediction c x_t of the velocity y - x_0.

    c = (t p^2 - (1 - t) s^2) / ((1 - t)^2 s^2 + t^2 p^2), the regression of y - x_0 on
    x_t = (1 - t) x_0 + t y for independent x_0 and y with standard deviations s and p.

    Parameters
    ----------
    t : (B,)
    data_scale, prior_scale : float
        s and p, root mean square coordinates of data and of prior, angstrom.
    """
    variance = noised_variance(t, data_scale=data_scale, prior_scale=prior_scale)
    return (t * prior_scale**2 - (1 - t) * data_scale**2) / variance


def noised_variance(
    t: Float[Tensor, " B"], *, data_scale: float, prior_scale: float
) -> Float[Tensor, " B"]:
    """Mean square (1 - t)^2 s^2 + t^2 p^2 of a coordinate of x_t, angstrom^2.

    Parameters
    ----------
    t : (B,)
    data_scale, prior_scale : float
        s and p, angstrom.
    """
    return (1 - t).square() * data_scale**2 + t.square() * prior_scale**2


def check_sizes(config: Any) -> None:
    """Refuse sizes that are not positive and heads that do not divide the width.

    Parameters
    ----------
    config : dataclass with `hidden` and `heads`

    Raises
    ------
    BadInput
    """
    for name, value in vars(config).items():
        if value <= 0:
            raise BadInput(f"model.{name} must be positive, got {value}")
    if config.hidden % config.heads:
        raise BadInput(
            f"model.heads must divide model.hidden, got {config.heads} and {config.hidden}"
        )


def graph_features(
    pair_types: Int[Tensor, "B N N"],
    graph_distance: Int[Tensor, "B N N"],
    *,
    num_types: int,
    max_distance: int,
) -> Bool[Tensor, "F B N N"]:
    """One-hot bond type and graph distance of each pair, F = num_types + max_distance + 1.

    Parameters
    ----------
    pair_types : (B, N, N)
        In [0, num_types).
    graph_distance : (B, N, N)
        Bonds between both atoms, capped at `max_distance`.
    num_types, max_distance : int
    """
    types = torch.arange(num_types, device=pair_types.device).view(-1, 1, 1, 1)
    steps = torch.arange(max_distance + 1, device=pair_types.device).view(-1, 1, 1, 1)
    return torch.cat([pair_types == types, graph_distance == steps])


@final
class AtomEmbedding(nn.Module):
    """Element, atom features and time of each atom.

    Parameters
    ----------
    hidden : int
    atom_features : int
        Width of the float features.
    time_dim : int
    max_element : int
    """

    def __init__(self, hidden: int, *, atom_features: int, time_dim: int, max_element: int) -> None:
        super().__init__()
        self.elements = nn.Embedding(max_element + 1, hidden, padding_idx=0)
        self.features = nn.Linear(atom_features, hidden)
        self.time = nn.Linear(time_dim, hidden)
        self.out = nn.Linear(hidden, hidden)

    def forward(
        self,
        atom_types: Int[Tensor, "B N"],
        atom_features: Float[Tensor, "B N F"],
        time: Float[Tensor, "B T"],
    ) -> Float[Tensor, "B N H"]:
        """Return the initial scalars.

        Parameters
        ----------
        atom_types : (B, N)
            Atomic numbers, 0 in padding.
        atom_features : (B, N, F)
        time : (B, T)
        """
        h = self.elements(atom_types) + self.features(atom_features) + self.time(time)[:, None]
        out: Tensor = self.out(functional.silu(h))
        return out


@final
class RadialBasis(nn.Module):
    """Exponential-normal functions exp(-b (exp(-a d) - m_k)^2), a = 5 / cutoff, of TorchMD-NET.

    m_k is spaced evenly from exp(-5) to 1, b = (2 (1 - exp(-5)) / K)^-2: finest at short
    distances, constant beyond the cutoff.

    Parameters
    ----------
    size : int
        K, number of functions.
    cutoff : float
        Angstrom.
    """

    centres: Tensor

    def __init__(self, size: int, cutoff: float) -> None:
        super().__init__()
        self.decay = 5.0 / cutoff
        low = float(torch.exp(torch.tensor(-5.0, dtype=torch.float64)))
        self.sharpness = (2 * (1 - low) / size) ** -2
        centres = torch.linspace(low, 1, size).view(-1, 1, 1, 1)
        self.register_buffer("centres", centres, persistent=False)

    def forward(self, distance: Float[Tensor, "B N N"]) -> Float[Tensor, "K B N N"]:
        """Return the functions, first axis.

        Parameters
        ----------
        distance : (B, N, N)
            Angstrom.
        """
        offset = torch.exp(-self.decay * distance) - self.centres
        exponent = (-self.sharpness * offset.square()).clamp(min=UNDERFLOW)
        return exponent.exp()
