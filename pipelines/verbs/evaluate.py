"""`orbitdiff evaluate TASK`: anybody's generated files against a reference."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.verbs.options import known_task

__all__ = ["evaluate"]


def evaluate(
    task: str,
    generated: Annotated[
        Path, typer.Option(help="CIF folder or csv; SDF or JSON lines; PDB folder.")
    ],
    reference: Annotated[
        Path, typer.Option(help="csv or CIF folder; SDF or JSON lines; PDB folder.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for metrics.json.")] = None,
    posebusters: Annotated[
        int, typer.Option(help="conformers: how many PoseBusters checks, 20 ms each.")
    ] = 0,
    designs: Annotated[
        int, typer.Option(help="backbones: how many ProteinMPNN designs for, seconds each.")
    ] = 20,
) -> None:
    """Evaluate anybody's files: crystals or conformers against references, protein chains."""
    from pipelines.assemble import make_executor

    known_task(task, ("crystals", "conformers", "backbones"))
    if task == "crystals":
        from pipelines.stages.crystals.evaluate import evaluate_files as crystals

        found = crystals(generated, reference, executor=make_executor(), out=out)
    elif task == "backbones":
        from pipelines.stages.backbones.evaluate_files import evaluate_files as backbones

        found = backbones(generated, reference, executor=make_executor(), out=out, designs=designs)
    else:
        from pipelines.stages.conformers.evaluate_files import evaluate_files as conformers

        found = conformers(
            generated, reference, executor=make_executor(), out=out, validity_sample=posebusters
        )
    typer.echo(json.dumps(found, indent=2))
