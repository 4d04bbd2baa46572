"""Parsing and checks of one CIF; the truth is pymatgen's own reading or plain numpy."""

import numpy as np
import pytest

pytest.importorskip("pymatgen")

from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from orbitdiff.data.cif import Crystal, Rejected, parse_crystal, reduce_structure, to_structure


def generic(left_handed: bool = False) -> Structure:
    """A triclinic crystal of no symmetry in a skewed, far from reduced cell."""
    rng = np.random.default_rng(3)
    lattice = Lattice.from_parameters(4.1, 5.3, 6.7, 81.0, 95.0, 102.0).matrix
    frac = np.array([[0.05, 0.1, 0.2], [0.45, 0.6, 0.15], [0.7, 0.25, 0.6], [0.2, 0.8, 0.75]])
    frac = frac + 0.02 * rng.random(frac.shape)
    skew = np.array([[1, 2, 0], [0, 1, -1], [1, 2, 1]])
    assert abs(np.linalg.det(skew)) == pytest.approx(1)
    cell = skew @ lattice
    if left_handed:
        cell = cell[[1, 0, 2]]
    return Structure(cell, ["Ba", "Ti", "O", "N"], frac @ lattice, coords_are_cartesian=True)


def chirality(structure: Structure) -> float:
    """Triple product of the three nearest neighbours of the first Ba atom, by distance."""
    center = next(i for i, site in enumerate(structure) if site.specie.symbol == "Ba")
    shifts = np.stack(np.meshgrid(*[range(-4, 5)] * 3), -1).reshape(-1, 3)
    cart = structure.frac_coords[:, None] + shifts - structure.frac_coords[center]
    vectors = (cart @ structure.lattice.matrix).reshape(-1, 3)
    order = np.argsort(np.linalg.norm(vectors, axis=1))[1:4]
    return float(np.linalg.det(vectors[order]))


@pytest.mark.parametrize("left_handed", [False, True])
def test_reduction_keeps_the_crystal_and_its_handedness(left_handed: bool) -> None:
    structure = generic(left_handed)
    crystal = reduce_structure("x", structure, max_atoms=20)
    assert isinstance(crystal, Crystal)
    found = to_structure(crystal)
    assert found.lattice.volume == pytest.approx(structure.volume)
    assert found.lattice.volume == pytest.approx(np.linalg.det(crystal.lattice))
    matcher = StructureMatcher(
        primitive_cell=False, scale=False, ltol=0.01, stol=0.01, angle_tol=0.1
    )
    assert matcher.fit(structure, found)
    assert chirality(found) == pytest.approx(chirality(structure), abs=1e-6)


def test_lattice_is_niggli_reduced_and_in_standard_orientation() -> None:
    structure = generic()
    crystal = parse_crystal("x", structure.to(fmt="cif"), max_atoms=20)
    assert isinstance(crystal, Crystal)
    lattice = Lattice(crystal.lattice)
    reduced = structure.lattice.get_niggli_reduced_lattice()
    np.testing.assert_allclose(lattice.abc, reduced.abc, atol=1e-5)
    standard = Lattice.from_parameters(*lattice.parameters).matrix
    np.testing.assert_allclose(crystal.lattice, standard, atol=1e-9)
    assert ((crystal.frac >= 0) & (crystal.frac < 1)).all()


def test_symmetrised_file_becomes_p1() -> None:
    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    crystal = parse_crystal("salt", salt.to(fmt="cif", symprec=0.01), max_atoms=20)
    assert isinstance(crystal, Crystal)
    assert sorted(crystal.atom_types.tolist()) == [11] * 4 + [17] * 4


CIF = Structure(Lattice.cubic(4.0), ["Ca", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to(fmt="cif")


def cif_with(old: str, new: str) -> str:
    assert old in CIF
    return CIF.replace(old, new)


SECOND = "O  O1  1  0.50000000  0.50000000  0.50000000  1"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "broken CIF"),
        (None, "broken CIF"),
        ("not a CIF at all", "broken CIF"),
        (CIF[: CIF.index("_atom_site_type_symbol")], "broken CIF"),
        (CIF[: CIF.index("O  O1") + 12], "broken CIF"),
        (cif_with("4.00000000", "four"), "broken CIF"),
        (cif_with("_cell_length_a   4.00000000", "_cell_length_a   nan"), "NaN lattice"),
        (cif_with("_cell_length_a   4.00000000", "_cell_length_a   0.0"), "singular lattice"),
        (
            cif_with("_cell_angle_alpha   90.00000000", "_cell_angle_alpha   180.0"),
            "singular lattice",
        ),
        (
            cif_with("_cell_angle_alpha   90.00000000", "_cell_angle_alpha   0.001"),
            "singular lattice",
        ),
        (cif_with(SECOND, SECOND.replace("O  O1", "Qq  Qq1")), "unknown element"),
        (cif_with(SECOND, SECOND[:-1] + "0.5"), "partial occupancy"),
        (cif_with(SECOND, SECOND.replace("0.50000000", "nan", 1)), "NaN coordinates"),
        (cif_with(SECOND, "O  O1  1  0.05  0.0  0.0  1"), "overlapping atoms"),
        (cif_with(SECOND, "O  O1  1  0.95  0.0  0.0  1"), "overlapping atoms"),
        (cif_with(SECOND, "O  O1  1  0.0  0.0  0.0  1"), "overlapping atoms"),
        (cif_with(SECOND, "Ca  Ca1  1  0.0  0.0  0.0  1"), "overlapping atoms"),
        (cif_with("_cell_length_a   4.00000000", "_cell_length_a   0.4"), "overlapping atoms"),
    ],
)
def test_malformed_rows_are_rejected_with_their_reason(text: str | None, reason: str) -> None:
    found = parse_crystal("row", text, max_atoms=20)
    assert isinstance(found, Rejected)
    assert (found.id, found.reason) == ("row", reason), found


def test_limit_of_atoms() -> None:
    assert isinstance(parse_crystal("x", CIF, max_atoms=2), Crystal)
    found = parse_crystal("x", CIF, max_atoms=1)
    assert isinstance(found, Rejected)
    assert found.reason == "too many atoms"


def test_uncertainties_and_charges_are_read() -> None:
    text = cif_with("_cell_length_a   4.00000000", "_cell_length_a   4.02(3)")
    text = text.replace("Ca  Ca0", "Ca2+  Ca0")
    crystal = parse_crystal("x", text, max_atoms=20)
    assert isinstance(crystal, Crystal), crystal
    assert sorted(np.linalg.norm(crystal.lattice, axis=1)) == pytest.approx([4.0, 4.0, 4.02])
    assert sorted(crystal.atom_types.tolist()) == [8, 20]
