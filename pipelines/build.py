"""Bring one run up to a stage: DVC for what params.yaml lists, runs/ for changed numbers."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from orbitdiff.errors import BadInput, OrbitDiffError
from pipelines.dag import prepared_stage, stage_name
from pipelines.params import Params, RunParams

__all__ = ["build_run", "outside_folder", "reproduce"]

STAGES = ("train", "sample", "evaluate")


def reproduce(
    target: str, *, dry_run: bool = False, single: bool = False, root: Path | str = "."
) -> None:
    """Run a DVC stage where it is stale, and what it needs.

    Parameters
    ----------
    target : str
        Such as train@demo-prototypes-exact-0.
    dry_run : bool
        Only say what would run.
    single : bool
        Leave out what the stage needs.
    root : Path
        The repository.

    Raises
    ------
    OrbitDiffError
        The stage failed.
    """
    options = ["--dry"] * dry_run + ["--single-item"] * single
    command = [sys.executable, "-m", "dvc", "repro", *options, target]
    # dvc.yaml says `python`: the one that runs this, also where its venv is not activated
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(command, cwd=root, check=False, env={**os.environ, "PATH": path})
    if done.returncode != 0:
        raise OrbitDiffError(f"stage {target} failed; its own message stands above")


def outside_folder(run_name: str, changes: Sequence[str]) -> Path:
    """Folder under runs/ of a run with changed numbers, the same for the same changes."""
    parts = [run_name, *sorted(change.replace("/", "_") for change in changes)]
    return Path("runs") / "-".join(parts).replace(" ", "")


def build_run(
    last: str,
    params: Params,
    selected: RunParams,
    changes: Sequence[str],
    *,
    dry_run: bool = False,
) -> None:
    """Bring one run up to stage `last`.

    Parameters
    ----------
    last : str
        train, sample or evaluate.
    params : Params
    selected : RunParams
        The run, with the changes in it.
    changes : sequence of str
        `key=value`; a run with changes, or one that `builds` does not list, goes to runs/.
    dry_run : bool
        Only say what would run.

    Raises
    ------
    BadInput
        Unknown data set, or a change of how it is prepared.
    """
    if not changes and selected.run_name in params.builds:
        reproduce(stage_name(last, params, selected.run_name), dry_run=dry_run)
        return
    from pipelines.assemble import run_stage

    known = params.raw["datasets"]
    if selected.dataset not in known:
        raise BadInput(f"expected a data set among {sorted(known)}, got {selected.dataset!r}")
    if any(change.startswith(("data.", "data=")) for change in changes):
        raise BadInput(
            "--set data.* would mix data sets: data are prepared once for all runs; change "
            "params.yaml, or use `orbitdiff prepare crystals --from FILE --out DIR`"
        )
    root = outside_folder(selected.run_name, changes)
    stages = STAGES[: STAGES.index(last) + 1]
    print(f"this run is outside DVC, in {root}: {', '.join(stages)}")
    reproduce(prepared_stage(params, selected.task, selected.dataset), dry_run=dry_run)
    if dry_run:
        return
    for stage in stages:
        run_stage(
            stage,
            selected.task,
            params,
            preset=selected.preset,
            dataset=selected.dataset,
            estimator=selected.estimator,
            seed=selected.seed,
            changes=changes,
            root=root,
        )
