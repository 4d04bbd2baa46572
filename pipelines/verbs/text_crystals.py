"""`orbitdiff generate text_crystals`: CIF files of crystals that a text describes."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from orbitdiff.export import write_csv
from pipelines.verbs.notes import noting
from pipelines.verbs.options import choose

if TYPE_CHECKING:
    from pymatgen.core import Structure

__all__ = ["judged", "write_text_crystals"]

TABLE = "samples.csv"
OBEYED = "_obeyed"


def write_text_crystals(
    prompt: str,
    n: int,
    out: Path,
    *,
    formula: str,
    checkpoint: str,
    seed: int,
    guidance: float | None,
    steps: int | None,
) -> None:
    """Draw structures for a prompt; write CIF files and a table of what each one is.

    Parameters
    ----------
    prompt : str
    n : int
    out : Path
        Made where it does not exist.
    formula : str
        Empty: the elements are drawn too, or read from the prompt.
    checkpoint : str
    seed : int
    guidance : float or None
    steps : int or None

    Raises
    ------
    BadInput
        Empty prompt, unknown element, bad formula.
    """
    from tqdm import tqdm

    from orbitdiff.inference.text_crystals import (
        RewordedWarning,
        SizeWarning,
        TextCutWarning,
        generate_text_crystals,
    )

    folder = choose(checkpoint, "text_crystals").folder
    with (
        noting(TextCutWarning, RewordedWarning, SizeWarning),
        tqdm(desc="steps", leave=False) as bar,
    ):

        def show(step: int, total: int, state: object) -> None:
            bar.total = total
            bar.update(step - bar.n)

        structures = generate_text_crystals(
            prompt, n, formula=formula or None, checkpoint=folder, seed=seed, guidance=guidance,
            steps=steps, callback=show,
        )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    drawn = {
        f"{formula or structure.composition.formula.replace(' ', '')}_{index}.cif": structure
        for index, structure in enumerate(structures)
    }
    for name, structure in drawn.items():
        structure.to(str(out / name), fmt="cif")
    rows = judged(drawn, prompt, formula)
    write_csv(rows, out / TABLE)
    counted = ["valid", *(key for key in rows[0] if key.endswith(OBEYED))]
    counts = ", ".join(
        f"{key.replace('_', ' ')}: {sum(row[key] for row in rows)}" for key in counted
    )
    typer.echo(f"wrote {len(structures)} CIF files and {TABLE} to {out}; {counts}")


def judged(drawn: "Mapping[str, Structure]", prompt: str, formula: str) -> list[dict[str, Any]]:
    """Say of each structure what it is, and whether it has what its prompt states.

    Parameters
    ----------
    drawn : mapping of file name to pymatgen Structure
    prompt, formula : str
        As the user gave them; an empty formula is read from the prompt.

    Returns
    -------
    list of dict
        `file`, `formula`, `spacegroup` (at 0.2 angstrom and 5 degrees, 0 where none was found),
        `valid`, and `elements_obeyed`, `formula_obeyed`, ... of what the prompt states.
    """
    import numpy as np
    from pymatgen.core import Composition

    from orbitdiff.data.cif import Crystal, wrap
    from orbitdiff.data.prompt_reading import read_wording
    from orbitdiff.data.prompts import PromptFields
    from orbitdiff.metrics.crystals import valid_crystal
    from orbitdiff.metrics.text_obedience import Asked, obeyed

    wording = read_wording(prompt)
    reduced = formula or wording.formula
    reduced = Composition(reduced).reduced_formula if reduced else ""
    fields = PromptFields(
        "", reduced, wording.elements, wording.spacegroup, wording.crystal_system, {}
    )
    stated = {
        "formula": bool(reduced), "elements": bool(wording.elements) and not formula,
        "crystal_system": bool(wording.crystal_system), "spacegroup": bool(wording.spacegroup),
    }  # fmt: skip
    rows = []
    for file, structure in drawn.items():
        crystal = Crystal(
            file, np.array(structure.atomic_numbers), wrap(structure.frac_coords),
            structure.lattice.matrix,
        )  # fmt: skip
        found = obeyed(Asked(file, 0, crystal, fields))
        rows.append({
            "file": file,
            "formula": structure.composition.reduced_formula,
            "spacegroup": found.found_spacegroup,
            "valid": valid_crystal(crystal),
            **{f"{name}{OBEYED}": getattr(found, name) for name, said in stated.items() if said},
        })  # fmt: skip
    return rows
