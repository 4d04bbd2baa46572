"""`orbitdiff promote TASK` and `orbitdiff deliver`: the models and records in MLflow."""

from typing import Annotated

import typer

from orbitdiff.errors import BadInput
from pipelines.verbs.options import known_task

__all__ = ["deliver", "promote"]


def promote(
    task: str,
    metric: Annotated[str, typer.Option(help="Such as distance_mean or match_rate_all.")],
    better: Annotated[str, typer.Option(help="lower or higher.")],
    margin: Annotated[float, typer.Option(help="Gain that is too small to count.")] = 0.0,
    challenger: Annotated[str, typer.Option(help="Alias or number of a version.")] = "newest",
) -> None:
    """Make the newest model of a task its champion where a metric says that it is better."""
    known_task(task, ("crystals", "conformers"))
    if better not in ("lower", "higher"):
        raise BadInput(f"expected --better lower or --better higher, got {better!r}")
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    from pipelines.tracking.delivery import ask_once
    from pipelines.tracking.mlflow_tracker import tracking_uri
    from pipelines.tracking.promotion import promote as decide

    uri = tracking_uri()
    ask_once(uri)
    try:
        decision = decide(
            MlflowClient(tracking_uri=uri), f"orbitdiff-{task}", metric,
            better="lower" if better == "lower" else "higher", margin=margin, challenger=challenger,
        )  # fmt: skip
    except MlflowException as error:
        raise BadInput(f"MLflow at {uri}: {error.message}") from error
    typer.echo(decision.text)
    typer.echo(f"models:/orbitdiff-{task}@champion is version {decision.champion}")


def deliver() -> None:
    """Send the records that wait for the MLflow server, as after it was away."""
    from pipelines.tracking.mlflow_tracker import deliver as send

    typer.echo(send())
