"""What a picture of a crystal shows: atoms, their copies on the cell's faces, edges, colours."""

from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orbitdiff.data.crystals import Crystal, to_structure

__all__ = ["Comparison", "Scene", "align", "colour", "make_scene", "radius", "symbol"]

FACE_TOLERANCE = 0.08
"""Atoms this near to a face (fraction of the cell) are drawn on both sides."""
GREY = "#9a9a9a"


@dataclass(frozen=True)
class Comparison:
    """A generated crystal beside the true one.

    Attributes
    ----------
    id : name of the reference
    k : number of the sample
    generated, reference : Crystal
    rmse : normalised displacement of the match, None where there is none
    """

    id: str
    k: int
    generated: Crystal
    reference: Crystal
    rmse: float | None

    @property
    def verdict(self) -> str:
        """Outcome in words."""
        return "no match" if self.rmse is None else f"match, RMSE {self.rmse:.3f}"


@dataclass(frozen=True)
class Scene:
    """One cell ready to draw, centred at the middle of the cell.

    Attributes
    ----------
    positions : (M, 3) angstrom, atoms near a face repeated on the opposite one
    numbers : (M,) atomic numbers
    edges : (12, 2, 3) angstrom
    """

    positions: NDArray[np.float64]
    numbers: NDArray[np.int64]
    edges: NDArray[np.float64]


def make_scene(crystal: Crystal) -> Scene:
    """Atoms and edges of one cell.

    Parameters
    ----------
    crystal : Crystal
    """
    frac, numbers = [], []
    for place, number in zip(crystal.frac % 1.0, crystal.atom_types, strict=True):
        images = [
            (0.0, 1.0) if x < FACE_TOLERANCE else (0.0, -1.0) if x > 1 - FACE_TOLERANCE else (0.0,)
            for x in place
        ]
        for shift in product(*images):
            frac.append(place + np.array(shift))
            numbers.append(int(number))
    corners = np.array(list(product((0.0, 1.0), repeat=3)))
    pairs = [
        (i, j) for i in range(8) for j in range(i) if np.abs(corners[i] - corners[j]).sum() == 1
    ]
    centre = np.full(3, 0.5)
    positions = (np.array(frac).reshape(-1, 3) - centre) @ crystal.lattice
    placed = (corners - centre) @ crystal.lattice
    edges = np.array([[placed[i], placed[j]] for i, j in pairs])
    return Scene(positions, np.array(numbers, dtype=np.int64), edges)


def align(generated: Crystal, reference: Crystal) -> Crystal:
    """Bring a generated crystal to the setting and origin of the true one, for the eye.

    A match is mapped atom by atom by pymatgen; otherwise the crystal is only shifted so that
    its first atom of the rarest element sits where it does in the true one.

    Parameters
    ----------
    generated, reference : Crystal

    Returns
    -------
    Crystal
        The same structure up to translation and choice of cell.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher(
        stol=0.5, ltol=0.3, angle_tol=10.0, primitive_cell=False, attempt_supercell=False
    )
    try:
        found = matcher.get_s2_like_s1(to_structure(reference), to_structure(generated))
    except Exception:
        found = None
    if found is not None:
        types = np.array([site.specie.Z for site in found], dtype=np.int64)
        lattice = in_frame(np.array(found.lattice.matrix), reference.lattice)
        return Crystal(generated.id, types, np.array(found.frac_coords) % 1.0, lattice)
    types, counts = np.unique(reference.atom_types, return_counts=True)
    shared = [(n, z) for n, z in zip(counts, types, strict=True) if z in generated.atom_types]
    if not shared:
        return generated
    element = min(shared)[1]
    goal = reference.frac[reference.atom_types == element][0]
    start = generated.frac[generated.atom_types == element][0]
    return replace(generated, frac=(generated.frac + goal - start) % 1.0)


def in_frame(lattice: NDArray[np.float64], onto: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotate a lattice (reflections allowed) as near as possible to another: Kabsch on rows."""
    u, _, vt = np.linalg.svd(lattice.T @ onto)
    return np.asarray(lattice @ (u @ vt), dtype=np.float64)


@cache
def _palette() -> dict[str, tuple[int, int, int]]:
    import pymatgen.vis
    import yaml

    for folder in pymatgen.vis.__path__:
        path = Path(folder) / "ElementColorSchemes.yaml"
        if path.is_file():
            schemes = yaml.safe_load(path.read_text())
            return {str(name): tuple(value) for name, value in schemes["Jmol"].items()}
    return {}


def symbol(number: int) -> str:
    """Chemical symbol of an atomic number."""
    from pymatgen.core import Element

    return str(Element.from_Z(int(number)).symbol)


def colour(number: int) -> str:
    """Colour of an element as Jmol draws it, #rrggbb; grey where it has none."""
    found = _palette().get(symbol(number))
    return GREY if found is None else "#{:02x}{:02x}{:02x}".format(*found)


def radius(number: int) -> float:
    """Drawing radius in angstrom: 0.35 times the atomic radius, 0.25 to 0.75."""
    from pymatgen.core import Element

    known = Element.from_Z(int(number)).atomic_radius
    return float(np.clip(0.35 * float(known or 1.3), 0.25, 0.75))
