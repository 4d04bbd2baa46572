"""Draw conformers with a trained model: SMILES in, RDKit molecules out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import nn

from orbitdiff.batch import Batch
from orbitdiff.data.ensembles import with_coords
from orbitdiff.data.molecule_graph import MoleculeGraph, graph_of_smiles
from orbitdiff.data.molecules import Ensemble, MoleculeDataset, MoleculeRecord
from orbitdiff.errors import BadInput
from orbitdiff.inference.demo import demo_checkpoint
from orbitdiff.nn.equivariant_transformer import EquivariantTransformerConfig
from orbitdiff.nn.molecule_transformer import MoleculeTransformerConfig
from orbitdiff.samplers.flow import FlowConfig, FlowSampler
from orbitdiff.tasks.conformer_objective import ConformerKernelConfig
from orbitdiff.tasks.conformers import ConformerModelConfig, build_network
from orbitdiff.training import checkpoint as store
from orbitdiff.typing import Tensor

if TYPE_CHECKING:
    from rdkit.Chem import Mol

__all__ = ["ConformerModel", "draw_ensembles", "generate_conformers", "graph_dataset"]

LARGEST_MOLECULE = 200
"""Atoms that `generate` accepts, hydrogens included."""

BATCH = 256


@final
@dataclass(frozen=True)
class ConformerModel:
    """A trained network with the prior that it was trained for.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode.
    kernel : ConformerKernelConfig
    sampler : FlowConfig
        Sampler that the preset uses.
    about : dict
        Preset, data set, estimator, seed, git revision, data hash.
    """

    network: nn.Module
    kernel: ConformerKernelConfig
    sampler: FlowConfig
    about: dict[str, Any]

    @classmethod
    def load(cls, folder: Path, *, device: torch.device | str = "cpu") -> "ConformerModel":
        """Read a model or checkpoint folder.

        Parameters
        ----------
        folder : Path
            Holds model.safetensors, config.json and checksums.json.
        device : device
        """
        weights, config = store.load_task_model(folder, "conformers")
        network = build_network(
            model_config(config.pop("model")), generator=torch.Generator().manual_seed(0)
        )
        network.load_state_dict(weights)
        kernel = ConformerKernelConfig(**config.pop("kernel"))
        sampler = FlowConfig(**config.pop("sampler"))
        return cls(network.to(device).eval(), kernel, sampler, config)

    def sample(
        self,
        template: Batch,
        *,
        seed: int,
        sampler: FlowConfig | None = None,
        callback: Callable[..., None] | None = None,
    ) -> list[np.ndarray]:
        """Draw one conformer (n, 3), angstrom, per row of the template.

        Parameters
        ----------
        template : Batch
            Graphs, mask and ids; the noise of a row depends on (seed, id) alone.
        seed : int
        sampler : FlowConfig, optional
            Another sampler than the preset's.
        callback : callable, optional
            Called after each step.
        """
        device = next(self.network.parameters()).device
        batch = template.to(device)
        prior = self.kernel.harmonic(batch)
        deviation = prior.variances.sqrt()

        def draw(normal: Tensor) -> Tensor:
            return prior.scaled(normal, deviation.to(normal.device)).to(normal.dtype)

        drawn = FlowSampler(sampler or self.sampler).sample(
            self.network, batch, seed=seed, draw=draw, callback=callback
        )["positions"]
        counts = template.mask.sum(1).tolist()
        points = drawn.double().cpu().numpy()
        return [points[row, :count] for row, count in enumerate(counts)]

    def sample_many(
        self,
        dataset: MoleculeDataset,
        wanted: Sequence[tuple[int, int]],
        *,
        seed: int,
        sampler: FlowConfig | None = None,
        batch_size: int = BATCH,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[tuple[int, int], np.ndarray]:
        """Draw conformer k of row r for each wanted (r, k), molecules of like size together.

        Parameters
        ----------
        dataset : MoleculeDataset
        wanted : sequence of (int, int)
        seed : int
            The noise depends on (seed, r, k) alone.
        sampler : FlowConfig, optional
        batch_size : int
        progress : callable, optional
            Called as progress(done, total) after each batch.
        """
        order = sorted(wanted, key=lambda pair: int(dataset.num_atoms[pair[0]]))
        found: dict[tuple[int, int], np.ndarray] = {}
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            batch = dataset.batch(torch.tensor([row for row, _ in part]))
            ids = torch.tensor([row + k * len(dataset) for row, k in part])
            named = Batch(batch.state, batch.mask, batch.cond, ids)
            found.update(zip(part, self.sample(named, seed=seed, sampler=sampler), strict=True))
            if progress is not None:
                progress(len(found), len(order))
        return found


def model_config(raw: Mapping[str, Any]) -> ConformerModelConfig:
    """Read the network's settings of a config.json."""
    if raw["equivariant"] is not None:
        return ConformerModelConfig(equivariant=EquivariantTransformerConfig(**raw["equivariant"]))
    return ConformerModelConfig(transformer=MoleculeTransformerConfig(**raw["transformer"]))


