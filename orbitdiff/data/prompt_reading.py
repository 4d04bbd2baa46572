"""A user's free words as the sentences of a short prompt, which is all that models have read.

"a cubic perovskite of Ba, Ti and O" says elements and crystal system: it becomes "The elements are
Ba, Ti, O. The crystal system is cubic." What no sentence of a short prompt can say is left out.
"""

import re
from dataclasses import dataclass

from orbitdiff.data.cif import require_pymatgen
from orbitdiff.data.prompts import STRUCTURAL
from orbitdiff.errors import BadInput

__all__ = ["Wording", "read_wording"]

SENTENCE = re.compile(
    r"\b(chemical formula|elements|spacegroup number|crystal system) (?:is|are) ([^.]+)", re.I
)
SYMBOL = r"[A-Z][a-z]?"
LIST = re.compile(rf"\b{SYMBOL}(?:\s*(?:,\s*and\b|,|\band\b|\bor\b|-|/)\s*{SYMBOL}\b)+")
FORMULA = re.compile(rf"(?<![\w(-])(?:{SYMBOL}\d*|\((?:{SYMBOL}\d*)+\)\d*){{2,}}(?![\w-])")
GROUP = re.compile(r"\bspace\s?group\s*(?:number|no\.?|#)?[\s:]*(?:is\s+)?([-\w/]+)", re.I)
SYSTEMS = {
    **{name: name for name in ("triclinic", "monoclinic", "orthorhombic", "tetragonal",
                               "trigonal", "hexagonal", "cubic")},
    "rhombohedral": "trigonal",
}  # fmt: skip
ANIONS = {
    "hydride": "H", "boride": "B", "carbide": "C", "nitride": "N", "oxide": "O", "fluoride": "F",
    "silicide": "Si", "phosphide": "P", "sulfide": "S", "chloride": "Cl", "arsenide": "As",
    "selenide": "Se", "bromide": "Br", "telluride": "Te", "iodide": "I",
}  # fmt: skip
WORDS = frozenset({"Am", "As", "At", "Be", "He", "In", "No"})
"""Symbols that are also English words: like single letters, elements only beside other symbols."""
ACRONYM = 3
"""So many single letters without a number are no formula (CIF, DFT)."""


@dataclass(frozen=True)
class Wording:
    """What a text says in the terms of short prompts.

    Parameters
    ----------
    formula : str
        As the text has it, empty where it has none.
    elements : tuple of str
        Symbols, the least electronegative first.
    spacegroup : int
        0 where the text names none.
    crystal_system : str
        Named, or that of the space group.
    is_prompt : bool
        The text already has sentences of short prompts.
    """

    formula: str = ""
    elements: tuple[str, ...] = ()
    spacegroup: int = 0
    crystal_system: str = ""
    is_prompt: bool = False

    def sentences(self, kind: str) -> str:
        """Return the sentences of a short prompt; empty where nothing was understood.

        Parameters
        ----------
        kind : str
            Kind `composition` has none on the structure.
        """
        from pymatgen.core import Composition

        stated = {
            "chemical formula": Composition(self.formula).reduced_formula if self.formula else "",
            "elements": ", ".join(self.elements),
            "spacegroup number": str(self.spacegroup or ""),
            "crystal system": self.crystal_system,
        }
        hidden = STRUCTURAL if kind == "composition" else ()
        return " ".join(
            f"The {name} {'are' if name == 'elements' else 'is'} {value}."
            for name, value in stated.items()
            if value and name not in hidden
        )


def read_wording(text: str) -> Wording:
    """Read formula, elements, space group and crystal system out of free words.

    Parameters
    ----------
    text : str
        Symbols (Ba, Ti and O; Ba-Ti-O), names (barium, oxide), a formula, the name of a crystal
        system, a number or symbol after "space group"; or the sentences of a short prompt.

    Raises
    ------
    BadInput
        An unknown element in a list or stated formula, or a space group that does not exist.
    MissingExtra
        pymatgen is not installed.
    """
    require_pymatgen()
    stated = {name.lower(): value.strip() for name, value in SENTENCE.findall(text)}
    group = GROUP.search(text) if "spacegroup number" not in stated else None
    if group is not None:
        text = text.replace(group[0], " ")
    formula = stated.get("chemical formula", "").split(" ")[0] or first_formula(text)
    elements = known_symbols(formula) if formula else set()
    listed = stated.get("elements")
    if listed is not None:
        symbols = [part for part in re.split(r"\s*(?:,|\band\b)\s*", listed) if part]
        elements |= known_symbols(*symbols)
    elif not stated:
        elements |= named_elements(text)
    spacegroup = group_number(stated.get("spacegroup number") or (group[1] if group else ""))
    words = [SYSTEMS[word] for word in re.findall(r"[a-z]+", text.lower()) if word in SYSTEMS]
    return Wording(
        formula,
        tuple(ordered(elements)),
        spacegroup,
        words[0] if words else system_of(spacegroup),
        bool(stated),
    )


def first_formula(text: str) -> str:
    """Return the first word that is a formula of at least two elements."""
    from pymatgen.core import Element

    for word in FORMULA.findall(text):
        symbols = re.findall(SYMBOL, word)
        acronym = word.isalpha() and word.isupper() and len(word) >= ACRONYM
        if len(symbols) > 1 and not acronym and all(map(Element.is_valid_symbol, symbols)):
            return str(word)
    return ""


def named_elements(text: str) -> set[str]:
    """Symbols of the elements that free words name."""
    from pymatgen.core import Element

    found: set[str] = set()
    for part in LIST.findall(text):
        symbols = re.findall(rf"\b{SYMBOL}\b", part)
        if sum(map(Element.is_valid_symbol, symbols)) > 1:
            found |= known_symbols(*symbols)
    found |= {
        word for word in re.findall(rf"\b{SYMBOL}\b", text)
        if len(word) > 1 and Element.is_valid_symbol(word) and word not in WORDS
    }  # fmt: skip
    names = {element.long_name.lower(): element.symbol for element in Element} | ANIONS
    return found | {names[word] for word in re.findall(r"[a-z]+", text.lower()) if word in names}


def known_symbols(*formulas: str) -> set[str]:
    """Symbols of formulas or symbols.

    Raises
    ------
    BadInput
        An unknown element.
    """
    from pymatgen.core import Element

    symbols = [symbol for formula in formulas for symbol in re.findall(r"[A-Z][a-z]*", formula)]
    unknown = [symbol for symbol in symbols if not Element.is_valid_symbol(symbol)]
    if unknown or not symbols:
        raise BadInput(f"expected chemical elements, got {unknown or list(formulas)}")
    return set(symbols)


def ordered(symbols: set[str]) -> list[str]:
    """Put symbols in the order of short prompts."""
    from pymatgen.core import Element

    return [element.symbol for element in sorted(Element(symbol) for symbol in symbols)]


def group_number(name: str) -> int:
    """Return the number of a space group given by number or symbol, 0 for no group.

    Raises
    ------
    BadInput
        A number that is none of 1 to 230.
    """
    from pymatgen.symmetry.groups import SpaceGroup

    if name.isdigit():
        if not 1 <= int(name) <= 230:
            raise BadInput(f"expected a space group of 1 to 230, got {name}")
        return int(name)
    try:
        return int(SpaceGroup(name).int_number)
    except ValueError:
        return 0


def system_of(spacegroup: int) -> str:
    """Crystal system of a space group, empty for none."""
    from pymatgen.symmetry.groups import SpaceGroup

    return str(SpaceGroup.from_int_number(spacegroup).crystal_system) if spacegroup else ""
