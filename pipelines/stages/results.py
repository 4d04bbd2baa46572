"""What earlier stages left for a report: results, training histories and curves of runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orbitdiff.errors import BadInput
from orbitdiff.export import read_json, write_atomically

__all__ = ["read_history", "read_points", "read_runs", "write_points"]


def read_history(path: Path) -> list[dict[str, Any]]:
    """Records of a training run; none where the file is absent, whole lines where it is cut."""
    records = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def read_runs(folders: Mapping[str, Path]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Read results folders.

    Parameters
    ----------
    folders : mapping of run name to Path
        Each with metrics.json and history.jsonl, written by `evaluate`.

    Returns
    -------
    dict of run name to {"metrics", "history"}, list of names without results

    Raises
    ------
    BadInput
        A metrics.json is no JSON or not of the evaluate stage.
    """
    runs: dict[str, dict[str, Any]] = {}
    missing = []
    for name, folder in folders.items():
        path = folder / "metrics.json"
        if not path.is_file():
            missing.append(name)
            continue
        try:
            metrics = json.loads(path.read_text())
            _ = metrics["run"]["estimator"], metrics["run"]["seed"]
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{path} is no result of the evaluate stage ({error!r})") from error
        runs[name] = {"metrics": metrics, "history": read_history(folder / "history.jsonl")}
    return runs, missing


def read_points(
    inputs: Mapping[str, Path], kind: str, runs: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[list[dict[str, Any]]]]:
    """Points of the curves `steps` or `calls` that are there, by estimator, a list per seed."""
    arms: dict[str, list[list[dict[str, Any]]]] = {}
    for name, found in runs.items():
        path = inputs.get(f"{kind}:{name}")
        if path is None or not path.is_file():
            continue
        content = read_json(path, cure=f"run the {kind} stage again")
        arms.setdefault(found["metrics"]["run"]["estimator"], []).append(content["points"])
    return arms


def write_points(params: Any, points: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write the points of a curve with the run they belong to.

    Parameters
    ----------
    params : RunParams
    points : sequence of mapping
        JSON types.
    out : Path
        JSON file.
    """
    about = {
        "dataset": params.dataset,
        "estimator": params.estimator,
        "preset": params.preset,
        "seed": params.seed,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    content = {"run": about, "points": list(points)}
    write_atomically(out, json.dumps(content, indent=2, sort_keys=True) + "\n")