def graph_dataset(graphs: Sequence[MoleculeGraph]) -> MoleculeDataset:
    """Molecules without known conformers, ready for `ConformerModel.sample_many`."""

    def unknown(graph: MoleculeGraph) -> MoleculeRecord:
        points = np.zeros((1, len(graph.atom_types), 3))
        empty = Ensemble(graph.smiles, graph.atom_types, points, np.zeros(1), np.ones(1))
        return MoleculeRecord(graph, empty)

    return MoleculeDataset([unknown(graph) for graph in graphs])


def generate_conformers(
    smiles: str | Sequence[str],
    n: int = 1,
    *,
    checkpoint: Path | None = None,
    seed: int = 0,
    steps: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> "list[Mol]":
    """Draw n conformers of each molecule.

    Parameters
    ----------
    smiles : str or sequence of str
    n : int
        Conformers of each.
    checkpoint : Path, optional
        Model folder; default: the demo model that the package ships.
    seed : int
        Conformer k of molecule i depends on (seed, i, k) and the number of molecules alone.
    steps : int, optional
        Sampler steps, default the preset's.
    progress : callable, optional
        Called as progress(done, total).

    Returns
    -------
    list of rdkit Mol
        One per SMILES with n conformers; atoms in the order of `Chem.AddHs(MolFromSmiles)`, charges
        and stereo labels as in the SMILES.

    Raises
    ------
    BadInput
        Bad n, invalid SMILES, several fragments, unsupported element, too many atoms.
    CheckpointError
        Missing or damaged model.
    """
    from orbitdiff.data.ensembles import to_molecule

    names = [smiles] if isinstance(smiles, str) else list(smiles)
    drawn = draw_ensembles(
        names,
        n,
        checkpoint=checkpoint or demo_checkpoint("conformers"),
        seed=seed,
        steps=steps,
        progress=progress,
    )
    return [to_molecule(ensemble) for ensemble in drawn]


def draw_ensembles(
    names: Sequence[str],
    n: int,
    *,
    checkpoint: Path,
    seed: int = 0,
    steps: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Ensemble]:
    """Draw what `generate_conformers` returns, as arrays."""
    if n < 1:
        raise BadInput(f"expected n of at least 1, got {n}")
    if not names:
        raise BadInput("expected at least one SMILES, got none")
    graphs = [graph_of_smiles(name) for name in names]
    for graph in graphs:
        if len(graph.atom_types) > LARGEST_MOLECULE:
            raise BadInput(
                f"expected at most {LARGEST_MOLECULE} atoms, got {len(graph.atom_types)} "
                f"in {graph.smiles}"
            )
    model = ConformerModel.load(checkpoint)
    sampler = model.sampler if steps is None else replace(model.sampler, steps=steps)
    dataset = graph_dataset(graphs)
    wanted = [(row, k) for row in range(len(names)) for k in range(n)]
    drawn = model.sample_many(dataset, wanted, seed=seed, sampler=sampler, progress=progress)
    return [
        with_coords(record.ensemble, np.stack([drawn[row, k] for k in range(n)]))
        for row, record in enumerate(dataset.records)
    ]
