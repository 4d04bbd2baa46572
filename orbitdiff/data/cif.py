"""One CIF text to one checked crystal: Niggli-reduced, P1, in standard orientation."""

import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orbitdiff.data.rejected import Rejected
from orbitdiff.errors import MissingExtra

if TYPE_CHECKING:
    from pymatgen.core import Structure

__all__ = ["Crystal", "Rejected", "parse_crystal", "reduce_structure", "to_structure"]

MIN_DISTANCE = 0.5
"""Angstrom; atoms nearer than this, over all periodic images, overlap."""

MIN_VOLUME = 0.1
"""Cubic angstrom; the cell of a singular lattice is smaller."""

LENGTHS = ("_cell_length_a", "_cell_length_b", "_cell_length_c")
ANGLES = ("_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma")
COORDS = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")


@dataclass(frozen=True)
class Crystal:
    """One accepted crystal.

    Parameters
    ----------
    id : str
    atom_types : (N,) int64
        Atomic numbers.
    frac : (N, 3) float64
        Fractional coordinates in [0, 1).
    lattice : (3, 3) float64
        Rows are the Niggli cell's vectors in angstrom, in pymatgen's standard orientation.
    """

    id: str
    atom_types: NDArray[np.int64]
    frac: NDArray[np.float64]
    lattice: NDArray[np.float64]


class Fault(Exception):
    """A row cannot be used; carries reason and detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def parse_crystal(id: str, cif: str | None, *, max_atoms: int) -> Crystal | Rejected:
    """Parse, check and reduce one CIF text; never raises for a bad text.

    Parameters
    ----------
    id : str
    cif : str or None
        Text of a CIF file with at least one crystal; the first is taken.
    max_atoms : int
        Crystals with more atoms per cell are rejected.

    Returns
    -------
    Crystal or Rejected
    """
    try:
        require_pymatgen()
        return reduce_structure(id, read_structure(cif, max_atoms), max_atoms=max_atoms)
    except Fault as fault:
        return Rejected(id, fault.reason, fault.detail)


def reduce_structure(id: str, structure: "Structure", *, max_atoms: int) -> Crystal | Rejected:
    """Check a structure and bring it to its Niggli cell in standard orientation.

    Handedness is kept: a left-handed reduced basis is inverted together with the coordinates.

    Parameters
    ----------
    id : str
    structure : pymatgen Structure
    max_atoms : int

    Returns
    -------
    Crystal or Rejected
    """
    from pymatgen.core import Lattice

    try:
        check_sites(structure, max_atoms)
        check_cell(structure.lattice.matrix)
        try:
            reduced = structure.get_reduced_structure(reduction_algo="niggli")
        except Exception as error:
            raise Fault("singular lattice", f"no Niggli cell: {short(error)}") from error
        sign = np.sign(np.linalg.det(reduced.lattice.matrix))
        lattice = Lattice.from_parameters(*reduced.lattice.parameters)
        check_cell(lattice.matrix)
        frac = wrap(sign * reduced.frac_coords)
        check_distances(lattice, frac)
    except Fault as fault:
        return Rejected(id, fault.reason, fault.detail)
    types = np.array([site.specie.Z for site in reduced], dtype=np.int64)
    return Crystal(id, types, frac, np.array(lattice.matrix, dtype=np.float64))


def to_structure(crystal: Crystal) -> "Structure":
    """Return the pymatgen Structure of a crystal."""
    require_pymatgen()
    from pymatgen.core import Lattice, Structure

    return Structure(Lattice(crystal.lattice), crystal.atom_types.tolist(), crystal.frac)


def require_pymatgen() -> None:
    """Raise MissingExtra where pymatgen is not installed."""
    try:
        import pymatgen.core  # noqa: F401
    except ImportError as error:
        raise MissingExtra.naming("pymatgen", "crystal") from error


def wrap(frac: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring fractional coordinates into [0, 1); -1e-20 becomes 0, not 1."""
    wrapped = np.asarray(frac, dtype=np.float64) % 1.0
    wrapped[wrapped >= 1.0] = 0.0
    return wrapped


def read_structure(cif: str | None, max_atoms: int) -> "Structure":
    """Read the first crystal of a CIF text after checks that name the fault."""
    from pymatgen.io.cif import CifFile, CifParser

    if cif is None or not cif.strip():
        raise Fault("broken CIF", "empty text")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            blocks = [block.data for block in CifFile.from_str(cif).data.values()]
        except Exception as error:
            raise Fault("broken CIF", short(error)) from error
        block = next((found for found in blocks if LENGTHS[0] in found), None)
        if block is None:
            raise Fault("broken CIF", "no unit cell")
        check_block(block)
        try:
            parser = CifParser.from_str(cif, occupancy_tolerance=1.0)
            return parser.parse_structures(primitive=False)[0]
        except Exception as error:
            raise Fault("broken CIF", short(error)) from error


