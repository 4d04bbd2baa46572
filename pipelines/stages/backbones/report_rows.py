"""Rows of the backbone tables: figures of each arm over seeds, differences between arms."""

from collections.abc import Mapping, Sequence
from typing import Any

from orbitdiff.metrics.comparison import (
    by_arm,
    last_validations,
    mean_while_training,
    paired,
    spread,
)

__all__ = ["COMPARED", "FIGURES", "arm_rows", "figures_of"]

FIGURES = {
    "natural": ("natural",),
    "bonds": ("within", "bonds"),
    "clashes": ("within", "clashes"),
    "secondary": ("within", "secondary"),
    "chirality": ("within", "chirality"),
    "compactness": ("within", "compactness"),
    "bonded": ("trans",),
    "helix": ("helix",),
    "strand": ("strand",),
    "rg_ratio": ("rg_ratio",),
    "divergence": ("dihedral_divergence",),
    "nll": ("designability", "nll"),
    "designable": ("designability", "designable"),
    "scrmsd": ("designability", "scrmsd"),
    "mean_tm": ("diversity", "mean_tm"),
    "cluster_ratio": ("diversity", "cluster_ratio"),
    "nearest_tm": ("novelty", "mean_max_tm"),
}
"""Figure of a table to its place in metrics.json."""

COMPARED = ("natural", "bonded", "divergence", "nll", "designable", "mean_tm", "nearest_tm")
"""Figures with paired differences, beside the errors of the network."""

ERRORS = ("distance", "equivariance")


def figures_of(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Figures of one set of chains; None where one was not measured.

    Parameters
    ----------
    metrics : mapping
        Content of a metrics.json, or of one of its sets.
    """
    found: dict[str, float | None] = {}
    for name, place in FIGURES.items():
        value: Any = metrics
        for key in place:
            value = value.get(key) if isinstance(value, Mapping) else None
        found[name] = value
    return found


def arm_rows(
    runs: Mapping[str, Mapping[str, Any]], *, order: Sequence[str], reference: str
) -> list[dict[str, Any]]:
    """One row per arm, those of `order` first.

    Parameters
    ----------
    runs : mapping of run name to {"metrics", "history"}
    order : sequence of str
        Arms.
    reference : str
        Arm that the paired differences are taken to.

    Returns
    -------
    list of dict
        JSON types: `estimator`, `seeds`, each figure as `spread`, `distance` and `equivariance`
        with `..._by_time`, `step_seconds`, and `paired` against the reference.
    """
    arms = by_arm(runs)
    names = [name for name in order if name in arms]
    names += [name for name in arms if name not in names]
    against = arms.get(reference, {})
    return [_row(name, arms[name], reference, against) for name in names]


def _row(
    name: str,
    seeds: Mapping[int, Mapping[str, Any]],
    reference: str,
    against: Mapping[int, Mapping[str, Any]],
) -> dict[str, Any]:
    row: dict[str, Any] = {"estimator": name, "seeds": sorted(seeds)}
    values = {seed: figures_of(found["metrics"]) for seed, found in seeds.items()}
    for figure in FIGURES:
        known = [value for found in values.values() if (value := found[figure]) is not None]
        if known:
            row[figure] = spread(known)
    final = last_validations(seeds)
    for error in ERRORS:
        known = [record[f"{error}_mean"] for record in final if f"{error}_mean" in record]
        if known:
            row[error] = spread(known)
            row[f"{error}_by_time"] = {
                time: spread([record[error][time] for record in final]) for time in final[0][error]
            }
    seconds = mean_while_training(seeds, "step_seconds")
    if seconds is not None:
        row["step_seconds"] = seconds
    if name != reference and against:
        row["paired"] = _differences(seeds, against)
    return row


def _differences(
    seeds: Mapping[int, Mapping[str, Any]], against: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    """Paired differences over the seeds that both arms have."""
    out: dict[str, Any] = {}
    shared = sorted(set(seeds) & set(against))
    for figure in (*COMPARED, *ERRORS):
        both = [(_value(seeds[seed], figure), _value(against[seed], figure)) for seed in shared]
        known = [mine - theirs for mine, theirs in both if mine is not None and theirs is not None]
        if known:
            out[figure] = paired(known)
    return out


def _value(run: Mapping[str, Any], figure: str) -> float | None:
    if figure in FIGURES:
        return figures_of(run["metrics"])[figure]
    final = last_validations({0: run})
    return final[0].get(f"{figure}_mean") if final else None
