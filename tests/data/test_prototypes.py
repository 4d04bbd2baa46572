"""The built-in data set: deterministic, without leaks, physically plausible."""

import numpy as np
import pytest

pytest.importorskip("pymatgen")

from orbitdiff.data.cif import Crystal
from orbitdiff.data.prototypes import build_crystal, choose_decorations, library
from orbitdiff.errors import BadInput


def test_choice_is_fixed_unique_and_a_prefix() -> None:
    chosen = choose_decorations(600, max_atoms=20)
    assert len({found.id for found in chosen}) == len(chosen) == 600
    assert chosen[:100] == choose_decorations(100, max_atoms=20)
    assert len({found.prototype for found in chosen}) > 150


def test_formula_of_the_id_is_that_of_the_crystal() -> None:
    for found in choose_decorations(60, max_atoms=12):
        crystal = build_crystal(found, max_atoms=12)
        if isinstance(crystal, Crystal):
            from pymatgen.core import Composition, Element

            built = Composition(
                {
                    Element.from_Z(int(z)).symbol: int(n)
                    for z, n in zip(*np.unique(crystal.atom_types, return_counts=True), strict=True)
                }
            )
            assert built == Composition(found.id.split(":")[1])
            assert len(crystal.atom_types) <= 12
            volume = abs(np.linalg.det(crystal.lattice)) / len(crystal.atom_types)
            assert 5 <= volume <= 80


def test_undecorated_prototype_keeps_its_volume() -> None:
    for found in choose_decorations(300, max_atoms=8):
        if all(old == new for old, new in found.elements):
            crystal = build_crystal(found, max_atoms=8)
            stored = library()[found.prototype]["snl"]["lattice"]["volume"]
            if isinstance(crystal, Crystal):
                assert abs(np.linalg.det(crystal.lattice)) == pytest.approx(stored, rel=1e-6)
                return
    pytest.fail("no undecorated prototype was chosen")


def test_bad_settings() -> None:
    with pytest.raises(BadInput, match="at least 1"):
        choose_decorations(0, max_atoms=20)
    with pytest.raises(BadInput, match="max_atoms"):
        choose_decorations(10, max_atoms=0)
