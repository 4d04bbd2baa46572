"""`orbitdiff generate text_crystals`: files, and what is said of them."""

import csv
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("pymatgen")

from pymatgen.core import Lattice, Structure

from orbitdiff.inference.demo import demo_checkpoint
from pipelines.verbs.text_crystals import judged, write_text_crystals

SITES = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


def perovskite(*species: str, c: float = 4.0) -> Structure:
    return Structure(Lattice.from_parameters(4, 4, c, 90, 90, 90), species, SITES)


def test_what_the_prompt_states_is_judged() -> None:
    drawn = {
        "a.cif": perovskite("Ba", "Ti", "O", "O", "O"),
        "b.cif": perovskite("Ba", "Ti", "O", "O", "O", c=6.0),
        "c.cif": perovskite("O", "Ti", "O", "O", "O"),
        "d.cif": Structure(Lattice.cubic(4), ["Ba", "Ti", "O"], [[0, 0, 0], [0, 0, 0.01], [0.5] * 3]),
    }  # fmt: skip
    rows = judged(drawn, "a cubic perovskite of Ba, Ti and O, stable", "")
    assert [row["file"] for row in rows] == list(drawn)
    assert [row["formula"] for row in rows] == ["BaTiO3", "BaTiO3", "TiO4", "BaTiO"]
    assert [row["spacegroup"] for row in rows[:2]] == [221, 123]
    assert [row["elements_obeyed"] for row in rows] == [True, True, False, True]
    assert [row["crystal_system_obeyed"] for row in rows[:3]] == [True, False, True]
    assert [row["valid"] for row in rows] == [True, True, True, False]
    assert not {"formula_obeyed", "spacegroup_obeyed"} & rows[0].keys()
    stated = judged(drawn, "The spacegroup number is 221.", "Ba2Ti2O6")
    assert [row["formula_obeyed"] for row in stated] == [True, True, False, False]
    assert [row["spacegroup_obeyed"] for row in stated[:2]] == [True, False]
    assert "elements_obeyed" not in stated[0]


def test_files_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_text_crystals(
        "a cubic perovskite of Ba, Ti and O", 3, tmp_path / "out", formula="", seed=1, steps=30,
        checkpoint=str(demo_checkpoint("text_crystals")), guidance=None,
    )  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "out/samples.csv").open(newline="")))
    assert {path.name for path in (tmp_path / "out").glob("*.cif")} == {r["file"] for r in rows}
    for row in rows:
        found = Structure.from_file(tmp_path / "out" / row["file"]).composition
        assert found.reduced_formula == row["formula"]
        assert {one.symbol for one in found} <= {"Ba", "Ti", "O"}
    obeyed = sum(row["elements_obeyed"] == "True" for row in rows)
    assert f"elements obeyed: {obeyed}" in capsys.readouterr().out
