"""The conformer task: every arm's target, fine-tune, time range, equivariance of the loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("rdkit")

from orbitdiff.data.molecule_graph import graph_of_smiles
from orbitdiff.data.molecules import Ensemble, MoleculeDataset, MoleculeRecord
from orbitdiff.errors import BadInput, IncompatibleKernel
from orbitdiff.groups.rotation import SO3
from orbitdiff.nn.equivariant_transformer import EquivariantTransformerConfig
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.tasks.conformer_objective import (
    ConformerArm,
    ConformerKernelConfig,
    ConformerObjective,
    ConformerYardstick,
)
from orbitdiff.tasks.conformers import ConformerModelConfig, build_network

SMILES = ("CC", "CCO", "CC(C)(C)O", "C#N", "O=C=O")
ARMS = {
    "plain": ConformerArm(EstimatorSpec("plain")),
    "exact": ConformerArm(EstimatorSpec("automorphism")),
    "conformers": ConformerArm(EstimatorSpec("automorphism"), conformers=3),
    "kept": ConformerArm(EstimatorSpec("kept_prior"), conformers=3),
    "rotation": ConformerArm(EstimatorSpec("rotation")),
    "et_flow": ConformerArm(EstimatorSpec("plain"), coupling="aligned", bridge=0.1, loss="norm"),
    "aligned": ConformerArm(EstimatorSpec("aligned_permutation"), coupling="aligned"),
    "published": ConformerArm(
        EstimatorSpec("published_conformers", num_samples=8), coupling="aligned", bridge=0.1
    ),
}
MODEL = ConformerModelConfig(
    equivariant=EquivariantTransformerConfig(
        hidden=16, layers=1, heads=2, pair_width=8, radial=6, time_dim=8
    )
)


def record(smiles: str, seed: int, conformers: int = 3) -> MoleculeRecord:
    graph = graph_of_smiles(smiles)
    coords = np.random.default_rng(seed).normal(size=(conformers, len(graph.atom_types), 3))
    flat = np.full(conformers, 1 / conformers)
    return MoleculeRecord(
        graph, Ensemble(smiles, graph.atom_types, coords, np.zeros(conformers), flat)
    )


@pytest.fixture(scope="module")
def dataset() -> MoleculeDataset:
    return MoleculeDataset([record(smiles, seed) for seed, smiles in enumerate(SMILES)])


@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize("prior", ["harmonic", "gaussian"])
def test_every_arm_gives_a_finite_loss_and_the_same_one_again(
    dataset: MoleculeDataset, name: str, prior: str
) -> None:
    objective = ConformerObjective(ConformerKernelConfig(prior=prior), ARMS[name], dataset)
    network = build_network(MODEL, generator=torch.Generator().manual_seed(0))
    batch = dataset.batch(torch.arange(len(dataset)))

    def loss() -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        t = objective.draw_times(len(batch), generator=generator, device=torch.device("cpu"))
        return objective(network, batch, t, generator=generator).per_sample

    first = loss()
    assert torch.isfinite(first).all()
    assert torch.equal(first, loss())


def test_times_keep_the_margin(dataset: MoleculeDataset) -> None:
    objective = ConformerObjective(ConformerKernelConfig(margin=0.1), ARMS["plain"], dataset)
    t = objective.draw_times(
        4000, generator=torch.Generator().manual_seed(0), device=torch.device("cpu")
    )
    assert 0.1 <= t.min() < 0.101
    assert 0.899 < t.max() <= 0.9


def test_the_plain_velocity_averages_to_the_exact_one(dataset: MoleculeDataset) -> None:
    """E[(plain - exact) f(x_t)] = 0 for any f: z-scores for f = 1 and f = x_t, rotations drawn."""
    rows = torch.full((4000,), 1)
    plain = ConformerObjective(ConformerKernelConfig(), ARMS["plain"], dataset)
    batch = dataset.batch(rows)
    generator = torch.Generator().manual_seed(3)
    turned = SO3().sample(len(rows), generator=generator).float()
    x_0 = batch.state["positions"] @ turned.mT
    t = plain.draw_times(len(rows), generator=generator, device=torch.device("cpu"))
    field = plain.diffused(batch, EstimatorSpec("plain"))
    x_t, noise = field.kernel.sample(x_0, t, mask=batch.mask, generator=generator)
    targets = []
    for spec in (EstimatorSpec("plain"), EstimatorSpec("automorphism")):
        estimator = plain.diffused(batch, spec).estimator
        context = plain.context(batch, generator=generator, target=spec)
        targets.append(estimator(x_t, x_0, t, context=context, noise=noise, mask=batch.mask).value)
    difference = targets[0] - targets[1]
    for weight in (torch.ones_like(x_t), x_t):
        moments = (difference * weight).sum((1, 2))
        z = moments.mean() / (moments.std() / len(rows) ** 0.5)
        assert abs(float(z)) < 4
    # and the average has less noise: |plain|^2 = |exact|^2 + |difference|^2 on average
    assert targets[1].square().mean() < 0.8 * targets[0].square().mean()


def test_arms_of_one_coupling_share_the_yardstick(dataset: MoleculeDataset) -> None:
    kernel = ConformerKernelConfig()
    network = build_network(MODEL, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(len(dataset))

    def distance(arm: ConformerArm) -> float:
        objective = ConformerObjective(kernel, replace(arm, conformers=3), dataset)
        return ConformerYardstick(objective, rows, (0.3, 0.7)).measure(network)["distance_mean"]

    assert distance(ARMS["plain"]) == distance(ARMS["exact"])
    assert distance(ARMS["plain"]) != distance(ARMS["aligned"])


def test_wrong_joins_are_refused(dataset: MoleculeDataset) -> None:
    arm = ConformerArm(EstimatorSpec("automorphism"), coupling="aligned")
    objective = ConformerObjective(ConformerKernelConfig(), arm, dataset)
    with pytest.raises(IncompatibleKernel):
        objective.diffused(dataset.batch(torch.arange(2)), arm.target)
    arm = ConformerArm(EstimatorSpec("aligned_permutation"), coupling="aligned", bridge=0.1)
    objective = ConformerObjective(ConformerKernelConfig(), arm, dataset)
    with pytest.raises(IncompatibleKernel):
        objective.diffused(dataset.batch(torch.arange(2)), arm.target)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConformerArm(EstimatorSpec("plain"), coupling="none"), "coupling"),
        (lambda: ConformerArm(EstimatorSpec("plain"), loss="cubic"), "loss"),
        (lambda: ConformerArm(EstimatorSpec("plain"), conformers=-1), "conformers"),
        (lambda: ConformerKernelConfig(prior="flat"), "prior"),
        (lambda: ConformerKernelConfig(margin=0.5), "margin"),
        (lambda: ConformerModelConfig(), "either"),
    ],
)
def test_bad_settings_are_refused(make, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()
