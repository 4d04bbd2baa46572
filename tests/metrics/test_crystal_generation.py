"""Generated crystals: same crystals are found, shares and distances are those counted by hand."""

import numpy as np
import pytest

pytest.importorskip("pymatgen")

from orbitdiff.data.crystals import Crystal
from orbitdiff.data.prompts import PromptFields, prompt_fields
from orbitdiff.metrics import crystal_coverage as cov
from orbitdiff.metrics.crystal_generation import Sample, judge_generation
from orbitdiff.metrics.crystals import Tolerances
from orbitdiff.metrics.text_obedience import Asked, obedience, obeyed, wanted_of


def parallel(function, items, *, description):
    return [function(item) for item in items]


def cubic(name: str, types: list[int], sites: list[list[float]], edge: float) -> Crystal:
    return Crystal(name, np.array(types), np.array(sites, dtype=float), np.eye(3) * edge)


def pair(name: str, a: int, b: int, edge: float = 4.1) -> Crystal:
    return cubic(name, [a, b], [[0, 0, 0], [0.5] * 3], edge)


def perovskite(name: str, edge: float = 4.0, stretch: float = 1.0) -> Crystal:
    sites = [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    lattice = np.diag([edge, edge, edge * stretch])
    return Crystal(name, np.array([56, 22, 8, 8, 8]), np.array(sites, dtype=float), lattice)


ASKED = PromptFields("p", "BaTiO3", ("Ba", "Ti", "O"), 221, "cubic", {})


def test_obedience_of_known_structures() -> None:
    found = obeyed(Asked("p", 0, perovskite("p"), ASKED))
    assert (found.formula, found.elements, found.crystal_system, found.spacegroup) == (True,) * 4
    assert found.found_spacegroup == 221
    within = obeyed(Asked("p", 0, perovskite("p", stretch=1.01), ASKED))
    assert within.spacegroup
    tall = obeyed(Asked("p", 0, perovskite("p", stretch=1.2), ASKED))
    assert (tall.formula, tall.crystal_system, tall.found_spacegroup) == (True, False, 123)
    assert not tall.cell_system
    moved = perovskite("p")
    moved.frac[4] += 0.2
    found = obeyed(Asked("p", 0, moved, ASKED))
    assert (found.crystal_system, found.spacegroup, found.cell_system) == (False, False, True)
    salt = obeyed(Asked("p", 0, pair("p", 55, 17), ASKED))
    assert (salt.formula, salt.elements, salt.crystal_system, salt.spacegroup) == (
        False, False, True, True,
    )  # fmt: skip


def test_a_crystal_obeys_the_text_that_was_written_of_it() -> None:
    # cubic at 0.2 angstrom, orthorhombic at the 0.01 of its text
    moved = perovskite("p")
    moved.frac[1] += [0.01, 0.005, 0.02]
    text = prompt_fields(moved, {})
    assert (text.crystal_system, text.spacegroup) == ("triclinic", 1)
    wanted = wanted_of(text, moved)
    assert (wanted.crystal_system, wanted.spacegroup) == ("cubic", 221)
    found = obeyed(Asked("p", 0, moved, wanted))
    assert all((found.formula, found.elements, found.crystal_system, found.spacegroup))
    assert found.cell_system


@pytest.mark.parametrize(
    ("edges", "angles", "system"),
    [
        ((4, 4, 4), (90, 90, 90), "cubic"),
        ((4, 4, 5), (90, 90, 90), "tetragonal"),
        ((4, 5, 6), (90, 90, 90), "orthorhombic"),
        ((4, 5, 6), (90, 105, 90), "monoclinic"),
        ((4, 5, 6), (80, 105, 95), "triclinic"),
        ((4, 4, 6), (90, 90, 120), "hexagonal"),
        ((4, 4, 4), (75, 75, 75), "trigonal"),
    ],
)
def test_a_cell_holds_the_systems_whose_rotations_it_has(
    edges: tuple[float, ...], angles: tuple[float, ...], system: str
) -> None:
    from pymatgen.core import Lattice

    order = {"triclinic": 1, "monoclinic": 2, "orthorhombic": 4, "tetragonal": 8, "trigonal": 6,
             "hexagonal": 12, "cubic": 24}  # fmt: skip
    holds = {
        "cubic": set(order) - {"hexagonal"}, "hexagonal": set(order) - {"tetragonal", "cubic"},
        "tetragonal": {"triclinic", "monoclinic", "orthorhombic", "tetragonal"},
        "trigonal": {"triclinic", "monoclinic", "trigonal"},
        "orthorhombic": {"triclinic", "monoclinic", "orthorhombic"},
        "monoclinic": {"triclinic", "monoclinic"}, "triclinic": {"triclinic"},
    }[system]  # fmt: skip
    # the rotations of a subgroup divide those of the group
    assert all(order[system] % order[part] == 0 for part in holds)
    lattice = Lattice.from_parameters(*edges, *angles).matrix
    atom = Crystal("p", np.array([1]), np.zeros((1, 3)), lattice)
    for asked in order:
        fields = PromptFields("p", "H2", ("H",), 1, asked, {})
        assert obeyed(Asked("p", 0, atom, fields)).cell_system == (asked in holds), asked


def test_obedience_ignores_the_cell_but_not_the_formula() -> None:
    lattice = np.diag([8.0, 4.0, 4.0])
    one = perovskite("p")
    frac = np.concatenate([one.frac * [0.5, 1, 1], one.frac * [0.5, 1, 1] + [0.5, 0, 0]])
    doubled = Crystal("p", np.tile(one.atom_types, 2), frac, lattice)
    found = obeyed(Asked("p", 0, doubled, ASKED))
    assert found.formula
    assert found.spacegroup
    swapped = Crystal("p", np.array([56, 22, 22, 8, 8]), one.frac, one.lattice)
    found = obeyed(Asked("p", 0, swapped, ASKED))
    assert (found.formula, found.elements) == (False, True)


def test_a_crystal_without_symmetry_disobeys() -> None:
    flat = Crystal("p", np.array([56, 22]), np.zeros((2, 3)), np.diag([1e-9, 1.0, 1.0]))
    found = obeyed(Asked("p", 0, flat, ASKED))
    assert (found.crystal_system, found.spacegroup, found.found_spacegroup) == (False, False, 0)


def test_shares_of_a_set() -> None:
    asked = [
        Asked("p", k, perovskite("p", stretch=s), ASKED) for k, s in enumerate((1, 1, 1.2, 1.3))
    ]
    summary = obedience(asked, parallel=parallel).summary
    assert (summary["formula"], summary["spacegroup"], summary["all_fields"]) == (1.0, 0.5, 0.5)
    assert summary["symprec"] == 0.2


def generated() -> list[Sample]:
    crystals = [
        pair("a", 55, 17), pair("b", 55, 17, 4.11), pair("c", 55, 35, 4.3),
        pair("d", 19, 17, 0.4), pair("e", 9, 8, 4.0),
    ]  # fmt: skip
    return [Sample(one.id, 0, one) for one in crystals]


def test_validity_uniqueness_novelty_by_hand() -> None:
    training = [pair("t", 55, 35, 4.29), pair("u", 11, 17)]
    references = [pair("r", 55, 17), perovskite("s")]
    result = judge_generation(
        generated(), references, training, tolerances=Tolerances(), parallel=parallel,
        with_coverage=False,
    )  # fmt: skip
    rows = {row.id: row for row in result.per_sample}
    assert [rows[name].unique for name in "abcde"] == [True, False, True, True, True]
    assert [rows[name].novel for name in "abcde"] == [True, True, False, True, True]
    assert [rows[name].valid_structure for name in "abcde"] == [True, True, True, False, True]
    assert [rows[name].valid_composition for name in "abcde"] == [True, True, True, True, False]
    summary = result.summary
    assert summary["valid"] == pytest.approx(3 / 5)
    assert summary["valid_unique_novel"] == pytest.approx(1 / 5)
    # three valid samples of 2 elements against one of 2 and one of 3
    assert summary["num_elements_distance"] == pytest.approx(0.5)
    density = (132.905 + 35.45) * 1.66053907 / 4.1**3
    assert rows["a"].density == pytest.approx(density, rel=1e-3)


def test_distance_of_equal_sets_is_zero() -> None:
    samples = [Sample("a", 0, pair("a", 55, 17)), Sample("s", 0, perovskite("s"))]
    references = [one.crystal for one in samples]
    summary = judge_generation(
        samples, references, [], tolerances=Tolerances(), parallel=parallel, with_coverage=False
    ).summary
    assert summary["density_distance"] == 0.0
    assert summary["num_elements_distance"] == 0.0
    assert (summary["unique"], summary["novel"]) == (1.0, 1.0)


def point(structure: float, composition: float) -> cov.Fingerprint:
    return cov.Fingerprint(np.array([structure, 0.0]), np.array([composition]))


def test_coverage_by_hand() -> None:
    references = [point(0.0, -1.0), point(1.0, 1.0), None]  # standardised as they are
    made = [point(0.1, -1.0), point(0.15, -0.5), point(1.0, 9.0), None]
    found = cov.coverage(made, references, cutoffs=(0.2, 4.0))
    assert found == {"cov_r": 0.5, "cov_p": 0.5}
    assert cov.coverage(made, references, cutoffs=(0.2, 9.0))["cov_r"] == 1.0
    assert cov.coverage(made, references, cutoffs=(0.12, 0.4))["cov_p"] == 0.25
    assert cov.coverage([None], references) == {"cov_r": 0.0, "cov_p": 0.0}


def test_fingerprint_is_that_of_the_crystal_not_of_its_cell() -> None:
    pytest.importorskip("matminer")
    one = pair("a", 55, 17)
    frac = np.concatenate([one.frac * [0.5, 1, 1], one.frac * [0.5, 1, 1] + [0.5, 0, 0]])
    doubled = Crystal("a", np.tile(one.atom_types, 2), frac, np.diag([8.2, 4.1, 4.1]))
    bad = Crystal("b", np.array([55]), np.zeros((1, 3)), np.eye(3) * 1e-6)
    first, second, other, none = cov.fingerprints(
        [one, doubled, perovskite("p"), bad], parallel=parallel
    )
    assert none is None
    np.testing.assert_allclose(first.structure, second.structure, atol=1e-6)
    np.testing.assert_allclose(first.composition, second.composition, atol=1e-9)
    assert np.abs(first.structure - other.structure).max() > 0.1
