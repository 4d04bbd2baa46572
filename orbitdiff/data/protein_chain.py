"""One protein chain as a trace of CA atoms, and the checks that it must pass."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orbitdiff.data.rejected import Rejected
from orbitdiff.errors import BadInput

__all__ = ["Backbone", "BackboneLimits", "check_backbone", "joined", "rg_ratio"]

TRANS = (3.45, 4.15)
CIS = (2.55, 3.35)
"""Angstrom; lengths of a CA-CA step over a trans and a cis peptide bond."""

MIN_DISTANCE = 3.0
"""Angstrom; CA atoms of residues that are not neighbours and nearer than this clash."""


@dataclass(frozen=True)
class Backbone:
    """One unbroken chain.

    Parameters
    ----------
    id : str
    ca : (L, 3) float32
        CA atoms in angstrom, centred.
    sequence : str
        One letter per residue, X where it is not one of the twenty.
    component : str
        Chains of one component never part over splits.
    cluster : str
        Chains of one cluster are much alike; see `ProteinDataset.weights`.
    """

    id: str
    ca: NDArray[np.float32]
    sequence: str
    component: str
    cluster: str

    def __len__(self) -> int:
        return len(self.ca)


@dataclass(frozen=True)
class BackboneLimits:
    """Which chains are accepted.

    Parameters
    ----------
    min_length, max_length : int
        Residues.
    max_rg_ratio : float
        Bound on the radius of gyration over 2.2 L^0.38 (above 1.5: mostly coiled coils, swapped or
        extended chains cut out of complexes).
    max_nonstandard : int
        Residues that are none of the twenty (selenomethionine counts as methionine).
    min_share : float
        Share of a chain's residues that its longest unbroken stretch must hold.
    """

    __pydantic_config__ = {"extra": "forbid"}

    min_length: int = 40
    max_length: int = 256
    max_rg_ratio: float = 1.5
    max_nonstandard: int = 2
    min_share: float = 0.9

    def __post_init__(self) -> None:
        if not 1 <= self.min_length <= self.max_length:
            raise BadInput(
                f"expected 1 <= min_length <= max_length, got {self.min_length}, {self.max_length}"
            )


def joined(ca: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether residues i and i + 1 are bonded, by the length of the CA-CA step, (L - 1,).

    Parameters
    ----------
    ca : (L, 3), angstrom
    """
    step = np.linalg.norm(np.diff(ca, axis=0), axis=1)
    trans = (step >= TRANS[0]) & (step <= TRANS[1])
    return trans | ((step >= CIS[0]) & (step <= CIS[1]))


def rg_ratio(ca: NDArray[Any]) -> float:
    """Radius of gyration over that of a natural chain of this length, 2.2 L^0.38 angstrom.

    Parameters
    ----------
    ca : (L, 3), angstrom

    References
    ----------
    Skolnick, Kolinski, Ortiz 1997.
    """
    spread = np.sqrt(((ca - ca.mean(0)) ** 2).sum(1).mean())
    return float(spread / (2.2 * len(ca) ** 0.38))


def check_backbone(backbone: Backbone, limits: BackboneLimits) -> Backbone | Rejected:
    """Return the chain, centred, or why it cannot be used.

    Parameters
    ----------
    backbone : Backbone
    limits : BackboneLimits
    """
    found = _fault(backbone, limits)
    if found is not None:
        return Rejected(backbone.id, *found)
    wide = backbone.ca.astype(np.float64)
    ca = (wide - wide.mean(0)).astype(np.float32)
    return Backbone(backbone.id, ca, backbone.sequence, backbone.component, backbone.cluster)


def _fault(backbone: Backbone, limits: BackboneLimits) -> tuple[str, str] | None:
    """Reason and detail, None for a good chain."""
    ca, length = backbone.ca, len(backbone)
    if length < limits.min_length:
        return "too short", f"{length} residues, at least {limits.min_length}"
    if length > limits.max_length:
        return "too long", f"{length} residues, limit {limits.max_length}"
    if len(backbone.sequence) != length:
        return "sequence", f"{len(backbone.sequence)} letters for {length} residues"
    if not np.isfinite(ca).all():
        return "NaN coordinates", "a coordinate is no finite number"
    strange = backbone.sequence.count("X")
    if strange > limits.max_nonstandard:
        return "non-standard residues", f"{strange}, limit {limits.max_nonstandard}"
    broken = np.flatnonzero(~joined(ca))
    if len(broken):
        step = float(np.linalg.norm(ca[broken[0] + 1] - ca[broken[0]]))
        return "chain break", f"{step:.2f} angstrom after residue {broken[0] + 1} of {length}"
    distances = np.linalg.norm(ca[:, None] - ca[None], axis=-1)
    far = np.triu(np.ones((length, length), dtype=bool), 2)
    shortest = float(distances[far].min()) if far.any() else np.inf
    if shortest < MIN_DISTANCE:
        return "clash", f"two CA atoms {shortest:.2f} angstrom apart"
    if length > 1 and (ratio := rg_ratio(ca)) > limits.max_rg_ratio:
        return "extended chain", f"radius of gyration {ratio:.2f} times the natural one"
    return None
