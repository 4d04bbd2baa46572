"""The console command `orbitdiff VERB TASK`; heavy packages are imported by the verbs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from orbitdiff.errors import BadInput, OrbitDiffError
from pipelines.environment import prepare_environment

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Diffusion models trained on targets averaged over the symmetry orbit.",
)

Preset = Annotated[str, typer.Option(help="Preset of params.yaml.")]
Changes = Annotated[
    list[str], typer.Option("--set", help="key=value of the preset; writes to runs/, outside DVC.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the stages, run none.")]
Seed = Annotated[int, typer.Option(help="Seed of a sampled result.")]


def crystals_only(task: str) -> None:
    """Refuse tasks that this version does not have."""
    if task != "crystals":
        raise BadInput(f"expected the task crystals, got {task!r}")


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

    crystals_only(task)
    params = load()
    stages = stages_of(params, preset)
    if dry_run:
        for name, needs in stages:
            typer.echo(f"{name}  <- {', '.join(needs) or 'nothing'}")
        return
    if change:
        build("evaluate", task, preset, change, dataset, estimator, seed)
        return
    from pipelines.flows.crystals import crystals
    from pipelines.tracking.mlflow_tracker import newest_run

    report = crystals(preset)
    typer.echo((Path(report).parent / "table.md").read_text())
    typer.echo(f"report: {report}")
    typer.echo(f"MLflow run: {newest_run(task, f'report {preset}')}")


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
    seed: Seed = 0,
    dry_run: DryRun = False,
) -> None:
    """Sample the test split with one run, trained where that is stale."""
    build("sample", task, preset, change, dataset, estimator, seed, dry_run)


@app.command()
def report(task: str, preset: Preset = "demo", dry_run: DryRun = False) -> None:
    """Write the tables and figures of a preset, its runs made where they are stale."""
    from pipelines.build import reproduce
    from pipelines.dag import stages_of
    from pipelines.params import load

    crystals_only(task)
    stages = stages_of(load(), preset)
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

    crystals_only(task)
    params = load()
    known = params.raw["reports"].get(preset, {}).get("dataset", "perov_5")
    selected = params.select(
        task, preset, dataset=dataset or known, estimator=estimator, seed=seed, changes=change
    )
    build_run(last, params, selected, change, dry_run=dry_run)


@app.command()
def prepare(
    task: str,
    source: Annotated[Path, typer.Option("--from", help="csv, csv.gz or a folder of CIF files.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    max_atoms: int = 20,
    seed: Seed = 0,
) -> None:
    """Prepare your own data: parquet shards, rejected.csv, manifest.json."""
    from pipelines.assemble import make_executor
    from pipelines.stages.prepare import prepare_own

    crystals_only(task)
    prepare_own(source, out, max_atoms=max_atoms, seed=seed, executor=make_executor())


@app.command()
def generate(
    task: str,
    formula: Annotated[str, typer.Option(help="Atoms of one cell, such as BaTiO3.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the CIF files.")],
    n: Annotated[int, typer.Option("-n", help="Number of structures.")] = 8,
    checkpoint: Annotated[str, typer.Option(help="Model folder; default the demo model.")] = "",
    seed: Seed = 0,
) -> None:
    """Draw structures of a composition and write CIF files."""
    from orbitdiff.inference import generate_crystals

    crystals_only(task)
    folder = Path(checkpoint) if checkpoint else None
    if folder is None:
        typer.echo("model: the small demo model that ships with the package; give --checkpoint")
    structures = generate_crystals(formula, n, checkpoint=folder, seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    for index, structure in enumerate(structures):
        structure.to(str(out / f"{formula}_{index}.cif"), fmt="cif")
    typer.echo(f"wrote {len(structures)} CIF files to {out}")


@app.command()
def evaluate(
    task: str,
    generated: Annotated[Path, typer.Option(help="Folder of CIF files, or csv.")],
    reference: Annotated[Path, typer.Option(help="csv with a cif column, or folder.")],
    out: Annotated[Path | None, typer.Option(help="Folder for metrics.json.")] = None,
) -> None:
    """Evaluate anybody's files: match rate, RMSE, validity, METRe, cRMSE."""
    import json

    from pipelines.assemble import make_executor
    from pipelines.stages.evaluate import evaluate_files

    crystals_only(task)
    found = evaluate_files(generated, reference, executor=make_executor(), out=out)
    typer.echo(json.dumps(found, indent=2))


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
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
