"""`orbitdiff sweep TASK`: train over K, temperature or any other number, and exact beside it."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import typer

from orbitdiff.errors import BadInput
from pipelines.verbs.options import known_task

__all__ = ["sweep"]

TASKS = ("toy", "crystals", "conformers")


def sweep(
    task: str,
    preset: Annotated[str, typer.Option(help="Preset of params.yaml.")] = "cpu",
    over: Annotated[
        str,
        typer.Option(
            help="Axes: num_samples, temperature, kind, proposal, estimator, or a dotted key of "
            "the preset. Default: those of params.yaml."
        ),
    ] = "",
    values: Annotated[
        list[str], typer.Option(help="axis=a,b,c; default: the values of params.yaml.")
    ] = [],  # noqa: B006
    change: Annotated[
        list[str], typer.Option("--set", help="key=value of the preset, for all trials.")
    ] = [],  # noqa: B006
    estimator: Annotated[str, typer.Option(help="Arm of the preset that is varied.")] = "",
    exact: Annotated[str, typer.Option(help="Arm with the exact estimator.")] = "",
    dataset: str = "",
    seeds: Annotated[str, typer.Option(help="Replicates, such as 0,1,2.")] = "",
    search: Annotated[str, typer.Option(help="grid or optuna.")] = "",
    points: Annotated[int, typer.Option(help="Points that optuna tries.")] = 0,
    scheduler: Annotated[str, typer.Option(help="none, asha or median.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the trials, run none.")] = False,
) -> None:
    """Sweep over sample count, temperature or any number; an interrupted sweep goes on."""
    from pipelines.params import load
    from pipelines.sweeps import change_section, check_sweep, make_tuner, section, select_sweep

    known_task(task, TASKS)
    params = load()
    own = section(params, task, preset)
    chosen = {"kind": search, "points": points, "scheduler": scheduler}
    asked = change_section(
        own, over=over, values=values, changes=change, estimator=estimator, exact=exact,
        dataset=dataset, seeds=parse_seeds(seeds),
        search={key: value for key, value in chosen.items() if value},
    )  # fmt: skip
    selected = select_sweep(params, task, preset, asked)
    trials = check_sweep(selected, make_tuner())
    if dry_run:
        for trial in trials:
            typer.echo(trial.name)
        typer.echo(f"{len(trials)} trials")
        return
    from pipelines.build import reproduce
    from pipelines.flows.server import start_flow
    from pipelines.flows.sweep import sweep as flow

    if asked == own:
        folder = start_flow(flow, task, preset)
    else:
        root = outside(task, preset, asked)
        typer.echo(f"this sweep is outside DVC, in {root}")
        if selected.dataset:
            reproduce(f"prepare@{selected.dataset}")
        folder = start_flow(flow, task, preset, asked, str(root))
    found = json.loads((Path(folder) / "sweep.json").read_text())
    typer.echo(found["advice"]["text"])
    typer.echo(f"results: {folder}")


def parse_seeds(text: str) -> list[int]:
    """Split 0,1,2."""
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise BadInput(f"expected --seeds such as 0,1,2, got {text!r}") from error


def outside(task: str, preset: str, section: dict[str, Any]) -> Path:
    """Folder under runs/, the same for the same sweep."""
    digest = sha256(json.dumps(section, sort_keys=True).encode()).hexdigest()[:8]
    return Path("runs") / f"sweep-{task}-{preset}-{digest}"
