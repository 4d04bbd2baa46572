"""Options that several verbs share, and what a `--checkpoint` name means."""

from typing import TYPE_CHECKING, Annotated

import typer

from orbitdiff.errors import BadInput

if TYPE_CHECKING:
    from pipelines.checkpoints import Checkpoint

__all__ = ["CheckpointName", "Seed", "choose", "known_task"]

Seed = Annotated[int, typer.Option(help="Seed of a sampled result.")]

CheckpointName = Annotated[
    str,
    typer.Option(
        help="Model folder, run:ID or models:/NAME@ALIAS; default: the newest finished run of "
        "the task, else the demo model."
    ),
]


def known_task(task: str, known: tuple[str, ...]) -> None:
    """Refuse tasks that a verb does not have."""
    if task not in known:
        raise BadInput(f"expected a task among {sorted(known)}, got {task!r}")


def choose(checkpoint: str, task: str) -> "Checkpoint":
    """Find the model that a name means, and say which it is."""
    from orbitdiff.inference.demo import demo_checkpoint
    from pipelines.checkpoints import find_checkpoint

    chosen = find_checkpoint(checkpoint, task, demo=demo_checkpoint(task))
    typer.echo(f"model: {chosen}")
    return chosen
