"""Molecules as dense batches: graphs from SMILES, stereo, rows, conformers."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rdkit")

from orbitdiff.data.molecule_graph import ATOM_FEATURES, graph_of_smiles
from orbitdiff.data.molecules import (
    GRAPH_DISTANCES,
    Ensemble,
    MoleculeDataset,
    MoleculeRecord,
    bonds_between,
    molecule_schema,
    record_to_row,
    rows_to_records,
)
from orbitdiff.data.store import read_shards, write_shards
from orbitdiff.errors import BadInput

SMILES = ("C", "CCO", "C[C@H](N)C(=O)O", "F/C=C/F", "c1ccoc1", "C[C@H](F)[C@H](C)O", "C#N")


def embedded(smiles: str, num: int = 3) -> np.ndarray:
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom

    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    settings = rdDistGeom.ETKDGv3()
    settings.randomSeed = 1
    rdDistGeom.EmbedMultipleConfs(molecule, num, settings)
    return np.stack([c.GetPositions() for c in molecule.GetConformers()])


def record(smiles: str, num: int = 3) -> MoleculeRecord:
    graph, coords = graph_of_smiles(smiles), embedded(smiles, num)
    flat = np.full(len(coords), 1 / len(coords))
    return MoleculeRecord(
        graph, Ensemble(smiles, graph.atom_types, coords, np.zeros(len(coords)), flat)
    )


@pytest.fixture(scope="module")
def dataset() -> MoleculeDataset:
    return MoleculeDataset([record(smiles, 2 + i % 3) for i, smiles in enumerate(SMILES)])


@pytest.mark.parametrize("smiles", [s for s in SMILES if "@" in s])
def test_stereocentres_have_positive_volume(smiles: str) -> None:
    """Geometries embedded by RDKit, which knows nothing of our convention."""
    stereo = graph_of_smiles(smiles).stereo
    assert len(stereo) == smiles.replace("@@", "@").count("@")
    for coords in embedded(smiles):
        corners = coords[stereo[:, 1:]]
        volume = np.linalg.det(corners[:, 1:] - corners[:, :1])
        assert (volume > 0.5).all()


def test_graph_distances_are_shortest_paths(dataset: MoleculeDataset) -> None:
    from rdkit import Chem

    batch = dataset.batch(torch.arange(len(dataset)))
    for row, smiles in enumerate(SMILES):
        molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
        size = molecule.GetNumAtoms()
        wanted = torch.tensor(Chem.GetDistanceMatrix(molecule)).long().clamp(max=GRAPH_DISTANCES)
        found = batch.cond["graph_distance"][row]
        assert torch.equal(found[:size, :size], wanted)
        assert not found[size:].any()
        assert batch.mask[row].sum() == size


def test_long_chains_are_capped() -> None:
    chain = torch.zeros(1, 14, 14, dtype=torch.bool)
    steps = torch.arange(13)
    chain[0, steps, steps + 1] = chain[0, steps + 1, steps] = True
    wanted = (torch.arange(14)[:, None] - torch.arange(14)).abs().clamp(max=GRAPH_DISTANCES)
    assert torch.equal(bonds_between(chain)[0].long(), wanted)


def test_pairs_hold_bonds_and_sides(dataset: MoleculeDataset) -> None:
    row = SMILES.index("F/C=C/F")
    pairs = dataset.batch(torch.tensor([row])).cond["pair_types"][0]
    assert torch.equal(pairs, pairs.T)
    assert pairs[1, 2] == 2  # C=C
    assert pairs[0, 1] == 1  # F-C
    assert pairs[0, 3] == 6  # the fluorines lie on different sides
    furan = dataset.batch(torch.tensor([SMILES.index("c1ccoc1")])).cond["pair_types"][0]
    assert int((furan == 4).sum()) == 10


def test_rows_come_back_as_they_were(tmp_path: Path, dataset: MoleculeDataset) -> None:
    rows = [record_to_row(one) for one in dataset.records]
    paths = write_shards(rows, tmp_path, schema=molecule_schema(), name="train")
    found = rows_to_records(read_shards(paths, schema=molecule_schema()))
    for one, other in zip(dataset.records, found, strict=True):
        assert one.graph.graph == other.graph.graph
        assert one.graph.smiles == other.graph.smiles
        np.testing.assert_array_equal(one.graph.atom_features, other.graph.atom_features)
        np.testing.assert_array_equal(one.ensemble.coords, other.ensemble.coords)
        np.testing.assert_array_equal(one.ensemble.weights, other.ensemble.weights)


def test_batches_are_centred_and_take_the_conformer(dataset: MoleculeDataset) -> None:
    rows, which = torch.tensor([1, 4, 2]), torch.tensor([2, 0, 1])
    batch = dataset.batch(rows, conformer=which)
    assert batch.cond["atom_features"].shape[-1] == ATOM_FEATURES
    for place, (row, conformer) in enumerate(zip(rows.tolist(), which.tolist(), strict=True)):
        coords = dataset.records[row].ensemble.coords[conformer]
        wanted = torch.as_tensor(coords - coords.mean(0)).float()
        found = batch.state["positions"][place]
        torch.testing.assert_close(found[: len(wanted)], wanted)
        assert not found[len(wanted) :].any()


def test_conformers_repeat_with_no_weight(dataset: MoleculeDataset) -> None:
    rows = torch.tensor([0, 2])
    points, log_prior = dataset.conformers(rows, most=4)
    counts = dataset.num_conformers[rows]
    assert points.shape[1] == int(counts.max())
    for place, count in enumerate(counts.tolist()):
        weights = log_prior[place].exp()
        torch.testing.assert_close(weights[:count], torch.full_like(weights[:count], 1 / count))
        assert not weights[count:].any()
        torch.testing.assert_close(points[place, count:], points[place, :1].expand(
            points.shape[1] - count, -1, -1
        ))  # fmt: skip
    limited, _ = dataset.conformers(rows, most=1)
    assert limited.shape[1] == 1


@pytest.mark.parametrize(
    ("smiles", "message"),
    [
        ("", "expected a SMILES"),
        ("C1CC", "expected a SMILES"),
        ("[Na+].[Cl-]", "fragments"),
        ("[U]", "elements"),
    ],
)
def test_bad_smiles_are_refused(smiles: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        graph_of_smiles(smiles)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(BadInput, match="empty"):
        MoleculeDataset([])
