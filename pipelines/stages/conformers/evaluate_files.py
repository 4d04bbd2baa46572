"""Evaluate anybody's files of conformers against a reference."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orbitdiff.data.conformer_rows import atom_order, parsed_smiles
from orbitdiff.data.ensembles import EnsembleFile, read_ensembles, to_molecule, with_coords
from orbitdiff.data.molecules import Ensemble
from orbitdiff.data.splits import first_by_hash
from orbitdiff.errors import BadInput
from orbitdiff.export import write_atomically, write_csv
from orbitdiff.metrics.base import MetricResult
from orbitdiff.metrics.conformers import (
    THRESHOLDS,
    ConformerScores,
    MoleculePair,
    compare_conformers,
    score_row,
)
from orbitdiff.metrics.posebusters import validity
from pipelines.stages.base import Executor

__all__ = ["add_validity", "evaluate_files", "molecule_pair", "write_results"]

LISTED = 5


def evaluate_files(
    generated: Path,
    reference: Path,
    *,
    executor: Executor,
    out: Path | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    validity_sample: int = 0,
) -> dict[str, Any]:
    """Evaluate generated conformers against reference ensembles.

    Molecules are paired by canonical isomeric SMILES. A reference molecule without a generated
    conformer counts as not covered; generated molecules without a reference are counted and left
    out; unreadable conformers of a reference molecule count as misses of COV-P.

    Parameters
    ----------
    generated, reference : Path
        SDF or JSON lines, see `orbitdiff.data.ensembles`.
    executor : Executor
    out : Path, optional
        Folder for metrics.json and per_sample.csv (a row per molecule).
    thresholds : sequence of float
        Angstrom.
    validity_sample : int
        How many generated conformers PoseBusters checks; about 20 ms each.

    Returns
    -------
    dict
        Figures over the set, JSON types.

    Raises
    ------
    BadInput
        Missing, truncated, empty or foreign files, no usable reference, no molecule in common.
    """
    truth, made = read_ensembles(reference), read_ensembles(generated)
    _say("reference", truth)
    _say("generated", made)
    if not truth.ensembles:
        raise BadInput(f"no molecule of {reference} is usable as a reference: {_reasons(truth)}")
    unreadable = Counter(row.smiles for row in made.rejected)
    unpaired = sorted(set(made.ensembles) - set(truth.ensembles))
    if not set(made.ensembles) & set(truth.ensembles):
        raise BadInput(
            f"no molecule of {generated} is one of {reference}: {_reasons(made)}; without a "
            f"reference, for example {unpaired[:LISTED]}. Give the property smiles (SDF) or the "
            "key smiles (JSON lines) as the reference has it"
        )
    pairs = [
        molecule_pair(ensemble, made.ensembles.get(name), unreadable=unreadable[name])
        for name, ensemble in truth.ensembles.items()
    ]
    result = compare_conformers(pairs, thresholds=thresholds, parallel=executor.map)
    summary = result.summary
    summary["unreadable"] = len(made.rejected)
    summary["unreadable_references"] = len(truth.rejected)
    summary["unpaired_molecules"] = len(unpaired)
    summary["generated"], summary["reference"] = generated.name, reference.name
    if validity_sample:
        paired = [made.ensembles[n] for n in truth.ensembles if n in made.ensembles]
        add_validity(summary, paired, num=validity_sample, executor=executor)
    if out is not None:
        write_results(out, result, thresholds=thresholds)
    return summary


def molecule_pair(
    reference: Ensemble, generated: Ensemble | None, *, unreadable: int = 0
) -> MoleculePair:
    """Join two ensembles of one molecule, in the atom order of the reference.

    Parameters
    ----------
    reference : Ensemble
    generated : Ensemble or None
        None where nothing was generated.
    unreadable : int
        Generated conformers that could not be read.

    Raises
    ------
    BadInput
        Their graphs differ.
    """
    if generated is None:
        return MoleculePair(
            reference.smiles, reference.coords[:0], reference.coords, unreadable=unreadable
        )
    coords = generated.coords
    if generated.smiles != reference.smiles:
        order = atom_order(parsed_smiles(generated.smiles), parsed_smiles(reference.smiles))
        if order is None:
            raise BadInput(
                f"expected the graph of {reference.smiles}, got {generated.smiles} under the same "
                "canonical SMILES; write both files with one SMILES for this molecule"
            )
        coords = coords[:, order]
    return MoleculePair(reference.smiles, coords, reference.coords, unreadable=unreadable)


def add_validity(
    summary: dict[str, Any], ensembles: Sequence[Ensemble], *, num: int, executor: Executor
) -> None:
    """Add PoseBusters' figures on a fixed sample of conformers to the figures of a set.

    Parameters
    ----------
    summary : dict
        Gets `posebusters_valid` (share), `posebusters_checked`, `..._failed` and `..._not_made`.
    ensembles : sequence of Ensemble
    num : int
        Size of the sample, chosen by hash of SMILES and number.
    executor : Executor
    """
    places = [(row, k) for row, one in enumerate(ensembles) for k in range(len(one.coords))]
    names = [f"{ensembles[row].smiles} {k}" for row, k in places]
    chosen = [places[place] for place in sorted(first_by_hash(names, num).tolist())]
    molecules = [
        to_molecule(with_coords(ensembles[row], ensembles[row].coords[k : k + 1]))
        for row, k in chosen
    ]
    found = validity(molecules, parallel=executor.map)
    summary["posebusters_valid"] = found.share
    summary["posebusters_checked"] = found.num_checked
    summary["posebusters_failed"] = found.failed
    summary["posebusters_not_made"] = found.not_made


def write_results(
    folder: Path, result: MetricResult[ConformerScores], *, thresholds: Sequence[float] = THRESHOLDS
) -> None:
    """Write metrics.json and per_sample.csv, each whole or not at all.

    Parameters
    ----------
    folder : Path
        Created if needed.
    result : MetricResult
        At least one molecule.
    thresholds : sequence of float
        Those of the result.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [score_row(score, thresholds=thresholds) for score in result.per_sample]
    content = json.dumps(result.summary, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_csv(rows, folder / "per_sample.csv")
    write_atomically(folder / "metrics.json", content)


def _reasons(file: EnsembleFile) -> str:
    counts: Mapping[str, int] = Counter(row.reason for row in file.rejected)
    listed = ", ".join(f"{num} x {reason}" for reason, num in sorted(counts.items()))
    return f"{len(file.rejected)} unreadable rows ({listed})" if listed else "no unreadable row"


def _say(name: str, file: EnsembleFile) -> None:
    for row in file.rejected[:LISTED]:
        print(f"left out {name} row {row.row}: {row.reason} ({row.detail})")
    if len(file.rejected) > LISTED:
        print(f"... {name}: {_reasons(file)}")
