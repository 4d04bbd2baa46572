"""The conformer report on made-up results of a few molecules: no training, no sampling."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rdkit")

from PIL import Image

from orbitdiff.data.ensembles import with_coords, write_ensembles
from orbitdiff.data.molecule_graph import graph_of_smiles
from orbitdiff.data.molecules import Ensemble, MoleculeRecord, molecule_schema, record_to_row
from orbitdiff.data.store import write_shards
from orbitdiff.errors import BadInput
from orbitdiff.metrics.base import MetricResult
from orbitdiff.metrics.conformers import THRESHOLDS, ConformerScores, Coverage, aggregate
from pipelines.params import load
from pipelines.stages.base import LocalExecutor, NullTracker
from pipelines.stages.conformers import report
from pipelines.stages.conformers.evaluate_files import write_results
from pipelines.stages.conformers.report_figures import panels, ranked_parts, select_overlays
from pipelines.stages.conformers.report_rows import Scored, common_molecules, read_scores

SMILES = ("OCC", "C[C@H](N)O", "NC=O", "CC#N", "C1CC1", "CCF")
"""The first is not canonical: samples are named by their canonical SMILES."""
FIRST = SMILES[:4]


def ensemble(smiles: str) -> Ensemble:
    graph = graph_of_smiles(smiles)
    rng = np.random.default_rng(len(smiles) + ord(smiles[-1]))
    coords = 2 * rng.normal(size=(2, len(graph.atom_types), 3))
    return Ensemble(smiles, graph.atom_types, coords, np.zeros(2), np.full(2, 0.5))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [record_to_row(MoleculeRecord(graph_of_smiles(s), ensemble(s))) for s in SMILES]
    for split in ("train", "val", "test"):
        write_shards(rows, folder, schema=molecule_schema(), name=split)
    manifest = {"schema_version": 1, "task": "conformers", "counts": {"test": len(rows)}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def scores(molecules, level, *, lost=()) -> list[ConformerScores]:
    """AMR-R of molecule i is level + 0.01 i, AMR-P twice as much; a lost one has no conformer."""
    out = []
    for place, smiles in enumerate(molecules):
        gone = smiles in lost
        amr = level + 0.01 * place
        shares = tuple(float(amr < threshold) for threshold in THRESHOLDS)
        none = (0.0,) * len(THRESHOLDS)
        found = Coverage(none, None, none, None) if gone else Coverage(shares, amr, shares, 2 * amr)
        stereo = 1 if "@" in smiles else 0
        right = 0.75 if stereo and not gone else None
        out.append(
            ConformerScores(smiles, 2, 0 if gone else 4, 0, 1, found, stereo, right, right)
        )  # fmt: skip
    return out


def write(folder: Path, rows: list[ConformerScores], **more) -> Path:
    summary = {**aggregate(rows), "posebusters_checked": 5, "num_test": len(SMILES), **more}
    write_results(folder, MetricResult(rows, summary))
    return folder


def write_run(
    root, arm, seed, level, *, molecules=FIRST, lost=(), history=True, sampled=False, valid=0.9
):
    name = f"cpu-geom_qm9-{arm}-{seed}"
    folder = write(
        root / "results" / name, scores(molecules, level, lost=lost), posebusters_valid=valid,
        note="GFN2 ensembles built with ETKDG seeds", num_not_finite=0,
        sampler={"sampler": "uniform", "order": 1, "steps": 20, "calls": 20, "seconds": 2.0 + seed},
        run={"estimator": arm, "seed": seed, "dataset": "geom_qm9", "preset": "cpu"},
    )  # fmt: skip
    if history:
        lines = []
        for step in (250, 500):
            lines.append({"kind": "train", "step": step, "loss": 9 / step, "step_seconds": 0.12})
            record = {"distance": {"0.2": level, "0.8": level / 2}, "distance_mean": 0.75 * level}
            lines.append({"kind": "validation", "step": step, **record})
        (folder / "history.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    if sampled:
        samples = root / "samples" / name
        samples.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        made = [
            with_coords(one, one.coords + 0.1 * rng.normal(size=one.coords.shape))
            for one in map(ensemble, molecules)
        ]
        write_ensembles(made, samples / "samples.jsonl.gz")
    return {f"run:{name}": folder}


@pytest.fixture
def inputs(tmp_path, data):
    (tmp_path / "results").mkdir()
    return {"results": tmp_path / "results", "data": data, "samples": tmp_path / "samples"}


@pytest.fixture
def make(tmp_path):
    params = load().select("conformers", "cpu", dataset="geom_qm9", estimator="et_flow", seed=0)

    def run(inputs, params=params):
        outputs = {"report": tmp_path / "report", "pages": tmp_path / "pages"}
        report.run(params, inputs, outputs, executor=LocalExecutor(), tracker=NullTracker())
        return outputs["report"], outputs["pages"]

    return run


def tables(text):
    """Caption of each table to its lines: first cell to the others."""
    found = {}
    for block in re.split(r"\n\n(?=[^|\n])", text):
        caption, _, rest = block.partition("\n")
        rows = [line for line in rest.splitlines() if line.startswith("|")]
        cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
        if len(rows) > 2:
            head = cells[0][1:]
            found[caption] = [(row[0], dict(zip(head, row[1:], strict=True))) for row in cells[2:]]
    return found


class Sources(HTMLParser):
    """Every address that a page would load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        wanted = {"src", "href", "data", "srcset", "action"}
        self.found += [value for name, value in attributes if name in wanted and value]


