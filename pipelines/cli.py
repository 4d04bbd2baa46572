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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the stages.")] = False,
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
        outside_dvc(task, preset, list(change), dataset, estimator, seed)
        return
    from pipelines.flows.crystals import crystals
    from pipelines.tracking.mlflow_tracker import tracking_uri

    report = crystals(preset)
    typer.echo((Path(report).parent / "table.md").read_text())
    typer.echo(f"report: {report}")
    typer.echo(f"MLflow: {tracking_uri()} (see it with: mlflow ui --backend-store-uri ...)")


def outside_dvc(
    task: str, preset: str, changes: list[str], dataset: str, estimator: str, seed: int
) -> None:
    """Train, sample and evaluate with changed numbers under runs/, so that no cache is mixed."""
    from pipelines.__main__ import run_stage
    from pipelines.params import load

    params = load()
    known = params.raw["reports"][preset]["dataset"]
    root = Path("runs") / "-".join([preset, *(c.replace("/", "_") for c in changes)])
    typer.echo(f"--set given: this run is outside DVC, in {root}")
    for stage in ("train", "sample", "evaluate"):
        run_stage(
            stage, task, params, preset=preset, dataset=dataset or known, estimator=estimator,
            seed=seed, changes=changes, root=root,
        )  # fmt: skip


@app.command()
def prepare(
    task: str,
    source: Annotated[Path, typer.Option("--from", help="csv, csv.gz or a folder of CIF files.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    max_atoms: int = 20,
    seed: Seed = 0,
) -> None:
    """Prepare your own data: parquet shards, rejected.csv, manifest.json."""
    from pipelines.__main__ import make_executor
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

    from pipelines.__main__ import make_executor
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
