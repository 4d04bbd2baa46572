"""Long prompts: the texts and mineral names of stock robocrys, without its network."""

import gzip
import json
import warnings

import numpy as np
import pytest

pytest.importorskip("robocrys")

from pymatgen.core import Lattice, Structure
from robocrys import StructureCondenser, StructureDescriber
from robocrys.condense.mineral import MineralMatcher
from robocrys.condense.molecule import MoleculeNamer

from orbitdiff.data.long_prompts import condenser, describe
from orbitdiff.data.prompts import canonical_text


def rattled(structure: Structure, amplitude: float) -> Structure:
    rng = np.random.default_rng(0)
    shifts = amplitude * rng.normal(size=(len(structure), 3))
    return Structure(
        structure.lattice,
        structure.species,
        structure.cart_coords + shifts,
        coords_are_cartesian=True,
    )


SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)
PEROVSKITE = Structure(
    Lattice.tetragonal(3.9, 4.2),
    ["Ba", "Ti", "O", "O", "O"],
    [[0, 0, 0], [0.5, 0.5, 0.52], [0.5, 0.5, 0.02], [0.5, 0, 0.5], [0, 0.5, 0.5]],
)
LAYERS = Structure.from_spacegroup(
    "P6_3/mmc",
    Lattice.hexagonal(3.16, 12.3),
    ["Mo", "S"],
    [[1 / 3, 2 / 3, 0.25], [1 / 3, 2 / 3, 0.621]],
)
MOLECULES = Structure.from_spacegroup(
    "Pa-3", Lattice.cubic(5.62), ["C", "O"], [[0, 0, 0], [0.1185, 0.1185, 0.1185]]
)
ALLOY = Structure(
    Lattice.orthorhombic(3.1, 4.4, 5.2),
    ["Nd", "Al", "Cu", "Al"],
    [[0, 0, 0.1], [0.5, 0.5, 0.33], [0.5, 0, 0.7], [0, 0.5, 0.8]],
)
OXYFLUORIDE = Structure(
    Lattice.cubic(4.1),
    ["Tl", "Ru", "O", "O", "F"],
    [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
)
CRYSTALS = {
    "perovskite": PEROVSKITE,
    "layers": LAYERS,
    "molecules": MOLECULES,
    "alloy": ALLOY,
}


@pytest.fixture(autouse=True)
def quiet() -> None:
    warnings.simplefilter("ignore")


@pytest.fixture(scope="module")
def matcher() -> MineralMatcher:
    return MineralMatcher()


@pytest.fixture(scope="module")
def stock(matcher: MineralMatcher) -> dict[str, str]:
    warnings.simplefilter("ignore")
    made = StructureCondenser(mineral_matcher=matcher)
    describer = StructureDescriber(describe_oxidation_states=False, fmt="raw")
    return {
        name: canonical_text(describer.describe(made.condense_structure(structure.copy())))
        for name, structure in CRYSTALS.items()
    }


def test_texts_are_those_of_stock_robocrys(stock: dict[str, str]) -> None:
    assert len(set(stock.values())) == len(CRYSTALS)
    for _ in range(2):  # again, with tables and the last crystal in memory
        for name, structure in CRYSTALS.items():
            assert describe(structure.copy()) == stock[name]
    assert "BaTiO3" in stock["perovskite"]
    assert "P4mm" in stock["perovskite"]
    assert "Molybdenite" in stock["layers"]
    assert "two MoS2 sheets oriented in the (0, 0, 1) direction" in stock["layers"]
    assert "Cyanogen Chloride-derived" in stock["molecules"], "molecules as single sites"


def test_the_structure_is_left_as_it_was() -> None:
    structure = PEROVSKITE.copy()
    structure.translate_sites([0], [1.2, 0, 0], to_unit_cell=False)
    before = structure.copy()
    describe(structure)
    np.testing.assert_array_equal(structure.frac_coords, before.frac_coords)
    assert structure.species == before.species


@pytest.mark.parametrize(
    ("structure", "matched", "same_number"),
    [
        (SALT, True, True),
        (rattled(SALT, 0.4), False, True),
        (OXYFLUORIDE, False, False),
        (ALLOY, None, True),
    ],
    ids=["match", "near", "other number of elements", "none"],
)
def test_minerals_are_those_of_the_stock_matcher(
    structure: Structure, matched: bool | None, same_number: bool, matcher: MineralMatcher
) -> None:
    ours = condenser().mineral_matcher.get_best_mineral_name(structure)
    assert ours == matcher.get_best_mineral_name(structure)
    assert (ours["type"] is None) == (matched is None)
    assert (ours["distance"] == -1) == (matched is not False)
    assert ours["n_species_type_match"] == same_number


def test_no_name_comes_from_the_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """A molecule that no table knows, where openbabel is there to write its SMILES."""

    def ask(*_: object) -> None:
        raise AssertionError("asked PubChem")

    monkeypatch.setattr(MoleculeNamer, "molecule_graph_to_smiles", lambda *_: "[Og]=[Og]")
    monkeypatch.setattr(MoleculeNamer, "get_name_from_pubchem", ask)
    assert "CO2" in describe(MOLECULES.copy())
    with pytest.raises(AssertionError, match="PubChem"):
        StructureCondenser(mineral_matcher=False).condense_structure(MOLECULES.copy())


def test_texts_are_the_ready_ones() -> None:
    from orbitdiff.data.sources import data_root
    from orbitdiff.data.tables import read_cif_table

    root = data_root()
    if root is None:
        pytest.skip("no data: set ORBITDIFF_DATA")
    folder = root / "crystals"
    for texts, table in (
        ("perov_5_train_head1024", "perov_5/train_head1024"),
        ("mp_20_train", "mp_20/train_part"),
    ):
        packed = (folder / "long_prompts" / f"{texts}.jsonl.gz").read_bytes()
        rows = map(json.loads, gzip.decompress(packed).decode().splitlines())
        ready = {row["material_id"]: row["text"] for row in rows}
        known = [row for row in read_cif_table(folder / f"{table}.csv.gz") if row[0] in ready]
        for id, cif in known[:6]:
            assert describe(Structure.from_str(cif, fmt="cif")) == canonical_text(ready[id])
