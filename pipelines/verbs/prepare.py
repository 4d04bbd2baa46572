"""`orbitdiff prepare TASK`: a user's own data to parquet shards, with what was left out and why."""

from pathlib import Path
from typing import Annotated

import typer

from orbitdiff.errors import BadInput
from pipelines.verbs.options import Seed, known_task

__all__ = ["prepare"]

LARGEST = {"crystals": 20, "conformers": 40}
"""Atoms of a sample, unless --max-atoms says otherwise."""

LISTS = (".smi", ".txt", ".csv")


def prepare(
    task: str,
    source: Annotated[
        Path,
        typer.Option(
            "--from",
            help="crystals: csv, csv.gz or a folder of CIF files. conformers: SDF or JSON lines; a "
            "list of SMILES (.smi, .csv), whose conformers are searched; GEOM's rdkit_folder or "
            "msgpack. backbones: folder of PDB, mmCIF or BinaryCIF files.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    max_atoms: Annotated[int, typer.Option(help="Larger samples are rejected.")] = 0,
    min_length: Annotated[
        int, typer.Option(help="backbones: chains of fewer residues are rejected.")
    ] = 40,
    max_length: Annotated[
        int, typer.Option(help="backbones: chains of more residues are rejected.")
    ] = 256,
    level: Annotated[
        str, typer.Option(help="conformers from SMILES: etkdg, mmff or xtb (GFN2).")
    ] = "mmff",
    split: Annotated[
        Path | None, typer.Option(help="conformers from an rdkit_folder: GeoMol's split file.")
    ] = None,
    subset: Annotated[str, typer.Option(help="conformers from GEOM: qm9 or drugs.")] = "qm9",
    seed: Seed = 0,
) -> None:
    """Prepare your own data: parquet shards, rejected.csv, manifest.json."""
    from pipelines.assemble import make_executor

    known_task(task, (*LARGEST, "backbones"))
    if task == "backbones":
        from orbitdiff.data.proteins import BackboneLimits
        from pipelines.stages.backbones.prepare import prepare_own as backbones

        limits = BackboneLimits(min_length=min_length, max_length=max_length)
        backbones(source, out, limits=limits, seed=seed, executor=make_executor())
        return
    most = max_atoms or LARGEST[task]
    if most < 1:
        raise BadInput(f"expected --max-atoms of at least 1, got {max_atoms}")
    executor = make_executor()
    if task == "crystals":
        from pipelines.stages.crystals.prepare import prepare_own

        prepare_own(source, out, max_atoms=most, seed=seed, executor=executor)
        return
    from pipelines.stages.conformers import prepare as conformers

    if (source / subset).is_dir() or ".msgpack" in source.suffixes:
        conformers.prepare_geom(
            source, out, split=split, subset=subset, max_atoms=most, executor=executor
        )
        return
    if [suffix for suffix in source.suffixes if suffix != ".gz"][-1:] in ([s] for s in LISTS):
        from pipelines.stages.conformers.build import ENSEMBLES, build_ensembles

        searched = out.with_name(f"{out.name}-ensembles")
        build_ensembles(source, searched, level=level, executor=executor, seed=seed)
        source = searched / ENSEMBLES
    conformers.prepare_own(source, out, max_atoms=most, seed=seed, executor=executor)
