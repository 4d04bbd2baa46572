"""Proxies of natural protein chains from CA atoms alone: bonds, clashes, helices, size.

Each proxy has limits that natural chains keep; `natural` says whether a chain keeps them all. They
stand in for designability where no folding network is at hand, and prove nothing about it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orbitdiff.data.protein_chain import Backbone, rg_ratio
from orbitdiff.data.protein_files import to_atom_array
from orbitdiff.errors import BadInput
from orbitdiff.metrics.base import Map, MetricResult

__all__ = [
    "LIMITS",
    "PROXIES",
    "BackboneValues",
    "ca_angles",
    "ca_dihedrals",
    "dihedral_divergence",
    "judge_backbone",
    "judge_backbones",
    "secondary_structure",
]

TRANS = (3.5, 4.1)
CIS = (2.6, 3.3)
"""Angstrom; a CA-CA step over a trans (3.8 +- 0.3) and a cis peptide bond."""

CLASH = 3.0
LIMITS = {
    "bonds": "98 % of CA-CA steps are 3.8 +- 0.3 (trans) or 2.6-3.3 angstrom (cis, at most 10 %)",
    "clashes": "no two CA atoms of residues that are not neighbours below 3.0 angstrom",
    "secondary": "helices and strands hold at least 10 % of the residues",
    "chirality": "median CA dihedral of helices 50 +- 10 degrees (no helix: not judged)",
    "compactness": "radius of gyration 0.85 to 1.5 times 2.2 L^0.38 angstrom",
}
PROXIES = tuple(LIMITS)
CHUNK = 16
BINS = (18, 36)
"""Of the angle (0 to 180 degrees) and the dihedral (-180 to 180 degrees)."""


@dataclass(frozen=True)
class BackboneValues:
    """Per-chain values.

    Attributes
    ----------
    trans, cis : share of CA-CA steps of that length
    clashes : pairs of residues, not neighbours, nearer than 3.0 angstrom
    helix, strand : share of residues by P-SEA
    helix_dihedral : median CA dihedral within helices, degrees, None without helices
    rg_ratio : radius of gyration over 2.2 L^0.38
    """

    id: str
    length: int
    trans: float
    cis: float
    clashes: int
    helix: float
    strand: float
    helix_dihedral: float | None
    rg_ratio: float

    def verdicts(self) -> dict[str, bool | None]:
        """Whether each proxy is within its limits, None where it cannot be judged."""
        turn = self.helix_dihedral
        return {
            "bonds": self.trans + self.cis >= 0.98 and self.cis <= 0.1,
            "clashes": self.clashes == 0,
            "secondary": self.helix + self.strand >= 0.1,
            "chirality": None if turn is None else abs(turn - 50) <= 10,
            "compactness": 0.85 <= self.rg_ratio <= 1.5,
        }

    @property
    def natural(self) -> bool:
        """No proxy is outside its limits."""
        return False not in self.verdicts().values()


def ca_dihedrals(ca: NDArray[Any]) -> NDArray[np.float64]:
    """Dihedral angles of four successive CA atoms, degrees in (-180, 180], (L - 3,).

    Parameters
    ----------
    ca : (L, 3), angstrom

    Returns
    -------
    (L - 3,)
        Entry i is of atoms i to i + 3; about 50 in a right-handed helix.
    """
    step = np.diff(np.asarray(ca, dtype=np.float64), axis=0)
    if len(step) < 3:
        return np.zeros(0)
    normal = np.cross(step[:-1], step[1:])
    cosine = (normal[:-1] * normal[1:]).sum(1)
    sine = np.linalg.norm(step[1:-1], axis=1) * (step[:-2] * normal[1:]).sum(1)
    return np.degrees(np.arctan2(sine, cosine))


def ca_angles(ca: NDArray[Any]) -> NDArray[np.float64]:
    """Angles of three successive CA atoms, degrees, (L - 2,).

    Parameters
    ----------
    ca : (L, 3), angstrom
    """
    step = np.diff(np.asarray(ca, dtype=np.float64), axis=0)
    if len(step) < 2:
        return np.zeros(0)
    sine = np.linalg.norm(np.cross(step[:-1], step[1:]), axis=1)
    return np.degrees(np.arctan2(sine, -(step[:-1] * step[1:]).sum(1)))


def dihedral_divergence(chains: Sequence[NDArray[Any]], natural: Sequence[NDArray[Any]]) -> float:
    """Jensen-Shannon divergence of the laws of CA angle and dihedral, in bits (0 to 1).

    Parameters
    ----------
    chains, natural : sequences of (L, 3), angstrom
        Each with at least one chain of four residues.

    Raises
    ------
    BadInput
        No chain of four residues.
    """
    first, second = (_angle_law(group) for group in (chains, natural))
    middle = (first + second) / 2
    return float(sum(_relative_entropy(law, middle) for law in (first, second)) / 2)


def _angle_law(chains: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Shares of the bins of (angle at atom i + 1, dihedral of i to i + 3)."""
    turns = np.concatenate([ca_dihedrals(ca) for ca in chains] or [np.zeros(0)])
    if len(turns) == 0:
        raise BadInput(
            "expected at least one chain of four residues to compare dihedrals, got none"
        )
    angles = np.concatenate([ca_angles(ca)[:-1] for ca in chains if len(ca) > 3])
    counts, _, _ = np.histogram2d(angles, turns, bins=BINS, range=[(0, 180), (-180, 180)])
    return np.asarray(counts / counts.sum())


