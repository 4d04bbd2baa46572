"""A user's own structures: point clouds in angstrom or cells, and what was left out."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rdkit.Chem import Mol

__all__ = ["Collection", "Skipped", "Structure"]


@final
@dataclass(frozen=True)
class Structure:
    """One point cloud or cell.

    Parameters
    ----------
    name : str
        File, and number of the frame or molecule in it.
    points : (n, 3) float64
        Angstrom, or fractional coordinates of a cell.
    molecule : rdkit Mol, optional
        Bonds; atoms in the order of the points.
    """

    name: str
    points: NDArray[np.float64]
    molecule: "Mol | None" = None


@final
@dataclass(frozen=True)
class Skipped:
    """One file, frame or molecule that was left out, and why."""

    name: str
    reason: str


@final
@dataclass(frozen=True)
class Collection:
    """What was read.

    Parameters
    ----------
    structures : tuple of Structure
    skipped : tuple of Skipped
    periodic : bool
        Fractional coordinates of cells; otherwise points in angstrom.
    complete : bool
        False where reading stopped after the largest number of structures.
    """

    structures: tuple[Structure, ...]
    skipped: tuple[Skipped, ...] = ()
    periodic: bool = False
    complete: bool = True
