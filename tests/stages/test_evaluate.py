import csv
import dataclasses
import gzip
import json

import numpy as np
import pytest

from orbitdiff.data.crystals import Crystal, to_structure
from orbitdiff.errors import BadInput
from orbitdiff.export import read_samples, write_cifs, write_samples
from pipelines.params import load
from pipelines.stages.base import LocalExecutor, NullTracker
from pipelines.stages.crystals import evaluate
from pipelines.stages.crystals.evaluate import evaluate_files


def write_csv(path, crystals, *, key="material_id"):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, [key, "cif"])
        writer.writeheader()
        for crystal in crystals:
            writer.writerow({key: crystal.id, "cif": to_structure(crystal).to(fmt="cif")})
    return path


def shifted(crystal, by=(0.1, 0.2, 0.3)):
    return dataclasses.replace(crystal, frac=(crystal.frac + np.array(by)) % 1.0)


def files(generated, reference, **more):
    return evaluate_files(generated, reference, executor=LocalExecutor(), **more)


@pytest.fixture
def reference(tmp_path, crystals):
    return write_csv(tmp_path / "reference.csv.gz", crystals)


def test_a_folder_of_several_samples_each(tmp_path, crystals, reference):
    samples = [(c.id, k, shifted(c)) for c in crystals[:3] for k in range(2)]
    write_cifs(samples, tmp_path / "made")
    found = files(tmp_path / "made", reference, out=tmp_path / "out")
    assert found["match_rate_all"] == 1
    assert found["rmse_all"] == pytest.approx(0, abs=1e-4)
    assert found["samples_per_crystal"] == 2
    assert found["num_references"] == 3
    assert found["references_without_sample"] == len(crystals) - 3
    assert found["validity_rules"].startswith("all:")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == found
    with (tmp_path / "out" / "per_sample.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["k"]) for row in rows] == [(c.id, str(k)) for c, k in
            [(c, k) for c in crystals[:3] for k in range(2)]]  # fmt: skip


def test_a_csv_pairs_by_its_id_column(tmp_path, crystals, reference):
    made = [dataclasses.replace(crystals[0], id="cscl"), shifted(crystals[1]),
            dataclasses.replace(crystals[2], id="stranger")]  # fmt: skip
    found = files(write_csv(tmp_path / "made.csv", made), reference)
    assert found["num_references"] == 2
    assert found["match_rate_all"] == 1 / 2  # a perovskite is no caesium chloride
    assert found["unpaired"] == 1


def test_unreadable_structures_are_misses(tmp_path, crystals, reference):
    write_cifs([(c.id, 0, c) for c in crystals[:2]], tmp_path / "made")
    (tmp_path / "made" / "cscl.cif").write_text("this is no cif")
    found = files(tmp_path / "made", reference)
    assert found["unreadable"] == 1
    assert found["failures"] == 1
    assert found["num_references"] == 3
    assert found["match_rate_all"] == 2 / 3
    assert found["metre"] == 2 / 3


def test_overlapping_atoms_count_under_rule_all_only(tmp_path, crystals, reference):
    tlbr = crystals[-1]
    near = Crystal(tlbr.id, tlbr.atom_types, np.array([[0, 0, 0], [0.05, 0, 0]]), tlbr.lattice)
    found = files(write_csv(tmp_path / "made.csv", [near]), reference)
    assert found["unreadable"] == 0
    assert found["match_rate_valid"] == 0
    assert found["valid_generated"] == 0


@pytest.mark.parametrize("case", ["missing", "empty folder", "no pairs", "no cif column"])
def test_bad_input_is_named(tmp_path, crystals, reference, case):
    made = tmp_path / "made"
    if case == "empty folder":
        made.mkdir()
    elif case == "no pairs":
        write_cifs([("nobody", 0, crystals[0])], made)
    elif case == "no cif column":
        made.write_text("material_id,structure\na,b\n")
    with pytest.raises(BadInput, match="made"):
        files(made, reference, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_id_twice_among_the_references(tmp_path, crystals):
    twice = write_csv(tmp_path / "twice.csv", [crystals[0], crystals[0]])
    with pytest.raises(BadInput, match="p0"):
        files(twice, twice)


@pytest.fixture
def stage(tmp_path, prepared, crystals):
    samples, model = tmp_path / "samples", tmp_path / "model"
    samples.mkdir()
    model.mkdir()
    drawn = [(c.id, 0, shifted(c)) for c in crystals[:4]]
    drawn += [(crystals[4].id, 0, dataclasses.replace(crystals[6], id=""))]
    write_samples(drawn, samples / "samples.parquet")
    about = {"sampler": "multistep", "steps": 50, "calls": 50, "seconds": 1.0}
    (samples / "sampling.json").write_text(json.dumps(about))
    (model / "history.jsonl").write_text('{"kind": "train", "step": 1}\n')
    return {"data": prepared, "samples": samples, "model": model}


def run_stage(inputs, out):
    params = load().select(
        "crystals", "demo", dataset="prototypes", estimator="exact", seed=0
    )  # fmt: skip
    evaluate.run(
        params, inputs, {"results": out}, executor=LocalExecutor(), tracker=NullTracker()
    )  # fmt: skip
    return json.loads((out / "metrics.json").read_text(), parse_constant=pytest.fail)


def test_the_stage_names_sampler_rules_and_size(tmp_path, stage, crystals):
    found = run_stage(stage, tmp_path / "results")
    assert found["match_rate_all"] == 4 / 5
    assert found["sampler"]["sampler"] == "multistep"
    assert found["sampler"]["steps"] == 50
    assert (found["num_references"], found["num_test"]) == (5, len(crystals))
    assert found["note"] == "reduced training set"
    assert found["run"] == {"dataset": "prototypes", "estimator": "exact", "preset": "demo",
                            "seed": 0}  # fmt: skip
    assert (tmp_path / "results" / "history.jsonl").is_file()


def test_nothing_matched_is_null_not_nan(tmp_path, stage, crystals):
    drawn = [(crystals[0].id, 0, crystals[6])]
    write_samples(drawn, stage["samples"] / "samples.parquet")
    found = run_stage(stage, tmp_path / "results")
    assert found["rmse_all"] is None
    assert found["crmse_all"] == 0.5


def test_samples_of_another_data_set_are_refused(tmp_path, stage, crystals):
    write_samples([("foreign", 0, crystals[0])], stage["samples"] / "samples.parquet")
    with pytest.raises(BadInput, match="foreign"):
        run_stage(stage, tmp_path / "results")


def test_samples_table_survives_a_round_trip(tmp_path, crystals):
    write_samples([(c.id, 3, c) for c in crystals], tmp_path / "s.parquet")
    again = read_samples(tmp_path / "s.parquet")
    for (name, k, found), crystal in zip(again, crystals, strict=True):
        assert (name, k) == (crystal.id, 3)
        assert np.array_equal(found.frac, crystal.frac)
        assert np.array_equal(found.atom_types, crystal.atom_types)
        assert np.array_equal(found.lattice, crystal.lattice)
    (tmp_path / "s.parquet").write_bytes((tmp_path / "s.parquet").read_bytes()[:200])
    with pytest.raises(BadInput, match=r"s\.parquet"):
        read_samples(tmp_path / "s.parquet")