def _relative_entropy(law: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    held = law > 0
    return float((law[held] * np.log2(law[held] / other[held])).sum())


def secondary_structure(ca: NDArray[Any]) -> str:
    """Secondary structure of each residue by P-SEA: H helix, E strand, - other.

    Parameters
    ----------
    ca : (L, 3), angstrom

    References
    ----------
    Labesse et al. 1997, as in biotite.
    """
    atoms = to_atom_array(ca, "G" * len(ca))
    if len(ca) < 5:
        return "-" * len(ca)
    from biotite.structure import annotate_sse

    return "".join({"a": "H", "b": "E"}.get(kind, "-") for kind in annotate_sse(atoms))


def judge_backbone(backbone: Backbone) -> BackboneValues:
    """Measure one chain.

    Parameters
    ----------
    backbone : Backbone

    Raises
    ------
    BadInput
        Coordinates that are not finite, or no residue.
    """
    ca = np.asarray(backbone.ca, dtype=np.float64)
    length = len(ca)
    if length == 0 or not np.isfinite(ca).all():
        raise BadInput(
            f"expected finite coordinates of at least one residue in {backbone.id}, got "
            f"{length} residues"
        )
    step = np.linalg.norm(np.diff(ca, axis=0), axis=1)
    distances = np.linalg.norm(ca[:, None] - ca[None], axis=-1)
    apart = np.triu(np.ones((length, length), dtype=bool), 2)
    kinds = np.array(list(secondary_structure(ca)))
    helix = kinds == "H"
    within = helix[:-3] & helix[1:-2] & helix[2:-1] & helix[3:] if length > 3 else helix[:0]
    turns = ca_dihedrals(ca)[within]
    return BackboneValues(
        backbone.id,
        length,
        _share(step, TRANS),
        _share(step, CIS),
        int((distances[apart] < CLASH).sum()),
        float(helix.mean()),
        float((kinds == "E").mean()),
        float(np.median(turns)) if len(turns) else None,
        rg_ratio(ca),
    )


def _share(step: NDArray[np.float64], limits: tuple[float, float]) -> float:
    if len(step) == 0:
        return 1.0 if limits is TRANS else 0.0
    return float(((step >= limits[0]) & (step <= limits[1])).mean())


def _judge_chunk(backbones: Sequence[Backbone]) -> list[BackboneValues]:
    return [judge_backbone(backbone) for backbone in backbones]


def judge_backbones(
    backbones: Sequence[Backbone], *, parallel: Map
) -> MetricResult[BackboneValues]:
    """Measure all chains; the summary has means, and the share of chains within each limit.

    Parameters
    ----------
    backbones : sequence of Backbone
        At least one.
    parallel : Map
        An executor's `map`.

    Raises
    ------
    BadInput
        No chain.
    """
    if not backbones:
        raise BadInput("expected at least one chain to judge, got none")
    chunks = [backbones[start : start + CHUNK] for start in range(0, len(backbones), CHUNK)]
    parts = parallel(_judge_chunk, chunks, description="judge backbones")
    rows = [row for part in parts for row in part]
    return MetricResult(rows, _summary(rows))


def _summary(rows: Sequence[BackboneValues]) -> dict[str, Any]:
    """Figures over the set."""
    verdicts = [row.verdicts() for row in rows]
    within = {}
    for proxy in PROXIES:
        judged = [bool(found[proxy]) for found in verdicts if found[proxy] is not None]
        within[proxy] = float(np.mean(judged)) if judged else None
    turns = [row.helix_dihedral for row in rows if row.helix_dihedral is not None]
    means = {
        name: float(np.mean([getattr(row, name) for row in rows]))
        for name in ("trans", "cis", "clashes", "helix", "strand", "rg_ratio")
    }
    return {
        "chains": len(rows),
        **means,
        "helix_dihedral": float(np.median(turns)) if turns else None,
        "within": within,
        "natural": float(np.mean([row.natural for row in rows])),
        "limits": LIMITS,
    }
