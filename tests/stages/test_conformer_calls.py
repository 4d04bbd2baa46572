"""Quality against network calls, with a network that was never trained."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rdkit")

from orbitdiff.data.molecule_graph import graph_of_smiles
from orbitdiff.data.molecules import Ensemble, MoleculeRecord, molecule_schema, record_to_row
from orbitdiff.data.store import write_shards
from orbitdiff.errors import BadInput
from orbitdiff.nn.equivariant_transformer import EquivariantTransformerConfig
from orbitdiff.samplers.flow import FlowConfig
from orbitdiff.tasks.conformers import ConformerModelConfig, build_network
from orbitdiff.training import checkpoint as store
from pipelines.params import load
from pipelines.stages.base import LocalExecutor, NullTracker
from pipelines.stages.conformers import calls, evaluate, sample
from pipelines.stages.results import read_points

SMILES = ("CCO", "CC#N", "NC=O", "C1CC1")
SAMPLERS = (FlowConfig(steps=4), FlowConfig(steps=3, order=2), FlowConfig(steps=2, grid="log"))
LOCAL = {"executor": LocalExecutor(), "tracker": NullTracker()}
NETWORK = ConformerModelConfig(
    equivariant=EquivariantTransformerConfig(
        hidden=16, layers=1, heads=2, pair_width=8, radial=6, time_dim=8
    )
)


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    data, model = tmp_path / "data", tmp_path / "model"
    data.mkdir()
    rng, rows = np.random.default_rng(0), []
    for smiles in SMILES:
        graph = graph_of_smiles(smiles)
        coords = rng.normal(size=(2, len(graph.atom_types), 3))
        truth = Ensemble(smiles, graph.atom_types, coords, np.zeros(2), np.full(2, 0.5))
        rows.append(record_to_row(MoleculeRecord(graph, truth)))
    for split in ("train", "val", "test"):
        write_shards(rows, data, schema=molecule_schema(), name=split)
    manifest = {"schema_version": 1, "task": "conformers", "counts": {"test": len(rows)}}
    (data / "manifest.json").write_text(json.dumps(manifest))
    params = settings()
    network = build_network(NETWORK, generator=torch.Generator().manual_seed(1))
    config = {
        "task": "conformers", "model": asdict(NETWORK), "kernel": asdict(params.settings.kernel),
        "sampler": asdict(SAMPLERS[0]), "estimator": {},
    }  # fmt: skip
    store.save(model, network.state_dict(), config)
    (model / "history.jsonl").touch()
    return {"data": data, "model": model}


def settings(samplers=SAMPLERS):
    chosen = load().select("conformers", "cpu", dataset="geom_qm9", estimator="et_flow", seed=0)
    of = chosen.settings
    of = replace(
        of,
        sample=replace(of.sample, num_test=3, sampler=SAMPLERS[0]),
        evaluate=replace(of.evaluate, posebusters=0),
        curves=replace(of.curves, num_test=3, samplers=samplers),
    )
    return replace(chosen, settings=of)


def test_a_point_is_what_the_sample_and_evaluate_stages_say(tmp_path, inputs, monkeypatch):
    params = settings()
    sample.run(params, inputs, {"samples": tmp_path / "samples"}, **LOCAL)
    found = {**inputs, "samples": tmp_path / "samples"}
    evaluate.run(params, found, {"results": tmp_path / "results"}, **LOCAL)
    metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
    with_validity = replace(params.settings.evaluate, posebusters=9)
    monkeypatch.setattr(evaluate, "add_validity", pytest.fail)  # minutes, per point
    path = tmp_path / "curves" / "run-calls.json"
    params = replace(params, settings=replace(params.settings, evaluate=with_validity))
    calls.run(params, inputs, {"curve": path}, **LOCAL)
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert content["run"] == {
        "dataset": "geom_qm9", "estimator": "et_flow", "preset": "cpu", "seed": 0,
    }  # fmt: skip
    runs = {"run": {"metrics": {"run": {"estimator": "et_flow"}}}}
    points = read_points({"calls:run": path}, "calls", runs)["et_flow"][0]
    assert [(p["sampler"], p["calls"]) for p in points] == [
        ("Euler", 4), ("Heun", 5), ("Euler, log grid", 2),
    ]  # fmt: skip
    for key in calls.KEPT:
        assert points[0][key] == (
            pytest.approx(metrics[key], rel=1e-4) if metrics[key] else metrics[key]
        )
    assert points[0]["num_molecules"] == 3
    assert len({point["amr_r_mean"] for point in points}) == 3
    assert all(point["seconds"] > 0 for point in points)


def test_no_sampler_is_named(tmp_path, inputs):
    with pytest.raises(BadInput, match=r"curves\.samplers"):
        calls.run(settings(samplers=()), inputs, {"curve": tmp_path / "c.json"}, **LOCAL)


def test_a_model_that_draws_nothing_finite(tmp_path, inputs):
    """Molecules without a finite conformer count as not covered; the file stays strict JSON."""
    weights, config = store.load_model(inputs["model"])
    broken = {name: torch.full_like(value, torch.nan) for name, value in weights.items()}
    store.save(inputs["model"], broken, config)
    path = tmp_path / "c.json"
    calls.run(settings(SAMPLERS[:1]), inputs, {"curve": path}, **LOCAL)
    point = json.loads(path.read_text(), parse_constant=pytest.fail)["points"][0]
    assert point["molecules_without_conformer"] == 3
    assert point["cov_r_0.5_mean"] == 0
    assert point["amr_r_mean"] is None
