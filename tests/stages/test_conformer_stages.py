"""The conformer stages on a dozen small molecules, in this process: prepare to evaluate."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rdkit")

from orbitdiff.data.ensembles import read_ensembles, write_ensembles
from orbitdiff.data.molecules import Ensemble, MoleculeDataset
from orbitdiff.errors import BadInput
from orbitdiff.inference.conformers import ConformerModel, generate_conformers
from orbitdiff.nn.equivariant_transformer import EquivariantTransformerConfig
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.samplers.flow import FlowConfig
from orbitdiff.seeding import stream
from orbitdiff.tasks.conformer_objective import ConformerArm
from orbitdiff.tasks.conformers import (
    ConformerEvaluateConfig,
    ConformerModelConfig,
    Conformers,
    ConformerSampleConfig,
    ConformersConfig,
    ConformerValidationConfig,
)
from orbitdiff.training import checkpoint as store
from orbitdiff.training.config import TrainConfig
from pipelines.params import RunParams
from pipelines.stages import train
from pipelines.stages.base import LocalExecutor, NullTracker
from pipelines.stages.conformers import baseline, evaluate, sample
from pipelines.stages.conformers.prepare import parse_line, prepare_own

SMILES = (
    "CCO", "CCC", "CC=O", "C#N", "CO", "CCN", "CC#N", "C1CC1", "OC=O", "NC=O", "CCF", "C=C",
    "CC(C)O", "C1CO1", "N", "O", "CCCO", "CN", "C[C@H](N)O", "C[C@@H](F)O", "FC=C", "CSC", "CCl",
    "OO", "NN", "COC", "CNC", "C=O", "CC(=O)O", "OCCO", "C(F)CF",  # not canonical
)  # fmt: skip
LOCAL = {"executor": LocalExecutor(), "tracker": NullTracker()}
TRAIN = TrainConfig(
    steps=4, batch_size=4, num_workers=1, checkpoint_every=2, validate_every=4, log_every=1
)
SETTINGS = ConformersConfig(
    model=ConformerModelConfig(
        equivariant=EquivariantTransformerConfig(
            hidden=16, layers=1, heads=2, pair_width=8, radial=6, time_dim=8
        )
    ),
    train=TRAIN,
    finetune=replace(TRAIN, learning_rate=1e-4),
    validation=ConformerValidationConfig(num=2, times=(0.3, 0.7)),
    sample=ConformerSampleConfig(num_test=0, batch_size=5, sampler=FlowConfig(steps=3)),
    evaluate=ConformerEvaluateConfig(posebusters=2),
    estimators={
        "plain": ConformerArm(EstimatorSpec("plain")),
        "exact": ConformerArm(EstimatorSpec("automorphism")),
    },
)


def run_of(estimator: str, start: str = "") -> RunParams:
    return RunParams("conformers", "tiny", "own", estimator, 0, SETTINGS, start)


def embedded(smiles: str, num: int = 2) -> Ensemble:
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom

    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    settings = rdDistGeom.ETKDGv3()
    settings.randomSeed = 7
    rdDistGeom.EmbedMultipleConfs(molecule, num, settings)
    coords = np.stack([c.GetPositions() for c in molecule.GetConformers()])
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
    return Ensemble(smiles, numbers, coords, np.zeros(num), np.full(num, 1 / num))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a trained model, a fine-tuned one, samples and results."""
    root = tmp_path_factory.mktemp("conformers")
    write_ensembles([embedded(smiles) for smiles in SMILES], root / "own.jsonl.gz")
    prepare_own(
        root / "own.jsonl.gz", root / "data", max_atoms=40, seed=0, executor=LOCAL["executor"]
    )
    data = root / "data"
    for name, params in (("plain", run_of("plain")), ("tuned", run_of("exact", start="plain"))):
        inputs = {"data": data, **({"start": root / "plain"} if params.start else {})}
        train.run(params, inputs, {"model": root / name, "running": root / f"r-{name}"}, **LOCAL)
    inputs = {"data": data, "model": root / "plain"}
    sample.run(run_of("plain"), inputs, {"samples": root / "samples"}, **LOCAL)
    inputs["samples"] = root / "samples"
    evaluate.run(run_of("plain"), inputs, {"results": root / "results"}, **LOCAL)
    return root


def test_results_name_sampler_note_and_every_molecule(finished: Path) -> None:
    metrics = json.loads((finished / "results" / "metrics.json").read_text())
    test = MoleculeDataset.load(finished / "data", "test")
    assert metrics["num_molecules"] == metrics["num_test"] == len(test)
    assert metrics["num_generated"] == 2 * int(test.num_conformers.sum())
    assert metrics["sampler"]["steps"] == metrics["sampler"]["calls"] == 3
    assert metrics["note"] == "own data"
    assert metrics["posebusters_checked"] == 2
    assert len((finished / "results" / "per_sample.csv").read_text().splitlines()) == len(test) + 1
    sdf = read_ensembles(finished / "samples" / "samples.sdf.gz").ensembles.values()
    assert {one.smiles for one in sdf} == set(test.ids)


