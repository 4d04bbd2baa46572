"""What is diagnosed: samples, a kernel with its noise levels, and the group's estimators."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from orbitdiff.batch import pad
from orbitdiff.diagnosis import noise as noises
from orbitdiff.diagnosis.arms import (
    MOST_PERMUTATIONS,
    Arms,
    AutomorphismArms,
    ReflectionArms,
    RotationArms,
    TranslationArms,
)
from orbitdiff.diagnosis.noise import Level, Noise, levels_between
from orbitdiff.diagnosis.structure import Collection, Skipped, Structure
from orbitdiff.errors import BadInput
from orbitdiff.groups.automorphism import GraphAutomorphisms
from orbitdiff.orbit.base import OrbitContext
from orbitdiff.seeding import stream
from orbitdiff.typing import Bool, Float, Tensor

if TYPE_CHECKING:
    from rdkit.Chem import Mol

__all__ = ["GROUPS", "KERNELS", "Problem", "Settings", "pose"]

GROUPS: dict[str, type[Arms]] = {
    arms.group: arms for arms in (RotationArms, ReflectionArms, AutomorphismArms, TranslationArms)
}
KERNELS = {
    "gaussian": (0.05, 80.0),
    "flow": (0.05, 80.0),
    "harmonic": (0.05, 80.0),
    "wrapped_normal": (0.005, 0.5),
}
"""Kernels and their default noise levels: angstrom, or fractions of a period."""
MOST_POINTS = {"harmonic": 1024}
"""Points of a structure; the eigenvectors of a harmonic prior cost their third power."""
ANY_POINTS = 2**18
PAIRS = 2**22
"""Pairs of atoms of all samples together, for which a harmonic kernel keeps matrices."""


@final
@dataclass(frozen=True)
class Settings:
    """What a user may choose.

    Parameters
    ----------
    kernel : str, optional
        gaussian, flow, harmonic or wrapped_normal; by default what fits the data.
    group : str, optional
        rotation, rotation_reflection, rotation_automorphisms or translation.
    sigma_min, sigma_max : float, optional
        First and last noise level.
    levels : int
    samples : int
        Noised samples of each level; fewer where structures are large.
    scale : float
        Deviation of the prior of `flow`, angstrom.
    seed : int
    """

    kernel: str | None = None
    group: str | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    levels: int = 10
    samples: int = 256
    scale: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise BadInput(f"expected at least 1 sample, got {self.samples}")


@final
@dataclass(frozen=True)
class Problem:
    """Data, kernel and group of a diagnosis.

    Parameters
    ----------
    x_0 : (S, N, D)
        Samples in random order; a structure may occur more than once.
    mask : (S, N) bool
    arms : Arms
    kernel : str
        Name.
    noise : Noise
    levels : tuple of Level
    num_structures : int
        Different structures among which samples are drawn.
    context : OrbitContext
    skipped : tuple of Skipped
    notes : tuple of str
        What a reader has to know.
    """

    x_0: Float[Tensor, "S N D"]
    mask: Bool[Tensor, "S N"]
    arms: Arms
    kernel: str
    noise: Noise
    levels: tuple[Level, ...]
    num_structures: int
    context: OrbitContext = field(default_factory=OrbitContext)
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()


def pose(collection: Collection, settings: Settings) -> Problem:
    """Choose kernel, group and samples for what a user has.

    Parameters
    ----------
    collection : Collection
    settings : Settings

    Raises
    ------
    BadInput
        Kernel, group and data that do not belong together, or no structure left.
    """
    kernel = settings.kernel or ("wrapped_normal" if collection.periodic else "gaussian")
    group = settings.group or ("translation" if collection.periodic else "rotation")
    _check_pair(kernel, group, collection)
    kept, skipped = _usable(collection.structures, kernel, group)
    if not kept:
        raise BadInput(
            f"no structure is left for {kernel} and {group}; {len(skipped)} left out, "
            f"{skipped[0].name}: {skipped[0].reason}"
        )
    arms = GROUPS[group]()
    widest = max(len(structure.points) for structure in kept)
    most = min(settings.samples, arms.most_rows(widest))
    if kernel == "harmonic":
        most = max(1, min(most, PAIRS // widest**2))
    order = torch.randperm(len(kept), generator=stream(settings.seed, "diagnose", "rows")).tolist()
    chosen = [kept[order[row % len(kept)]] for row in range(most)]
    x_0, mask = _padded(chosen, centred=not collection.periodic)
    low = KERNELS[kernel][0] if settings.sigma_min is None else settings.sigma_min
    high = KERNELS[kernel][1] if settings.sigma_max is None else settings.sigma_max
    noise = _noise(kernel, low, high, settings.scale, chosen, mask)
    notes = []
    if most < settings.samples:
        notes.append(f"{most} samples instead of {settings.samples}: up to {widest} points each")
    if not collection.complete:
        notes.append(f"reading stopped after {len(collection.structures)} structures")
    context = OrbitContext()
    if group == AutomorphismArms.group:
        groups = tuple(_automorphisms(structure.molecule) for structure in chosen)
        context = OrbitContext(automorphisms=groups)
        cut = sum(found.order > MOST_PERMUTATIONS for found in groups)
        if cut:
            notes.append(
                f"{cut} of {most} samples have more than {MOST_PERMUTATIONS} automorphisms: a "
                "subgroup stands for them"
            )
    return Problem(
        x_0,
        mask,
        arms,
        kernel,
        noise,
        levels_between(noise, low, high, settings.levels),
        len(kept),
        context,
        (*collection.skipped, *skipped),
        tuple(notes),
    )


def _check_pair(kernel: str, group: str, collection: Collection) -> None:
    """Refuse names that are not known, and combinations that have no meaning."""
    if kernel not in KERNELS:
        raise BadInput(f"expected a kernel among {sorted(KERNELS)}, got {kernel!r}")
    if group not in GROUPS:
        raise BadInput(f"expected a group among {sorted(GROUPS)}, got {group!r}")
    if collection.periodic != (kernel == "wrapped_normal"):
        fitting = ["wrapped_normal"] if collection.periodic else ["gaussian", "flow", "harmonic"]
        what = "cells (cif)" if collection.periodic else "point clouds"
        raise BadInput(f"{what} need a kernel among {fitting}, got {kernel}")
    if (kernel == "wrapped_normal") != (group == "translation"):
        fitting = ["translation"] if kernel == "wrapped_normal" else sorted(set(GROUPS) - {group})
        raise BadInput(
            f"kernel {kernel} is not invariant under {group}: take a group among {fitting}"
        )
    bonds = [f"kernel {kernel}"] if kernel == "harmonic" else []
    bonds += [f"group {group}"] if group == AutomorphismArms.group else []
    if bonds and all(structure.molecule is None for structure in collection.structures):
        raise BadInput(f"bonds are needed for {' and '.join(bonds)}: give an sdf file")


def _usable(
    structures: Sequence[Structure], kernel: str, group: str
) -> tuple[list[Structure], list[Skipped]]:
    """Structures that kernel and group can take, and the others with the reason."""
    limit = MOST_POINTS.get(kernel, ANY_POINTS)
    kept: list[Structure] = []
    skipped: list[Skipped] = []
    for structure in structures:
        points, molecule = structure.points, structure.molecule
        needs_bonds = kernel == "harmonic" or group == AutomorphismArms.group
        if len(points) > limit:
            reason = f"{len(points)} points, at most {limit} with {kernel}"
        elif needs_bonds and molecule is None:
            reason = "no bonds"
        elif kernel == "harmonic" and _pieces(molecule) > 1:
            reason = f"{_pieces(molecule)} fragments, a harmonic prior needs one"
        elif group != "translation" and np.ptp(points, axis=0).max() < 1e-6:
            reason = "all points in one place: no rotation changes it"
        else:
            kept.append(structure)
            continue
        skipped.append(Skipped(structure.name, reason))
    return kept, skipped


def _pieces(molecule: "Mol | None") -> int:
    from rdkit import Chem

    return len(Chem.GetMolFrags(molecule))


def _padded(structures: Sequence[Structure], *, centred: bool) -> tuple[Tensor, Tensor]:
    """Coordinates (S, N, 3) in float32, about their centre if `centred`, and mask (S, N)."""
    clouds = [structure.points for structure in structures]
    if centred:
        clouds = [points - points.mean(0) for points in clouds]
    x_0 = pad([torch.as_tensor(points, dtype=torch.float32) for points in clouds])
    counts = torch.tensor([len(points) for points in clouds])
    return x_0, torch.arange(x_0.shape[1]) < counts[:, None]


def _noise(
    kernel: str, low: float, high: float, scale: float, chosen: Sequence[Structure], mask: Tensor
) -> Noise:
    """Return the kernel of the samples."""
    build: dict[str, Callable[[], Noise]] = {
        "gaussian": lambda: noises.gaussian(low, high),
        "flow": lambda: noises.flow(scale),
        "harmonic": lambda: noises.harmonic(_bonds(chosen, mask.shape[1]), mask),
        "wrapped_normal": lambda: noises.wrapped_normal(low, high),
    }
    return build[kernel]()


def _bonds(structures: Sequence[Structure], width: int) -> Tensor:
    """Adjacency matrices (S, N, N) bool."""
    from rdkit import Chem

    bonded = torch.zeros(len(structures), width, width, dtype=torch.bool)
    for row, structure in enumerate(structures):
        found: Any = Chem.GetAdjacencyMatrix(structure.molecule)
        bonded[row, : len(found), : len(found)] = torch.as_tensor(found, dtype=torch.bool)
    return bonded


def _automorphisms(molecule: "Mol | None") -> GraphAutomorphisms:
    from orbitdiff.data.automorphisms import molecular_automorphisms

    assert molecule is not None  # checked with the data
    return molecular_automorphisms(molecule)
