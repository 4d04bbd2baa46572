"""The console command `orbitdiff VERB TASK`; heavy packages are imported by the verbs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orbitdiff.errors import BadInput, OrbitDiffError
from pipelines.environment import prepare_environment
from pipelines.messages import one_line
from pipelines.verbs.diagnose import diagnose
from pipelines.verbs.evaluate import evaluate
from pipelines.verbs.generate import generate
from pipelines.verbs.options import CheckpointName, Seed, choose, known_task
from pipelines.verbs.prepare import prepare
from pipelines.verbs.promote import deliver, promote
from pipelines.verbs.sweep import sweep

if TYPE_CHECKING:
    from pipelines.params import Params

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Diffusion models trained on targets averaged over the symmetry orbit.",
)

TRAINED = ("crystals", "conformers", "backbones", "text_crystals")

Preset = Annotated[str, typer.Option(help="Preset of params.yaml.")]
Changes = Annotated[
    list[str], typer.Option("--set", help="key=value of the preset; writes to runs/, outside DVC.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the stages, run none.")]


def dataset_of(params: "Params", task: str, preset: str) -> str:
    """Data set of a preset's report, else the last one of the task."""
    from pipelines.dag import text_datasets

    found: str | None = params.raw["reports"].get(task, {}).get(preset, {}).get("dataset")
    if found is not None:
        return found
    named = params.raw["datasets"].items()
    own = [name for name, about in named if about["task"] == task]
    known = own or text_datasets(params, task)
    if not known:
        raise BadInput(f"params.yaml lists no data set of {task}; give --dataset")
    return known[-1]


@app.command()
def run(
    task: str,
    preset: Preset = "demo",
    change: Changes = [],  # noqa: B006
    dataset: str = "",
    estimator: str = "exact",
    seed: Seed = 0,
    dry_run: DryRun = False,
) -> None:
    """Run the whole flow of a preset: prepare, train, sample, evaluate, report."""
    from pipelines.dag import stages_of
    from pipelines.params import load

    known_task(task, ("toy", *TRAINED))
    if task == "toy":
        run_toy(preset, change, dry_run=dry_run)
        return
    params = load()
    stages = stages_of(params, task, preset)
    if dry_run:
        for name, needs in stages:
            typer.echo(f"{name}  <- {', '.join(needs) or 'nothing'}")
        return
    if change:
        build("evaluate", task, preset, change, dataset, estimator, seed)
        return
    from pipelines.flows.server import start_flow
    from pipelines.flows.table import table
    from pipelines.tracking.mlflow_tracker import newest_run

    report = start_flow(table, task, preset)
    typer.echo((Path(report) / "table.md").read_text())
    typer.echo(f"report: {report}")
    typer.echo(f"MLflow run: {newest_run(task, f'report {preset}')}")


def run_toy(preset: str, change: list[str], *, dry_run: bool) -> None:
    """Bring Table 1 of the paper up to date, or under runs/ with another preset or numbers."""
    from pipelines.assemble import run_stage
    from pipelines.build import outside_folder, reproduce
    from pipelines.flows.server import start_flow
    from pipelines.flows.toy import toy
    from pipelines.params import load

    params = load()
    params.settings("toy", preset, changes=change)
    if preset == "cpu" and not change:
        if dry_run:
            reproduce("toy@cpu", dry_run=True)
        else:
            typer.echo(start_flow(toy, preset))
        return
    root = outside_folder(f"toy-{preset}", change)
    typer.echo(f"this run is outside DVC, in {root}")
    if not dry_run:
        run_stage("toy", "toy", params, preset=preset, dataset="", estimator="plain", seed=0,
                  changes=change, root=root)  # fmt: skip


@app.command()
def train(
    task: str,
    preset: Preset = "demo",
    change: Changes = [],  # noqa: B006
    dataset: str = "",
    estimator: str = "exact",
    seed: Seed = 0,
    dry_run: DryRun = False,
) -> None:
    """Train one run, and prepare its data where that is stale."""
    build("train", task, preset, change, dataset, estimator, seed, dry_run)


@app.command()
def sample(
    task: str,
    preset: Preset = "demo",
    change: Changes = [],  # noqa: B006
    dataset: str = "",
    estimator: str = "exact",
    checkpoint: CheckpointName = "",
    seed: Seed = 0,
    dry_run: DryRun = False,
) -> None:
    """Sample the test split with one run, trained where that is stale, or with a checkpoint."""
    if not checkpoint:
        build("sample", task, preset, change, dataset, estimator, seed, dry_run)
        return
    from pipelines.assemble import run_stage
    from pipelines.build import outside_folder, reproduce
    from pipelines.dag import prepared_stage
    from pipelines.params import load

    known_task(task, TRAINED)
    chosen, params = choose(checkpoint, task), load()
    selected = params.select(
        task, preset, dataset=dataset or dataset_of(params, task, preset), estimator=estimator,
        seed=seed, changes=change,
    )  # fmt: skip
    root = outside_folder(selected.run_name, [*change, f"checkpoint={chosen.folder.name}"])
    typer.echo(f"this run is outside DVC, in {root}")
    reproduce(prepared_stage(params, task, selected.dataset), dry_run=dry_run)
    if not dry_run:
        run_stage(
            "sample", task, params, preset=preset, dataset=selected.dataset, estimator=estimator,
            seed=seed, changes=change, root=root, model=chosen.folder,
        )  # fmt: skip


@app.command()
def report(task: str, preset: Preset = "demo", dry_run: DryRun = False) -> None:
    """Write the tables and figures of a preset, its runs made where they are stale."""
    from pipelines.build import reproduce
    from pipelines.dag import stages_of
    from pipelines.params import load

    known_task(task, TRAINED)
    stages = stages_of(load(), task, preset)
    reproduce(stages[-1][0], dry_run=dry_run)


def build(
    last: str,
    task: str,
    preset: str,
    change: list[str],
    dataset: str,
    estimator: str,
    seed: int,
    dry_run: bool = False,
) -> None:
    """Bring one run up to a stage: through DVC, or under runs/ with changed numbers."""
    from pipelines.build import build_run
    from pipelines.params import load

    known_task(task, TRAINED)
    params = load()
    selected = params.select(
        task, preset, dataset=dataset or dataset_of(params, task, preset), estimator=estimator,
        seed=seed, changes=change,
    )  # fmt: skip
    build_run(last, params, selected, change, dry_run=dry_run)


app.command()(prepare)
app.command()(generate)
app.command()(evaluate)
app.command()(sweep)
app.command()(diagnose)
app.command()(promote)
app.command()(deliver)


@app.command()
def doctor() -> None:
    """Print versions, device, data sets and servers, and what is missing with its cure."""
    from pipelines.doctor import report

    for line in report():
        typer.echo(line)


def main() -> None:
    """Run the command; bad input gives one clear line and exit code 2."""
    prepare_environment()
    try:
        app()
    except (OrbitDiffError, OSError) as error:
        typer.echo(f"error: {one_line(error)}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
