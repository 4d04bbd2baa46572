"""Free words read as the fields of short prompts."""

import pytest

pytest.importorskip("pymatgen")

from orbitdiff.data.prompt_reading import read_wording
from orbitdiff.data.prompts import PromptFields, prompt
from orbitdiff.errors import BadInput

BTO = ("Ba", "Ti", "O")


@pytest.mark.parametrize(
    ("text", "formula", "elements", "spacegroup", "system"),
    [
        ("a cubic perovskite of Ba, Ti and O, stable", "", BTO, 0, "cubic"),
        ("Ba-Ti-O", "", BTO, 0, ""),
        ("barium titanium oxide, tetragonal", "", BTO, 0, "tetragonal"),
        ("BaTiO3 in space group 221", "BaTiO3", BTO, 221, "cubic"),
        ("space group Pm-3m of In, As", "", ("In", "As"), 221, "cubic"),
        ("space group: P6_3/mmc", "", (), 194, "hexagonal"),
        ("rhombohedral Bi2Te3", "Bi2Te3", ("Bi", "Te"), 0, "trigonal"),
        ("Nd(Al2Cu)4", "Nd(Al2Cu)4", ("Nd", "Al", "Cu"), 0, ""),
        ("a CIF of NaCl by DFT", "NaCl", ("Na", "Cl"), 0, ""),
        # English words and site names are no elements
        ("In this case, as No one saw, He has A and B sites", "", (), 0, ""),
        ("something stable", "", (), 0, ""),
    ],
)
def test_free_words(
    text: str, formula: str, elements: tuple[str, ...], spacegroup: int, system: str
) -> None:
    found = read_wording(text)
    assert (found.formula, found.elements) == (formula, elements)
    assert (found.spacegroup, found.crystal_system) == (spacegroup, system)
    assert not found.is_prompt


@pytest.mark.parametrize("kind", ["short", "composition"])
def test_sentences_are_those_of_prompts(kind: str) -> None:
    fields = PromptFields("x", "BaTiO3", BTO, 99, "tetragonal", {})
    whole = prompt(fields, kind, seed=0)
    said = read_wording("Ba2Ti2O6 in space group P4mm").sentences(kind)
    for sentence in said.removesuffix(".").split(". "):
        assert f"{sentence}. " in whole
    assert said.count(". ") + 1 == whole.count(" is ") + whole.count(" are ") - 1


def test_a_prompt_is_read_as_what_it_states() -> None:
    fields = PromptFields("x", "BaTiO3", BTO, 221, "cubic", {"formation_energy_per_atom": -1.5})
    found = read_wording(prompt(fields, "short", seed=1))
    assert found.is_prompt
    assert (found.formula, found.elements) == ("BaTiO3", BTO)
    assert (found.spacegroup, found.crystal_system) == (221, "cubic")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("The elements are Ba, Qq.", "Qq"),
        ("The chemical formula is XxO2.", "Xx"),
        ("an oxide of Ba, Ti and Xx", "Xx"),
        ("space group 300", "1 to 230, got 300"),
    ],
)
def test_what_does_not_exist_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_wording(text)
