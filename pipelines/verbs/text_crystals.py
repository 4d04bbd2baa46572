"""`orbitdiff generate text_crystals`: CIF files of crystals that a text describes."""

from pathlib import Path

import typer

from pipelines.verbs.notes import noting
from pipelines.verbs.options import choose

__all__ = ["write_text_crystals"]


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
    """Draw structures for a prompt and write CIF files into a folder.

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
        TextCutWarning,
        generate_text_crystals,
    )

    folder = choose(checkpoint, "text_crystals").folder
    with noting(TextCutWarning, RewordedWarning), tqdm(desc="steps", leave=False) as bar:

        def show(step: int, total: int, state: object) -> None:
            bar.total = total
            bar.update(step - bar.n)

        structures = generate_text_crystals(
            prompt, n, formula=formula or None, checkpoint=folder, seed=seed, guidance=guidance,
            steps=steps, callback=show,
        )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    for index, structure in enumerate(structures):
        name = formula or structure.composition.formula.replace(" ", "")
        structure.to(str(out / f"{name}_{index}.cif"), fmt="cif")
    typer.echo(f"wrote {len(structures)} CIF files to {out}")