def test_a_whole_report(tmp_path, inputs, make):
    ends = {0: -0.02, 1: -0.04, 2: 0.01}  # exact minus ET-Flow, by seed
    for seed, gain in ends.items():
        base = 0.2 + 0.1 * seed
        inputs |= write_run(tmp_path, "et_flow", seed, base)
        inputs |= write_run(tmp_path, "independent_exact", seed, base + gain, sampled=seed < 2)
        inputs |= write_run(tmp_path, "independent", seed, 0.5)
        inputs |= write_run(tmp_path, "tuned", seed, 0.4)
        inputs |= write_run(tmp_path, "tuned_exact", seed, 0.39)
    write(tmp_path / "results" / "baseline", scores(SMILES, 0.3, lost=("CCF",)),
          posebusters_valid=1.0)  # fmt: skip
    whole = "whole:cpu-geom_qm9-independent_exact-0"
    inputs[whole] = write(tmp_path / "whole", scores(SMILES, 0.18))
    curve = tmp_path / "calls.json"
    points = [{"sampler": "Euler", "calls": 5, "amr_r_mean": 0.3, "amr_p_mean": 0.4}]
    curve.write_text(json.dumps({"run": {}, "points": points}))
    inputs["calls:cpu-geom_qm9-et_flow-0"] = curve
    out, pages = make(inputs)
    assert {path.name for path in out.iterdir()} == {
        "table.md", "table.json", "molecules.png", "amr_by_arm.png", "training.png",
        "distance_by_time.png", "amr_by_calls.png",
    }  # fmt: skip
    assert {path.name for path in pages.iterdir()} == {"report.html", "molecules.html"}
    text = (out / "table.md").read_text()
    found = tables(text)
    main = dict(found["Arms on the same 4 molecules"])
    assert list(main) == ["ET-Flow", "independent", "independent, exact", "RDKit ETKDGv3"]
    # mean over molecules of a run is its level + 0.015, whatever other molecules it has
    assert main["ET-Flow"]["AMR-R (Å)"] == "0.315 ± 0.100"
    assert (
        main["independent, exact"]["AMR-R (Å)"] == f"{np.mean([0.195, 0.275, 0.425]):.3f} ± 0.117"
    )
    gains = list(ends.values())
    error = np.std(gains, ddof=1) / np.sqrt(3)
    paired = f"{np.mean(gains):+.4f} ± {error:.4f} (2 of 3)"
    assert main["independent, exact"]["AMR-R − ET-Flow (paired)"] == paired
    doubled = f"{2 * np.mean(gains):+.4f} ± {2 * error:.4f} (2 of 3)"
    assert main["independent, exact"]["AMR-P − ET-Flow (paired)"] == doubled
    assert main["ET-Flow"]["AMR-R − ET-Flow (paired)"] == "–"
    assert main["ET-Flow"]["stereo right"] == "0.750 ± 0.000"
    assert main["ET-Flow"]["PoseBusters valid"] == "0.900 ± 0.000"
    assert main["ET-Flow"]["ms/step"] == "120"
    assert main["RDKit ETKDGv3"]["AMR-R (Å)"] == "0.315"
    assert main["RDKit ETKDGv3"]["molecules without conformer"] == "0"
    tuned = found["Fine-tuned, the same 4 molecules"]
    assert [name for name, _ in tuned] == [
        "independent (the start)", "fine-tuned, plain", "fine-tuned, exact",
    ]  # fmt: skip
    assert tuned[2][1]["AMR-R − fine-tuned, plain (paired)"] == "-0.0100 ± 0.0000 (3 of 3)"
    assert tuned[0][1]["AMR-R − fine-tuned, plain (paired)"] == "–"
    others = found["Baselines, whole test set, figures of others"]
    named = {(name, row["source"].split(":")[0]): row for name, row in others}
    whole = named["independent, exact, seed 0", "measured"]
    assert (whole["data"], whole["AMR-R (Å)"]) == ("this test file, 6 molecules", "0.205")
    rdkit = named["RDKit ETKDGv3", "measured"]
    assert rdkit["data"] == "this test file, 6 molecules (1 failed)"
    assert rdkit["AMR-R (Å)"] == "0.320"  # over the five
    assert rdkit["COV-R 0.5 Å"] == f"{5 / 6:.3f}"
    assert named["GeoMol, its published weights", "measured, not trained again; README of the data"][
        "AMR-P (Å)"] == "0.287"  # fmt: skip
    assert named["ET-Flow + OrbDiff", "published"]["AMR-R (Å)"] == "0.074"
    for part in ("GFN2 ensembles built with ETKDG seeds", "Euler", "20 network calls", "strictly",
                 "8000 steps x 32 molecules", "parameters", "4 of 6 test molecules"):  # fmt: skip
        assert part in text
    assert "WARNING" not in text
    content = json.loads((out / "table.json").read_text(), parse_constant=pytest.fail)
    exact = next(row for row in content["rows"] if row["estimator"] == "independent_exact")
    assert exact["by_seed"]["amr_r_mean"] == pytest.approx({"0": 0.195, "1": 0.275, "2": 0.425})
    for page in pages.iterdir():
        parser = Sources()
        parser.feed(page.read_text())
        assert [a for a in parser.found if not a.startswith("data:")] == []
        assert "Plotly.newPlot" in page.read_text()
    assert (pages / "report.html").read_text().count("<figcaption>") == 5
    picture = np.asarray(Image.open(out / "molecules.png").convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 500


def test_what_is_missing_is_said(tmp_path, inputs, make):
    inputs |= write_run(tmp_path, "independent_exact", 3, 0.2, history=False, lost=("CC#N",))
    inputs["run:cpu-geom_qm9-et_flow-0"] = tmp_path / "nowhere"
    out, pages = make(inputs)
    text = (out / "table.md").read_text()
    main = dict(tables(text)["Arms on the same 4 molecules"])
    row = main["independent, exact"]
    assert row["molecules without conformer"] == "1"
    assert row["COV-R 0.5 Å"] == "0.750"  # the lost one counts as not covered
    assert row["AMR-R (Å)"] == f"{np.mean([0.2, 0.21, 0.22]):.3f}"
    assert main["RDKit ETKDGv3: not measured"]["AMR-R (Å)"] == "–"
    assert "not there yet: cpu-geom_qm9-et_flow-0" in text
    assert "no training history: cpu-geom_qm9-independent_exact-3" in text
    assert "not on this machine" in text
    assert "nan" not in text.lower()
    assert "None" not in text
    assert "not on this machine" in (pages / "molecules.html").read_text()
    assert {path.name for path in out.iterdir()} == {"table.md", "table.json", "amr_by_arm.png"}


def test_other_samplers_are_warned_of(tmp_path, inputs, make):
    inputs |= write_run(tmp_path, "et_flow", 0, 0.2)
    found = write_run(tmp_path, "et_flow", 1, 0.2)
    path = next(iter(found.values())) / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["sampler"]["steps"] = 50
    path.write_text(json.dumps(metrics))
    out, _ = make(inputs | found)
    assert (
        "WARNING: the runs were sampled with different samplers" in (out / "table.md").read_text()
    )


def test_figures_of_others_belong_to_their_data_set(tmp_path, inputs, make):
    params = load().select(
        "conformers", "cpu", dataset="demo_molecules", estimator="et_flow", seed=0
    )
    inputs |= write_run(tmp_path, "et_flow", 0, 0.2)
    out, _ = make(inputs, params)
    text = (out / "table.md").read_text()
    assert "GeoMol" not in text
    assert "published:" not in text


def test_bad_results_are_named(tmp_path, inputs, make):
    with pytest.raises(BadInput, match="evaluate"):
        make(inputs | {"run:x": tmp_path / "none"})
    found = write_run(tmp_path, "et_flow", 0, 0.2)
    other = write_run(tmp_path, "et_flow", 1, 0.2, molecules=SMILES[4:])
    with pytest.raises(BadInput, match="no molecule in common"):
        make(inputs | found | other)
    table = next(iter(found.values())) / "per_sample.csv"
    table.write_text(table.read_text().replace("cov_p_0.5", "something"))
    with pytest.raises(BadInput, match=r"per_sample\.csv"):
        make(inputs | found)
    table.write_text(table.read_text().splitlines()[0] + "\n")
    with pytest.raises(BadInput, match="a row per molecule"):
        make(inputs | found)
    table.unlink()
    with pytest.raises(BadInput, match=r"expected .*per_sample\.csv"):
        make(inputs | found)


def test_a_table_is_read_as_it_was_written(tmp_path):
    rows = scores(SMILES, 0.123456789, lost=("NC=O",))
    rows[0] = replace(rows[0], failure="TimeoutError: over 5 s", unreadable=2)
    write(tmp_path / "r", rows)
    found = read_scores(tmp_path / "r" / "per_sample.csv")
    assert list(found.scores.values()) == rows
    assert found.thresholds == THRESHOLDS
    with (tmp_path / "r" / "per_sample.csv").open(newline="") as file:
        known = [float(row["amr_p"]) for row in csv.DictReader(file) if row["amr_p"]]
    assert found.figures()["amr_p_mean"] == pytest.approx(np.mean(known))
    assert common_molecules({"a": found, "b": Scored({"CCF": rows[5]}, THRESHOLDS)}) == ["CCF"]


def test_best_median_and_worst_molecules():
    names = [f"m{place}" for place in range(9)]
    scored = Scored(dict(zip(names, scores(names, 0.1, lost=("m8",)), strict=True)), THRESHOLDS)
    assert ranked_parts(scored, set(names), each=2) == [
        ("best", "m0"), ("best", "m1"), ("median", "m3"), ("median", "m4"), ("worst", "m6"),
        ("worst", "m7"),
    ]  # fmt: skip
    assert ranked_parts(scored, {"m5", "m2"}, each=2) == [("", "m2"), ("", "m5")]


def test_pairs_are_found_by_canonical_smiles(tmp_path, data):
    write_run(tmp_path, "et_flow", 0, 0.1, sampled=True)
    scored = Scored({s.smiles: s for s in scores(FIRST, 0.1)}, THRESHOLDS)
    folder = tmp_path / "samples" / "cpu-geom_qm9-et_flow-0"
    shown = select_overlays(folder, scored, set(FIRST), data, each=1)
    assert [(one.note, one.smiles) for one in shown] == [
        ("best, AMR-P 0.20", "OCC"), ("median, AMR-P 0.22", "C[C@H](N)O"),
        ("worst, AMR-P 0.26", "CC#N"),
    ]  # fmt: skip
    assert all(0 < one.rmsd < 0.3 for one in shown)


def test_arms_of_one_yardstick_share_a_panel():
    params = load().select("conformers", "cpu", dataset="geom_qm9", estimator="et_flow", seed=0)
    arms = ("et_flow", "published", "aligned", "independent", "independent_exact", "tuned_exact")
    runs = {
        f"{arm}-{seed}": {"metrics": {"run": {"estimator": arm, "seed": seed}}, "history": [{}]}
        for arm in (*arms, "gone")
        for seed in range(2)
    }
    runs["aligned-1"]["history"] = []
    assert {t: {a: len(h) for a, h in p.items()} for t, p in panels(params, runs).items()} == {
        "aligned coupling, bridge 0.1 Å": {"et_flow": 2, "published": 2},
        "aligned coupling": {"aligned": 1},
        "independent coupling": {"independent": 2, "independent_exact": 2},
        "fine-tuned, independent coupling": {"tuned_exact": 2},
    }
