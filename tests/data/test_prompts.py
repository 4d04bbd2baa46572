"""Short prompts: format by hand-written examples, symmetry by construction, order by the seed."""

import gzip
import re
from collections import Counter
from dataclasses import replace
from math import factorial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pymatgen")
pytest.importorskip("pyarrow")

from pymatgen.core import Lattice, Structure

from orbitdiff.data.cif import Crystal, parse_crystal, reduce_structure
from orbitdiff.data.crystals import crystal_schema, crystal_to_row
from orbitdiff.data.prompts import (
    PromptFields,
    canonical_text,
    field_columns,
    fields_to_row,
    prompt,
    prompt_fields,
    read_properties,
    rows_to_fields,
)
from orbitdiff.data.store import read_shards, row_schema, write_shards
from orbitdiff.errors import BadInput

ND = PromptFields(
    "mp-974729",
    "Nd(Al2Cu)4",
    ("Nd", "Al", "Cu"),
    139,
    "tetragonal",
    {
        "formation_energy_per_atom": -0.3147590238461542,
        "band_gap": 0.0,
        "e_above_hull": 0.0,
    },
)
SENTENCES = {
    "The chemical formula is Nd(Al2Cu)4.",
    "The band gap is 0.0.",
    "The elements are Nd, Al, Cu.",
    "The energy above the convex hull is 0.0.",
    "The crystal system is tetragonal.",
    "The formation energy per atom is -0.3148.",
    "The spacegroup number is 139.",
}
START, END = "Below is a description of a bulk material. ", " Generate the material:"


def body(text: str) -> list[str]:
    assert text.startswith(START)
    assert text.endswith(END)
    return re.split(r"(?<=\.) (?=The)", text[len(START) : -len(END)])


def test_short_prompt_says_each_field_once_in_the_published_words() -> None:
    found = body(prompt(ND, "short", seed=0))
    assert len(found) == 7
    assert set(found) == SENTENCES


def test_leak_free_prompt_is_the_short_one_without_symmetry() -> None:
    for seed in range(20):
        kept = [
            sentence
            for sentence in body(prompt(ND, "composition", seed=seed))
            if "spacegroup" not in sentence and "crystal system" not in sentence
        ]
        assert len(kept) == 5
        assert kept == [
            sentence
            for sentence in body(prompt(ND, "short", seed=seed))
            if "139" not in sentence and "tetragonal" not in sentence
        ]
    assert "139" not in prompt(ND, "composition", seed=0)
    assert "tetragonal" not in prompt(ND, "composition", seed=0)


def test_order_depends_on_seed_and_id_alone() -> None:
    assert prompt(ND, "short", seed=3) == prompt(replace(ND), "short", seed=3)
    seeds = {prompt(ND, "short", seed=seed) for seed in range(40)}
    ids = {prompt(replace(ND, id=str(number)), "short", seed=0) for number in range(40)}
    assert len(seeds) > 35
    assert len(ids) > 35


def test_all_orders_are_equally_likely() -> None:
    few = replace(ND, properties={})
    draws = 2400
    orders = Counter(prompt(few, "short", seed=seed) for seed in range(draws))
    assert len(orders) == factorial(4)
    expected = draws / factorial(4)
    chi2 = sum((count - expected) ** 2 / expected for count in orders.values())
    assert chi2 < 49.7  # 0.999 quantile of chi-square with 23 degrees of freedom


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.709152583232041, "2.7092"), (-0.00001, "0.0"), (3.0, "3.0"), (-1.63746, "-1.6375")],
)
def test_values_have_four_decimals(value: float, text: str) -> None:
    fields = replace(ND, properties={"band_gap": value})
    assert f"The band gap is {text}." in body(prompt(fields, "short", seed=0))


def test_long_is_no_prompt_of_fields() -> None:
    with pytest.raises(BadInput, match="short"):
        prompt(ND, "long", seed=0)


