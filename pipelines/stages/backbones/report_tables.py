"""Tables and notes of the backbone report, as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from orbitdiff.viz.backbone_curves import arm_label
from orbitdiff.viz.page import NOTHING, Table, plus_minus

__all__ = ["chain_table", "describe", "design_table", "difference_table", "error_table"]

CHAINS = {
    "natural": "all proxies natural", "bonds": "bonds", "clashes": "no clash",
    "secondary": "secondary structure", "chirality": "helix hand", "compactness": "compact",
    "bonded": "steps of 3.8 ± 0.3 Å", "helix": "helix", "strand": "strand",
    "rg_ratio": "Rg ratio", "divergence": "dihedral divergence (bit)",
}  # fmt: skip
DESIGNS = {
    "designable": "designable (scRMSD < 2 Å)", "scrmsd": "scRMSD (Å)",
    "nll": "ProteinMPNN NLL of its designs (nat)", "mean_tm": "mean TM of pairs",
    "cluster_ratio": "clusters per chain", "nearest_tm": "TM to the nearest training chain",
}  # fmt: skip
DIFFERENCES = {
    "natural": "all proxies natural", "bonded": "steps of 3.8 ± 0.3 Å",
    "divergence": "dihedral divergence", "nll": "NLL", "designable": "designable",
    "mean_tm": "mean TM of pairs", "nearest_tm": "TM to training", "distance": "distance (Å²)",
    "equivariance": "equivariance error (Å²)",
}  # fmt: skip
ERRORS = {"distance": "Distance to the exact mean velocity", "equivariance": "Equivariance error"}
NOT_MEASURED = "not measured"

Row = Mapping[str, Any]


def name_of(row: Row) -> str:
    """First cell of a row."""
    return str(row.get("name") or arm_label(row["estimator"]))


def cells(row: Row, figures: Mapping[str, str], *, missing: str = NOTHING) -> list[str]:
    """Figures of a row with their spread."""
    return [plus_minus(row[key], digits=3) if key in row else missing for key in figures]


def chain_table(rows: Sequence[Row]) -> Table:
    """Shares of chains within the limits of natural ones, and what they look like.

    Parameters
    ----------
    rows : sequence of rows of `arm_rows`
        A row's `name` stands in for the label of its arm.
    """
    head = ["chains", "seeds", *CHAINS.values()]
    body = [[name_of(row), _seeds(row), *cells(row, CHAINS)] for row in rows]
    return Table("Geometry of the chains", head, body)


def design_table(rows: Sequence[Row]) -> Table:
    """Designability, diversity and novelty; what was not measured says so.

    Parameters
    ----------
    rows : sequence of rows of `arm_rows`
    """
    head = ["chains", "seeds", *DESIGNS.values()]
    body = [[name_of(row), _seeds(row), *cells(row, DESIGNS, missing=NOT_MEASURED)] for row in rows]
    return Table("Designability, diversity, novelty", head, body)


def error_table(rows: Sequence[Row], error: str) -> Table:
    """One error of the networks at the end of training, by time.

    Parameters
    ----------
    rows : sequence of rows of `arm_rows`
    error : str
        `distance` or `equivariance`.
    """
    known = [row for row in rows if f"{error}_by_time" in row]
    times = list(dict.fromkeys(time for row in known for time in row[f"{error}_by_time"]))
    body = [
        [name_of(row), plus_minus(row[error], digits=3)]
        + [plus_minus(row[f"{error}_by_time"].get(time), digits=3) for time in times]
        + [f"{1e3 * row['step_seconds']:.0f}" if "step_seconds" in row else NOTHING]
        for row in known
    ]
    head = ["network", "mean", *(f"t = {time}" for time in times), "ms/step"]
    return Table(f"{ERRORS[error]} at the end of training, Å² per coordinate", head, body)


def difference_table(rows: Sequence[Row], *, reference: str) -> Table:
    """Differences to the reference of the same seed.

    Parameters
    ----------
    rows : sequence of rows of `arm_rows`
        Those without `paired` are left out.
    reference : str
    """
    body = [
        [
            name_of(row),
            *(plus_minus(row["paired"].get(key), "standard_error") for key in DIFFERENCES),
        ]
        for row in rows
        if row.get("paired")
    ]
    caption = f"Paired differences to {arm_label(reference)}, same seed"
    return Table(caption, ["arm", *DIFFERENCES.values()], body)


def _seeds(row: Row) -> str:
    return str(len(row["seeds"])) if row["seeds"] else NOTHING


def describe(
    params: Any,
    runs: Mapping[str, Mapping[str, Any]],
    controls: Mapping[str, Any] | None,
    missing: Sequence[str],
    *,
    num_parameters: int,
) -> list[str]:
    """Notes under the tables: what was measured on what, what is not there.

    Parameters
    ----------
    params : RunParams
    runs : mapping of run name to {"metrics", "history"}
    controls : mapping or None
        metrics.json of the baseline stage.
    missing : sequence of str
        Runs without results.
    num_parameters : int
        Of the network.
    """
    first = next(iter(runs.values()))["metrics"]
    sampler, settings = first["sampler"], params.settings
    training = f"base {settings.train.steps:,} steps x {settings.train.batch_size} chains"
    if settings.finetune is not None:
        tuning = settings.finetune
        training += f"; fine-tunes start from it and run {tuning.steps:,} x {tuning.batch_size}"
    law = "ODE" if not sampler["noise_scale"] else f"SDE with noise scale {sampler['noise_scale']}"
    notes = [
        f"data set {params.dataset}: {first.get('note', '')}, {settings.data.min_length} to "
        f"{settings.data.max_length} residues, split by components of sequence similarity",
        f"{first['chains']} generated chains per run, lengths {first['lengths']}; {law}, "
        f"{sampler['grid']} grid, {sampler['calls']} network calls",
        f"network of {num_parameters:,} parameters; {training}",
        "; ".join(f"{name}: {text}" for name, text in first["limits"].items()),
        "proxies stand in for designability where nothing folds; they prove nothing about it",
        "dihedral divergence: Jensen-Shannon, of the law of CA angle and dihedral against the "
        "training chains",
        f"diversity within {first['diversity']['within']}; novelty: highest TM-score to a training "
        "chain, over the length of the chain",
        "distance: to the exact mean over all rotations, fixed noised validation chains; "
        "equivariance error: E |R^T D(R x_t) - D(x_t)|^2, R uniform",
        "mean ± standard deviation over seeds; paired differences ± standard error over seeds",
        "ms/step: measured while training, so it depends on what else the machine did",
    ]
    if first["designability"].get("note"):
        notes.append(f"designability: {first['designability']['note']}")
    if first["designability"].get("chains"):
        notes.append(
            f"ProteinMPNN (CA only): {first['designability']['chains']} chains of a set, "
            f"{first['designability']['sequences']} sequences each at T = 0.1; its NLL is to be "
            "near that of natural chains, not low: collapsed chains get repetitive sequences"
        )
    if controls is None:
        notes.append("natural and noised controls: not measured, run the baseline stage")
    else:
        notes.append(
            f"controls: {controls['natural']['chains']} held-out natural chains, and the same with "
            f"{controls['noise']:g} Å of noise on every coordinate"
        )
    lost = sum(run["metrics"].get("num_not_finite", 0) for run in runs.values())
    if lost:
        notes.append(f"{lost} generated chain(s) were not finite and are left out")
    if missing:
        notes.append(f"not there yet: {', '.join(missing)}")
    return notes