def check_block(block: dict[str, object]) -> None:
    """Check cell, coordinates, elements and occupancies as the file states them."""
    cell = [number(block.get(key), key) for key in (*LENGTHS, *ANGLES)]
    if not np.isfinite(cell).all():
        raise Fault("NaN lattice", f"cell {cell}")
    if min(cell) <= 0 or max(cell[3:]) >= 180:
        raise Fault("singular lattice", f"cell {cell}")
    cosines = np.cos(np.radians(cell[3:]))
    gram = 1 + 2 * cosines.prod() - (cosines**2).sum()
    if gram <= 0 or np.prod(cell[:3]) * np.sqrt(gram) < MIN_VOLUME:
        raise Fault("singular lattice", f"cell {cell}")
    columns = [column(block, key) for key in COORDS]
    if not columns[0] or len({len(found) for found in columns}) > 1:
        raise Fault("broken CIF", "no fractional coordinates")
    coords = np.array(
        [[number(text, key) for text in found] for key, found in zip(COORDS, columns, strict=True)]
    )
    if not np.isfinite(coords).all():
        raise Fault("NaN coordinates", "an atom has a coordinate that is no finite number")
    check_symbols(column(block, "_atom_site_type_symbol") or column(block, "_atom_site_label"))
    stated = [text for text in column(block, "_atom_site_occupancy") if text not in (".", "?")]
    occupancies = [number(text, "occupancy") for text in stated]
    partial = [value for value in occupancies if not abs(value - 1) < 1e-6]
    if partial:
        raise Fault("partial occupancy", f"occupancy {partial[0]:g}")
    places = {tuple(place) for place in (np.round(wrap(coords.T), 4) % 1.0).tolist()}
    if len(places) < len(columns[0]):
        raise Fault("overlapping atoms", "two atoms at one place")


def check_symbols(symbols: list[str]) -> None:
    """Check that each atom starts with the symbol of an element."""
    from pymatgen.core import Element

    if not symbols:
        raise Fault("unknown element", "no symbols")
    for symbol in dict.fromkeys(symbols):
        letters = re.match(r"[A-Za-z]*", symbol)
        name = letters.group() if letters else ""
        if not (name and Element.is_valid_symbol(name[:1].upper() + name[1:].lower())):
            raise Fault("unknown element", repr(symbol))


def check_sites(structure: "Structure", max_atoms: int) -> None:
    """Check order and number of atoms."""
    if not structure.is_ordered:
        raise Fault("partial occupancy", structure.composition.formula)
    if len(structure) == 0:
        raise Fault("broken CIF", "no atoms")
    if len(structure) > max_atoms:
        raise Fault("too many atoms", f"{len(structure)} atoms, limit {max_atoms}")


def check_cell(matrix: NDArray[np.float64]) -> None:
    """Check that a lattice is finite and spans space."""
    if not np.isfinite(matrix).all():
        raise Fault("NaN lattice", "a lattice vector is not finite")
    volume = abs(np.linalg.det(matrix))
    if volume < MIN_VOLUME:
        raise Fault("singular lattice", f"volume {volume:.3g} cubic angstrom")


def check_distances(lattice: object, frac: NDArray[np.float64]) -> None:
    """Check the shortest distance over all pairs and periodic images."""
    distances = lattice.get_all_distances(frac, frac)  # type: ignore[attr-defined]
    np.fill_diagonal(distances, min(lattice.abc))  # type: ignore[attr-defined]
    shortest = distances.min()
    if shortest < MIN_DISTANCE:
        raise Fault("overlapping atoms", f"{shortest:.3f} angstrom apart")


def column(block: dict[str, object], key: str) -> list[str]:
    """Return a CIF column as a list of texts, empty where there is none."""
    found = block.get(key, [])
    return [str(text) for text in found] if isinstance(found, list) else [str(found)]


def number(text: object, key: str) -> float:
    """Return a CIF number without its standard uncertainty, 4.02(3) -> 4.02."""
    try:
        return float(re.sub(r"\(.*\)", "", str(text)))
    except ValueError as error:
        raise Fault("broken CIF", f"{key} is {text!r}, no number") from error


def short(error: Exception) -> str:
    """First line of an error, at most 120 characters."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:120]