KNOWN = [
    ("Fm-3m", 225, "cubic", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    ("P6_3/mmc", 194, "hexagonal", Lattice.hexagonal(3.2, 5.2), ["Mg"], [[1 / 3, 2 / 3, 0.25]]),
    ("P4_2/mnm", 136, "tetragonal", Lattice.tetragonal(4.6, 2.96), ["Ti", "O"],
     [[0, 0, 0], [0.305, 0.305, 0]]),
    ("R-3c", 167, "trigonal", Lattice.hexagonal(4.76, 12.99), ["Al", "O"],
     [[0, 0, 0.352], [0.306, 0, 0.25]]),
    ("Pnma", 62, "orthorhombic", Lattice.orthorhombic(5.44, 7.64, 5.38), ["Ca", "Ti", "O", "O"],
     [[0.036, 0.25, 0.993], [0, 0, 0.5], [0.484, 0.25, 0.071], [0.289, 0.037, 0.711]]),
    ("P2_1/c", 14, "monoclinic", Lattice.monoclinic(5.15, 5.21, 5.31, 99.2), ["Zr", "O", "O"],
     [[0.275, 0.04, 0.208], [0.07, 0.332, 0.345], [0.45, 0.757, 0.479]]),
]  # fmt: skip


@pytest.mark.parametrize("known", KNOWN, ids=[row[0] for row in KNOWN])
def test_symmetry_is_that_the_crystal_was_built_with(known: tuple) -> None:
    symbol, number, system, lattice, species, sites = known
    crystal = reduce_structure(
        "x", Structure.from_spacegroup(symbol, lattice, species, sites), max_atoms=40
    )
    assert isinstance(crystal, Crystal)
    fields = prompt_fields(crystal, {})
    assert (fields.spacegroup, fields.crystal_system) == (number, system)


def perovskite(id: str = "6334") -> Crystal:
    sites = [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Crystal(id, np.array([29, 48, 7, 7, 7]), np.array(sites), np.eye(3) * 4.28)


def test_fields_of_a_crystal() -> None:
    values = {"formation_energy_per_atom": 2.709152583232041, "band_gap": float("nan")}
    fields = prompt_fields(perovskite(), values)
    assert fields == PromptFields(
        "6334",
        "CdCuN3",
        ("Cd", "Cu", "N"),
        221,
        "cubic",
        {"formation_energy_per_atom": 2.709152583232041},
    )
    with pytest.raises(BadInput, match="hardness"):
        prompt_fields(perovskite(), {"hardness": 1.0})


def test_fields_survive_parquet_beside_their_crystal(tmp_path: Path) -> None:
    fields = [prompt_fields(perovskite("a"), {"band_gap": 1.5}), prompt_fields(perovskite("b"), {})]
    columns = {field.name: field.type for field in crystal_schema()}
    schema = row_schema("text_crystals", 1, {**columns, **field_columns()})
    rows = [crystal_to_row(perovskite(one.id)) | fields_to_row(one) for one in fields]
    paths = write_shards(rows, tmp_path, schema=schema, name="train")
    assert rows_to_fields(read_shards(paths, schema=schema)) == fields


def test_properties_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "table.csv.gz"
    lines = [
        "material_id,cif,heat_ref,band_gap,e_above_hull,other",
        "one,x,2.5,,nan,7",
        "two,x,none,0.25,1e-3,7",
    ]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    assert read_properties(path) == {
        "one": {"formation_energy_per_atom": 2.5},
        "two": {"band_gap": 0.25, "e_above_hull": 0.001},
    }
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(BadInput, match="copy or download"):
        read_properties(path)
    with pytest.raises(BadInput, match="nowhere"):
        read_properties(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("written", "fixed"),
    [
        ("a mixture of distorted face, edge, and corner-sharing CuO6",
         "a mixture of distorted corner, edge, and face-sharing CuO6"),
        ("a mixture of edge and corner-sharing TiO6", "a mixture of corner and edge-sharing TiO6"),
        ("to form corner-sharing TiO6 octahedra", "to form corner-sharing TiO6 octahedra"),
        ("that share faces with two, edges with six, and corners with one",
         "that share faces with two, edges with six, and corners with one"),
        ("one sheet oriented in the (1, 0, 0) and (0, 0, 1) directions. In the (1, 0, 0)",
         "one sheet oriented in the (0, 0, 1) and (1, 0, 0) directions. In the (1, 0, 0)"),
        ("two sheets oriented in the (np.int64(0), np.int64(0), np.int64(-1)) direction.",
         "two sheets oriented in the (0, 0, -1) direction."),
        ("sheets oriented in the (np.int64(1), np.int64(0), np.int64(0)) and (np.int64(0), np.int64(1), "
         "np.int64(0)) directions.", "sheets oriented in the (0, 1, 0) and (1, 0, 0) directions."),
        ("ribbons oriented in the (1, 0, 0); (0, 1, 0); and (0, 0, 1) directions.",
         "ribbons oriented in the (0, 0, 1); (0, 1, 0); and (1, 0, 0) directions."),
    ],
)  # fmt: skip
def test_chance_and_printing_are_taken_out(written: str, fixed: str) -> None:
    assert canonical_text(written) == fixed
    assert canonical_text(fixed) == fixed


def test_examples_of_the_data_description() -> None:
    """The two prompts that the data's README writes out, from the raw rows."""
    from orbitdiff.data.sources import data_root
    from orbitdiff.data.tables import read_cif_table

    root = data_root()
    if root is None:
        pytest.skip("no data: set ORBITDIFF_DATA")
    for name, id, sentences in (
        ("mp_20/train_part", "mp-974729", SENTENCES),
        (
            "perov_5/val",
            "18517",
            {
                "The elements are Cd, Cu, N.",
                "The formation energy per atom is 2.7092.",
                "The spacegroup number is 221.",
                "The chemical formula is CdCuN3.",
                "The crystal system is cubic.",
            },
        ),
    ):
        path = root / "crystals" / f"{name}.csv.gz"
        cif = next(cif for found, cif in read_cif_table(path) if found == id)
        crystal = parse_crystal(id, cif, max_atoms=20)
        assert isinstance(crystal, Crystal)
        fields = prompt_fields(crystal, read_properties(path)[id])
        assert set(body(prompt(fields, "short", seed=0))) == sentences
