"""The command `orbitdiff diagnose`: what averaging over a group would bring, task or own files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orbitdiff.errors import BadInput

if TYPE_CHECKING:
    from orbitdiff.diagnosis import Problem, Settings

__all__ = ["diagnose"]

TASKS = ("crystals", "toy")
MOST_CRYSTALS = 256
"""Crystals of a task from which samples are drawn."""


def diagnose(
    task: Annotated[str, typer.Argument(help="toy or crystals; or give --data.")] = "",
    preset: Annotated[str, typer.Option(help="Preset of params.yaml.")] = "demo",
    data: Annotated[
        Path | None, typer.Option(help="Your own: xyz, sdf, npz, cif or pdb, file or folder.")
    ] = None,
    kernel: Annotated[
        str, typer.Option(help="gaussian, flow, harmonic or wrapped_normal; default by the data.")
    ] = "",
    group: Annotated[
        str,
        typer.Option(help="rotation, rotation_reflection, rotation_automorphisms or translation."),
    ] = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write.")] = None,
    sigma_min: Annotated[float | None, typer.Option(help="First noise level.")] = None,
    sigma_max: Annotated[float | None, typer.Option(help="Last noise level.")] = None,
    levels: Annotated[int, typer.Option(help="Number of noise levels.")] = 10,
    samples: Annotated[int, typer.Option(help="Noised samples of a level.")] = 256,
    scale: Annotated[float, typer.Option(help="Prior of --kernel flow, angstrom.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
) -> None:
    """Measure what averaging over a group brings, and say which estimator to take."""
    from orbitdiff.diagnosis import Settings, pose, read_structures

    if bool(task) == (data is not None):
        got = f"both {task} and {data}" if task else "neither"
        raise BadInput(f"expected a task among {list(TASKS)}, or --data, got {got}")
    settings = Settings(
        kernel or None, group or None, sigma_min, sigma_max, levels, samples, scale, seed
    )
    config: dict[str, Any] = {"seed": seed, "levels": levels, "samples": samples}
    if data is not None:
        problem = pose(read_structures(data), settings)
        name = data.name
        config |= {"data": name} | ({"scale": scale} if problem.kernel == "flow" else {})
    else:
        problem = problem_of(task, preset, settings)
        name = f"{task}-{preset}"
        config |= {"task": task, "preset": preset}
    write(problem, config, name, out or Path("runs") / f"diagnose-{name}")


def problem_of(task: str, preset: str, settings: "Settings") -> "Problem":
    """Return data, kernel and group of a preset's task.

    Parameters
    ----------
    task : str
        toy or crystals.
    preset : str
    settings : Settings
        Without kernel and group: those of the task are taken.
    """
    from dataclasses import replace

    from orbitdiff.diagnosis import pose
    from pipelines.params import load

    if task not in TASKS:
        raise BadInput(f"expected a task among {list(TASKS)}, or --data, got {task!r}")
    if settings.kernel or settings.group:
        raise BadInput(f"{task} has its own kernel and group; --kernel and --group go with --data")
    params = load()
    own = params.settings(task, preset)
    noise = own if task == "toy" else own.kernel
    low = noise.sigma_min if settings.sigma_min is None else settings.sigma_min
    high = noise.sigma_max if settings.sigma_max is None else settings.sigma_max
    settings = replace(settings, sigma_min=low, sigma_max=high)
    if task == "toy":
        return toy_problem(settings, low, high)
    dataset = params.raw["reports"]["crystals"].get(preset, {}).get("dataset", "perov_5")
    return pose(crystals_of(dataset, own.data), settings)


def toy_problem(settings: "Settings", low: float, high: float) -> "Problem":
    """One point on the line, and its sign."""
    import torch

    from orbitdiff.data.toy import point
    from orbitdiff.diagnosis.arms import SignArms
    from orbitdiff.diagnosis.noise import levels_between, variance_preserving
    from orbitdiff.diagnosis.problem import Problem

    noise = variance_preserving(low, high)
    return Problem(
        x_0=point(settings.samples),
        mask=torch.ones(settings.samples, 1, dtype=torch.bool),
        arms=SignArms(),
        kernel="variance_preserving",
        noise=noise,
        levels=levels_between(noise, low, high, settings.levels),
        num_structures=1,
    )


def crystals_of(dataset: str, config: Any) -> Any:
    """Return training crystals of a data set: prepared ones, or built-in prototypes."""
    from orbitdiff.data.crystals import Crystal, CrystalDataset
    from orbitdiff.diagnosis.structure import Collection, Structure
    from pipelines.layout import stage_paths

    outputs = stage_paths("prepare", "crystals", dataset=dataset, preset="", run="")[1]
    folder = outputs["data"]
    if (folder / "manifest.json").is_file():
        found = CrystalDataset.load(folder, "train")
        crystals = [found.crystals[i] for i in found.first_k_by_hash(MOST_CRYSTALS).tolist()]
    elif dataset == "prototypes":
        from orbitdiff.data.prototypes import build_crystal, choose_decorations

        chosen = choose_decorations(
            min(MOST_CRYSTALS, config.prototypes), max_atoms=config.max_atoms
        )
        built = [build_crystal(decoration, max_atoms=config.max_atoms) for decoration in chosen]
        crystals = [crystal for crystal in built if isinstance(crystal, Crystal)]
    else:
        raise BadInput(f"{folder} is not prepared: run `dvc repro prepare@{dataset}` first")
    structures = tuple(Structure(crystal.id, crystal.frac) for crystal in crystals)
    return Collection(structures, periodic=True)


def write(problem: "Problem", config: dict[str, Any], name: str, out: Path) -> None:
    """Measure all levels with a progress bar, write json, csv and figure, print the advice."""
    from functools import partial

    from orbitdiff.diagnosis import measure_level, recommend
    from orbitdiff.diagnosis.report import content_of, flat_rows, table, write_files
    from orbitdiff.viz.diagnosis import diagnosis_figure
    from pipelines.stages.base import LocalExecutor

    for found in problem.skipped[:5]:
        typer.echo(f"left out: {found.name}: {found.reason}")
    if problem.skipped:
        typer.echo(f"{len(problem.skipped)} left out, {problem.num_structures} structures kept")
    for note in problem.notes:
        typer.echo(f"note: {note}")
    run = partial(measure_level, problem, seed=config["seed"])
    levels = LocalExecutor().map(run, range(len(problem.levels)), description="noise levels")
    unit = problem.noise.unit
    advice = recommend(levels, problem.arms, unit=unit)
    content = content_of(problem, levels, advice, config=config)
    files = write_files(content, levels, out)
    title = f"{name}: {problem.kernel.replace('_', ' ')} kernel, {problem.arms.elements}"
    figure = diagnosis_figure(
        flat_rows(levels), out / "diagnosis.png", title=title, noise_label=problem.noise.label
    )
    typer.echo(table(levels, problem.noise.label))
    typer.echo(f"\n{advice.text}\n")
    for path in (figure, *files):
        typer.echo(f"wrote {path}")
