"""Rows of the conformer report: figures of all runs over the same molecules, paired by seed."""

import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from orbitdiff.errors import BadInput
from orbitdiff.metrics.comparison import (
    by_arm,
    distance_by_level,
    last_validations,
    mean_while_training,
    paired,
    spread,
)
from orbitdiff.metrics.conformers import ConformerScores, Coverage, aggregate

__all__ = ["Scored", "arm_row", "arm_rows", "common_molecules", "read_scores"]

COMPARED = ("amr_r_mean", "amr_p_mean")
"""Figures with paired differences; smaller is better."""

FIGURES = (
    "cov_r_0.05_mean", "cov_r_0.1_mean", "cov_r_0.5_mean", "cov_r_0.75_mean",
    "cov_p_0.05_mean", "cov_p_0.1_mean", "cov_p_0.5_mean", "cov_p_0.75_mean",
    "cov_r_0.1_median", "cov_p_0.1_median", "cov_r_0.5_median", "cov_p_0.5_median",
    "amr_r_mean", "amr_p_mean", "amr_r_median", "amr_p_median",
    "stereo_conformers_right", "stereo_elements_right",
)  # fmt: skip


class Scored(NamedTuple):
    """Per-molecule values of one run.

    Attributes
    ----------
    scores : dict
        SMILES to values.
    thresholds : tuple of float
        Of the coverage, angstrom.
    """

    scores: dict[str, ConformerScores]
    thresholds: tuple[float, ...]

    def figures(self, molecules: Collection[str] | None = None) -> dict[str, Any]:
        """Figures over some molecules, by default over all.

        Parameters
        ----------
        molecules : collection of str, optional
            Those without a row are left out.
        """
        chosen = [s for name, s in self.scores.items() if molecules is None or name in molecules]
        return aggregate(chosen, thresholds=self.thresholds)


def read_scores(path: Path) -> Scored:
    """Read a per_sample.csv of the evaluate stage.

    Parameters
    ----------
    path : Path

    Raises
    ------
    BadInput
        Missing, empty or foreign file.
    """
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            names = [name for name in reader.fieldnames or () if name.startswith("cov_r_")]
            thresholds = tuple(float(name.removeprefix("cov_r_")) for name in names)
            rows = [_score(row, thresholds) for row in reader]
    except FileNotFoundError as error:
        raise BadInput(f"expected {path}, found none; run the evaluate stage again") from error
    except (KeyError, ValueError, TypeError) as error:
        raise BadInput(
            f"{path} is no table of the evaluate stage ({error!r}); run it again"
        ) from error
    if not rows:
        raise BadInput(f"expected a row per molecule in {path}, got none; run evaluate again")
    return Scored({score.smiles: score for score in rows}, thresholds)


def _score(row: Mapping[str, str], thresholds: Sequence[float]) -> ConformerScores:
    def number(name: str) -> float | None:
        return float(row[name]) if row[name] else None

    def covered(name: str) -> tuple[float, ...]:
        return tuple(float(row[f"{name}_{threshold:g}"]) for threshold in thresholds)

    return ConformerScores(
        smiles=row["smiles"],
        num_references=int(row["num_references"]),
        num_generated=int(row["num_generated"]),
        unreadable=int(row["unreadable"]),
        num_symmetries=int(row["num_symmetries"]),
        coverage=Coverage(covered("cov_r"), number("amr_r"), covered("cov_p"), number("amr_p")),
        stereo_elements=int(row["stereo_elements"]),
        stereo_conformers_right=number("stereo_conformers_right"),
        stereo_elements_right=number("stereo_elements_right"),
        failure=row["failure"],
    )


def common_molecules(scored: Mapping[str, Scored]) -> list[str]:
    """SMILES that every run has, in the order of the first run.

    Parameters
    ----------
    scored : mapping of run name to Scored
        At least one.

    Raises
    ------
    BadInput
        Two runs have no molecule in common.
    """
    names = list(scored)
    shared = set.intersection(*(set(found.scores) for found in scored.values()))
    if not shared:
        raise BadInput(
            f"the runs {names} have no molecule in common; sample and evaluate them on the same "
            "first test molecules"
        )
    return [smiles for smiles in scored[names[0]].scores if smiles in shared]


def arm_rows(
    runs: Mapping[str, Mapping[str, Any]], *, order: Sequence[str], reference: str
) -> list[dict[str, Any]]:
    """One row per arm, those of `order` first.

    Parameters
    ----------
    runs : mapping of run name to {"metrics", "history", "figures"}
        `figures` are those of `aggregate`, over the same molecules for all runs.
    order : sequence of str
        Arms.
    reference : str
        Arm that the paired differences are taken to.

    Returns
    -------
    list of dict
        JSON types; see `arm_row`.
    """
    arms = by_arm(runs)
    known = [name for name in order if name in arms]
    known += [name for name in arms if name not in known]
    against = arms.get(reference, {})
    return [arm_row(name, arms[name], reference=reference, against=against) for name in known]


def arm_row(
    name: str,
    seeds: Mapping[int, Mapping[str, Any]],
    *,
    reference: str = "",
    against: Mapping[int, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Spread over seeds of each figure, and paired differences to a reference.

    Parameters
    ----------
    name : str
        Arm.
    seeds : mapping of seed to {"metrics", "history", "figures"}
    reference : str
        Name of the arm that is compared with.
    against : mapping of seed to the same, optional
        Its runs.

    Returns
    -------
    dict
        JSON types. `estimator`, `seeds`, figures as `spread` and `by_seed`,
        `molecules_without_conformer` (per seed), `posebusters_valid`, `distance`,
        `distance_by_time`, `step_seconds`, and `paired` with `reference`.
    """
    chosen = sorted(seeds)
    row: dict[str, Any] = {"estimator": name, "seeds": chosen}
    for figure in FIGURES:
        known = [seeds[seed]["figures"].get(figure) for seed in chosen]
        known = [value for value in known if value is not None]
        if known:
            row[figure] = spread(known)
    row["molecules_without_conformer"] = [
        seeds[seed]["figures"]["molecules_without_conformer"] for seed in chosen
    ]
    valid = [seeds[seed]["metrics"].get("posebusters_valid") for seed in chosen]
    valid = [value for value in valid if value is not None]
    if valid:
        row["posebusters_valid"] = spread(valid)
    row["by_seed"] = {
        figure: {str(seed): seeds[seed]["figures"].get(figure) for seed in chosen}
        for figure in COMPARED
    }
    final = last_validations(seeds)
    if final:
        row["distance"] = spread([record["distance_mean"] for record in final])
        row["distance_by_time"] = distance_by_level(final)
    seconds = mean_while_training(seeds, "step_seconds")
    if seconds is not None:
        row["step_seconds"] = seconds
    if against and name != reference:
        row["reference"] = reference
        row["paired"] = _differences(seeds, against)
    return row


def _differences(
    seeds: Mapping[int, Mapping[str, Any]], against: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    """Paired differences over the seeds that both have; in how many of them it is better."""
    out: dict[str, Any] = {}
    shared = sorted(set(seeds) & set(against))
    for figure in COMPARED:
        both = [
            (seeds[seed]["figures"].get(figure), against[seed]["figures"].get(figure))
            for seed in shared
        ]
        found = [mine - theirs for mine, theirs in both if mine is not None and theirs is not None]
        if found:
            out[figure] = {**paired(found), "better": sum(value < 0 for value in found)}
    return out