def test_a_fine_tune_starts_from_the_source(finished: Path) -> None:
    """Its loss at step 0 is the source's own; the source is what was trained before."""
    task = Conformers(SETTINGS, SETTINGS.estimators["exact"], finished / "data")
    weights, _ = store.load_model(finished / "plain")
    source = ConformerModel.load(finished / "plain").network
    batch = task.train_batch(torch.arange(4), generator=stream(0, "data", 0, 0))
    t = task.objective.draw_times(4, generator=stream(0, "noise", 0, 0), device=torch.device("cpu"))
    wanted = task.objective(source, batch, t, generator=stream(1, "loss")).value
    started = task.build_denoiser(generator=stream(0, "weights"))
    before = task.objective(started, batch, t, generator=stream(1, "loss")).value
    started.load_state_dict(weights)
    found = task.objective(started, batch, t, generator=stream(1, "loss")).value
    assert float(found.detach()) == float(wanted.detach())
    assert float(found.detach()) != float(before.detach())
    about = json.loads((finished / "tuned" / "config.json").read_text())
    assert about["start"] == "plain"


def test_samples_do_not_depend_on_the_batch_size(finished: Path) -> None:
    model = ConformerModel.load(finished / "plain")
    test = MoleculeDataset.load(finished / "data", "test")
    wanted = [(row, k) for row in range(len(test)) for k in range(2)]
    one = model.sample_many(test, wanted, seed=3, batch_size=1)
    many = model.sample_many(test, wanted, seed=3, batch_size=64)
    for key, coords in one.items():
        np.testing.assert_allclose(coords, many[key], atol=2e-4)
    other = model.sample_many(test, wanted[:1], seed=4, batch_size=1)
    assert np.abs(other[wanted[0]] - one[wanted[0]]).max() > 0.1


def test_generated_molecules_keep_order_charges_and_labels(finished: Path) -> None:
    from rdkit import Chem

    names = ["C[C@H](N)O", "C[NH2+]C"]
    molecules = generate_conformers(names, 3, checkpoint=finished / "plain")
    for name, molecule in zip(names, molecules, strict=True):
        assert molecule.GetNumConformers() == 3
        wanted = Chem.AddHs(Chem.MolFromSmiles(name))
        assert [a.GetAtomicNum() for a in molecule.GetAtoms()] == [
            a.GetAtomicNum() for a in wanted.GetAtoms()
        ]
        assert Chem.MolToSmiles(Chem.RemoveHs(molecule)) == Chem.CanonSmiles(name)
        assert all(np.isfinite(c.GetPositions()).all() for c in molecule.GetConformers())


def test_without_a_checkpoint_the_shipped_model_draws() -> None:
    (ethanol,) = generate_conformers("CCO", 5)
    for conformer in ethanol.GetConformers():
        points = conformer.GetPositions()
        for bond in ethanol.GetBonds():
            a, b = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            length = np.linalg.norm(points[a] - points[b])
            hydrogen = 1 in (bond.GetBeginAtom().GetAtomicNum(), bond.GetEndAtom().GetAtomicNum())
            assert abs(length - (1.05 if hydrogen else 1.47)) < 0.3


@pytest.mark.parametrize(
    ("names", "n", "message"),
    [("C1CC", 1, "SMILES"), ("CC.CC", 1, "fragments"), ("[Xe]", 1, "elements"), ("C", 0, "n of"),
     ([], 1, "at least one"), ("C" * 70, 1, "at most 200 atoms")],
)  # fmt: skip
def test_bad_requests_are_refused(finished: Path, names, n: int, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        generate_conformers(names, n, checkpoint=finished / "plain")


def test_the_baseline_goes_through_the_same_evaluation(finished: Path) -> None:
    outputs = {"results": finished / "baseline", "samples": finished / "etkdg"}
    baseline.run(run_of("plain"), {"data": finished / "data"}, outputs, **LOCAL)
    metrics = json.loads((finished / "baseline" / "metrics.json").read_text())
    ours = json.loads((finished / "results" / "metrics.json").read_text())
    assert metrics["cov_r_0.5_mean"] > 0.9 > ours["cov_r_0.5_mean"]
    assert metrics["num_generated"] == ours["num_generated"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "broken row"),
        ('{"smiles": "CC"}', "broken row"),
        ('{"smiles": "C1CC", "atomic_numbers": [6], "coords": [[[0, 0, 0]]]}', "unusable SMILES"),
        ('{"smiles": "O", "atomic_numbers": [8, 1], "coords": [[[0, 0, 0], [1, 0, 0]]]}',
         "other atoms"),
        ('{"smiles": "O", "atomic_numbers": [8, 1, 1], "coords": [[[0, 0, 0], [1, 0, 0]]]}',
         "wrong shape"),
        ('{"smiles": "O", "atomic_numbers": [8, 1, 1], "coords": [[[0, 0, 0], [1, 0, 0], '
         "[0, NaN, 1]]]}", "not finite"),
        ('{"smiles": "CCCC", "atomic_numbers": [6], "coords": [[[0, 0, 0]]]}', "too many atoms"),
    ],
)  # fmt: skip
def test_bad_rows_are_named(line: str, reason: str) -> None:
    name = line.split('"')[3] if '"smiles"' in line else "line 1"
    found = parse_line((name, line), max_atoms=10, max_conformers=5)
    assert found.reason == reason


def test_the_lowest_conformers_are_kept() -> None:
    water = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    coords = [[[x + k for x in point] for point in water] for k in range(3)]
    line = json.dumps(
        {"smiles": "O", "atomic_numbers": [8, 1, 1], "coords": coords, "energies_kcal": [2, 0, 1]}
    )
    found = parse_line(("O", line), max_atoms=10, max_conformers=2).ensemble
    assert found.energies.tolist() == [0, 1]
    assert found.coords[:, 0, 0].tolist() == [1, 2]
    np.testing.assert_allclose(found.weights.sum(), 1)
