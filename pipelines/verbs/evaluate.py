"""`orbitdiff evaluate TASK`: anybody's generated files against a reference."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.verbs.options import known_task

__all__ = ["evaluate"]


def evaluate(
    task: str,
    generated: Annotated[Path, typer.Option(help="CIF folder or csv; SDF or JSON lines.")],
    reference: Annotated[Path, typer.Option(help="csv or CIF folder; SDF or JSON lines.")],
    out: Annotated[Path | None, typer.Option(help="Folder for metrics.json.")] = None,
    posebusters: Annotated[
        int, typer.Option(help="conformers: how many PoseBusters checks, 20 ms each.")
    ] = 0,
) -> None:
    """Evaluate anybody's files: match rate and RMSE of crystals, COV and AMR of conformers."""
    from pipelines.assemble import make_executor

    known_task(task, ("crystals", "conformers"))
    if task == "crystals":
        from pipelines.stages.crystals.evaluate import evaluate_files as crystals

        found = crystals(generated, reference, executor=make_executor(), out=out)
    else:
        from pipelines.stages.conformers.evaluate_files import evaluate_files as conformers

        found = conformers(
            generated, reference, executor=make_executor(), out=out, validity_sample=posebusters
        )
    typer.echo(json.dumps(found, indent=2))
