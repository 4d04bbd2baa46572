"""`orbitdiff generate TASK`: draw samples for a user's own input, as native files."""

from pathlib import Path
from typing import Annotated

import typer

from orbitdiff.errors import BadInput
from pipelines.stages.conformers.build import read_smiles
from pipelines.verbs.notes import noting
from pipelines.verbs.options import CheckpointName, Seed, choose, known_task
from pipelines.verbs.text_crystals import write_text_crystals

__all__ = ["generate"]


def generate(
    task: str,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder; conformers: .sdf file.")],
    formula: Annotated[str, typer.Option(help="crystals: atoms of a cell, as BaTiO3.")] = "",
    smiles: Annotated[str, typer.Option(help="conformers: one molecule, such as CCO.")] = "",
    file: Annotated[
        Path | None, typer.Option(help="conformers: .smi or .csv with a SMILES a line.")
    ] = None,
    length: Annotated[int, typer.Option(help="backbones: residues of a chain.")] = 0,
    lengths: Annotated[str, typer.Option(help="backbones: several, as 60,80,100.")] = "",
    prompt: Annotated[
        str, typer.Option(help="text_crystals: what to draw; --formula where it is known.")
    ] = "",
    guidance: Annotated[
        float | None, typer.Option(help="text_crystals: weight of the text; default: the model's.")
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Number of samples, of each input.")] = 8,
    steps: Annotated[int, typer.Option(help="Sampler steps; default: the model's.")] = 0,
    checkpoint: CheckpointName = "",
    seed: Seed = 0,
) -> None:
    """Draw structures of a composition (CIF), conformers of molecules (SDF), chains (PDB)."""
    known_task(task, ("crystals", "conformers", "backbones", "text_crystals"))
    if steps < 0:
        raise BadInput(f"expected --steps of at least 1, got {steps}")
    if task == "text_crystals":
        write_text_crystals(
            prompt, n, out, formula=formula, checkpoint=checkpoint, seed=seed,
            guidance=guidance, steps=steps or None,
        )  # fmt: skip
        return
    if task == "crystals":
        if not formula:
            raise BadInput("expected --formula, such as --formula BaTiO3")
        write_crystals(formula, n, out, checkpoint=checkpoint, seed=seed, steps=steps or None)
        return
    if task == "backbones":
        if (length != 0) == bool(lengths):
            raise BadInput("expected either --length, such as 80, or --lengths, such as 60,80,100")
        asked = lengths or str(length)
        write_backbones(asked, n, out, checkpoint=checkpoint, seed=seed, steps=steps or None)
        return
    if bool(smiles) == (file is not None):
        raise BadInput("expected either --smiles or --file")
    names = [smiles] if file is None else read_smiles(file)
    write_conformers(names, n, out, checkpoint=checkpoint, seed=seed, steps=steps or None)


def write_crystals(
    formula: str, n: int, out: Path, *, checkpoint: str, seed: int, steps: int | None
) -> None:
    """Draw structures of a composition and write CIF files into a folder."""
    from orbitdiff.inference.crystals import generate_crystals

    folder = choose(checkpoint, "crystals").folder
    structures = generate_crystals(formula, n, checkpoint=folder, seed=seed, steps=steps)
    out.mkdir(parents=True, exist_ok=True)
    for index, structure in enumerate(structures):
        structure.to(str(out / f"{formula}_{index}.cif"), fmt="cif")
    typer.echo(f"wrote {len(structures)} CIF files to {out}")


def write_backbones(
    asked: str, n: int, out: Path, *, checkpoint: str, seed: int, steps: int | None
) -> None:
    """Draw chains of the asked lengths and write PDB files of their CA atoms into a folder."""
    from tqdm import tqdm

    from orbitdiff.inference.backbones import LengthWarning, draw_backbones, parse_lengths
    from pipelines.stages.backbones.sample import write_pdbs

    lengths = parse_lengths(asked)
    folder = choose(checkpoint, "backbones").folder
    total = len(set(lengths)) * n
    with noting(LengthWarning), tqdm(total=total, desc="chains", leave=False) as bar:
        drawn = draw_backbones(
            lengths, n, checkpoint=folder, seed=seed, steps=steps,
            progress=lambda done, total: bar.update(done - bar.n),
        )  # fmt: skip
    names = [(length, k) for length in dict.fromkeys(lengths) for k in range(n)]
    lost = write_pdbs(dict(zip(names, drawn, strict=True)), out)
    typer.echo(
        f"wrote {len(drawn) - lost} PDB files to {out}"
        + (f"; {lost} not finite, left out" if lost else "")
    )


def write_conformers(
    names: list[str], n: int, out: Path, *, checkpoint: str, seed: int, steps: int | None
) -> None:
    """Draw conformers of molecules and write one SDF; molecules that cannot be used are named."""
    from tqdm import tqdm

    from orbitdiff.data.ensembles import write_ensembles
    from orbitdiff.data.molecule_graph import graph_of_smiles
    from orbitdiff.inference.conformers import draw_ensembles

    if not str(out).endswith((".sdf", ".sdf.gz")):
        raise BadInput(f"expected --out with the ending .sdf or .sdf.gz, got {out}")
    usable, refused = [], []
    for name in names:
        try:
            graph_of_smiles(name)
            usable.append(name)
        except BadInput as error:
            refused.append(str(error))
    if not usable:
        raise BadInput(refused[0])
    for line in refused:
        typer.echo(f"left out: {line}", err=True)
    folder = choose(checkpoint, "conformers").folder
    with tqdm(total=len(usable) * n, desc="conformers", leave=False) as bar:
        drawn = draw_ensembles(
            usable, n, checkpoint=folder, seed=seed, steps=steps,
            progress=lambda done, total: bar.update(done - bar.n),
        )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    write_ensembles(drawn, out)
    typer.echo(
        f"wrote {len(usable) * n} conformers of {len(usable)} molecules to {out}"
        + (f"; {len(refused)} left out" if refused else "")
    )
