"""Prepared molecules with their conformers: records, parquet rows, fast dense batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from orbitdiff.batch import Batch, pad
from orbitdiff.data.molecule_graph import ATOM_FEATURES, BONDS, MoleculeGraph
from orbitdiff.errors import BadInput
from orbitdiff.groups.automorphism import GraphAutomorphisms, graph_automorphisms
from orbitdiff.groups.graph import LabelledGraph
from orbitdiff.typing import Int, Tensor

__all__ = [
    "GRAPH_DISTANCES",
    "SCHEMA_VERSION",
    "Ensemble",
    "MoleculeDataset",
    "MoleculeRecord",
    "molecule_schema",
    "record_to_row",
    "rows_to_records",
]

SCHEMA_VERSION = 1
GRAPH_DISTANCES = 8
"""Bonds between two atoms are counted up to this many."""


@final
@dataclass(frozen=True)
class Ensemble:
    """Conformers of one molecule.

    Parameters
    ----------
    smiles : str
        Isomeric; atoms are those of `Chem.AddHs(Chem.MolFromSmiles(smiles))`, in that order.
    atomic_numbers : (n,) int64
    coords : (L, n, 3) float64
        Angstrom.
    energies : (L,) float64
        Relative to the lowest, kcal/mol; zeros where they are not known.
    weights : (L,) float64
        Share of each conformer, they add up to one.
    """

    smiles: str
    atomic_numbers: np.ndarray
    coords: np.ndarray
    energies: np.ndarray
    weights: np.ndarray


@final
@dataclass(frozen=True)
class MoleculeRecord:
    """A molecule of a data set: its graph and conformers."""

    graph: MoleculeGraph
    ensemble: Ensemble


def molecule_schema() -> Any:
    """Arrow schema of prepared molecules: the graph as integers, conformers as flat lists."""
    import pyarrow as pa

    from orbitdiff.data.store import row_schema

    integers = pa.list_(pa.int32())
    fields = {
        "id": pa.string(),
        "atom_types": integers,
        "atom_features": integers,
        "colours": integers,
        "edges": integers,
        "orientations": pa.list_(integers),
        "coords": pa.list_(pa.float64()),
        "energies": pa.list_(pa.float64()),
        "weights": pa.list_(pa.float64()),
    }
    return row_schema("molecules", SCHEMA_VERSION, fields)


def record_to_row(record: MoleculeRecord) -> dict[str, Any]:
    """Return the parquet row of a molecule; its id is its SMILES."""
    graph, ensemble = record.graph, record.ensemble
    return {
        "id": graph.smiles,
        "atom_types": graph.atom_types.tolist(),
        "atom_features": graph.atom_features.ravel().tolist(),
        "colours": list(graph.graph.colours),
        "edges": [part for edge in graph.graph.edges for part in edge],
        "orientations": [list(centre) for centre in graph.graph.orientations],
        "coords": ensemble.coords.ravel().tolist(),
        "energies": ensemble.energies.tolist(),
        "weights": ensemble.weights.tolist(),
    }


def rows_to_records(table: Any) -> list[MoleculeRecord]:
    """Return the molecules of an arrow table with the columns of `molecule_schema`."""
    records = []
    for row in table.to_pylist():
        types = np.array(row["atom_types"], dtype=np.int64)
        features = np.array(row["atom_features"], dtype=np.uint8).reshape(len(types), -1)
        flat = row["edges"]
        graph = LabelledGraph(
            tuple(row["colours"]),
            tuple(zip(flat[::3], flat[1::3], flat[2::3], strict=True)),
            tuple(tuple(centre) for centre in row["orientations"]),
        )
        coords = np.array(row["coords"], dtype=np.float64).reshape(-1, len(types), 3)
        energies, weights = (np.array(row[name]) for name in ("energies", "weights"))
        records.append(
            MoleculeRecord(
                MoleculeGraph(row["id"], types, features, graph),
                Ensemble(row["id"], types, coords, energies, weights),
            )
        )
    return records


@final
class MoleculeDataset:
    """Molecules of one split, with padded tensors made once.

    Parameters
    ----------
    records : sequence of MoleculeRecord
        At least one.

    Attributes
    ----------
    records : list of MoleculeRecord
    ids : list of str
        SMILES.
    num_atoms, num_conformers : (M,) int64

    Raises
    ------
    BadInput
        No molecule, atoms in several parts, features of another release.
    """

    def __init__(self, records: Sequence[MoleculeRecord]) -> None:
        if not records:
            raise BadInput("expected at least one molecule, got an empty data set")
        self.records = list(records)
        graphs = [record.graph for record in self.records]
        self.ids = [graph.smiles for graph in graphs]
        if any(graph.atom_features.shape[1] != ATOM_FEATURES for graph in graphs):
            raise BadInput(f"expected {ATOM_FEATURES} atom features; run prepare again")
        self.num_atoms = torch.tensor([len(graph.atom_types) for graph in graphs])
        self.num_conformers = torch.tensor([len(r.ensemble.coords) for r in self.records])
        self._types = pad([torch.as_tensor(graph.atom_types) for graph in graphs])
        self._features = pad([torch.as_tensor(graph.atom_features) for graph in graphs])
        self._stereo = pad([torch.as_tensor(graph.stereo) for graph in graphs])
        self._num_stereo = torch.tensor([len(graph.stereo) for graph in graphs])
        width = self._types.shape[1]
        pairs = np.zeros((len(graphs), width, width), dtype=np.int8)
        for row, graph in enumerate(graphs):
            size = len(graph.atom_types)
            pairs[row, :size, :size] = graph.pair_types()
        self._pairs = torch.as_tensor(pairs)
        bonded = torch.isin(self._pairs, torch.tensor(BONDS, dtype=torch.int8))
        self._distance = bonds_between(bonded)

    @classmethod
    def load(cls, directory: Path | str, split: str) -> "MoleculeDataset":
        """Read one split of a folder written by `prepare`.

        Parameters
        ----------
        directory : Path
        split : str
            train, val or test.

        Raises
        ------
        BadInput
            Unknown split, folder not prepared, truncated or foreign files, empty split.
        """
        from orbitdiff.data.store import read_split

        table = read_split(Path(directory), split, schema=molecule_schema(), task="conformers")
        return cls(rows_to_records(table))

    def __len__(self) -> int:
        return len(self.records)

    def automorphisms(self, rows: Int[Tensor, " B"]) -> tuple[GraphAutomorphisms, ...]:
        """Symmetries of the graphs of some rows, found once for each graph."""
        return tuple(graph_automorphisms(self.records[row].graph.graph) for row in rows.tolist())

    def conformers(self, rows: Int[Tensor, " B"], *, most: int) -> tuple[Tensor, Tensor]:
        """Centred conformers of some rows, (B, C, N, 3), and their log prior, (B, C).

        Parameters
        ----------
        rows : (B,) int64
        most : int
            Largest C; a molecule with more gives its first.

        Returns
        -------
        conformers : (B, C, N, 3) float32
            Angstrom; a molecule with fewer repeats its first.
        log_prior : (B, C)
            Uniform over the real ones, minus infinity for repeats.
        """
        counts = self.num_conformers[rows].clamp(max=most)
        width, room = int(self.num_atoms[rows].max()), int(counts.max())
        points = torch.zeros(len(rows), room, width, 3)
        for place, row in enumerate(rows.tolist()):
            coords = torch.as_tensor(self.records[row].ensemble.coords[:most]).float()
            size = coords.shape[1]
            points[place, :, :size] = coords[:1]
            points[place, : len(coords), :size] = coords
            points[place, :, :size] -= points[place, :, :size].mean(1, keepdim=True)
        real = torch.arange(room) < counts[:, None]
        log_prior = torch.where(real, -counts[:, None].double().log(), -torch.inf)
        return points, log_prior

    def batch(
        self,
        indices: Int[Tensor, " B"] | Sequence[int],
        *,
        conformer: Int[Tensor, " B"] | None = None,
    ) -> Batch:
        """Gather molecules into one batch, padded to its largest.

        Parameters
        ----------
        indices : (B,) int64
            Row numbers; they become `Batch.ids`.
        conformer : (B,) int64, optional
            Which conformer of each; default the first.

        Returns
        -------
        Batch
            state `positions` (B, N, 3), centred, angstrom; cond: `atom_types` (B, N),
            `atom_features` (B, N, F), `pair_types` and `graph_distance` (B, N, N) and `stereo`
            (B, S, 5) with `stereo_sign` (B, S).
        """
        rows = torch.as_tensor(indices, dtype=torch.long)
        chosen = torch.zeros_like(rows) if conformer is None else conformer
        counts = self.num_atoms[rows]
        width, centres = int(counts.max()), int(self._num_stereo[rows].max())
        positions = torch.zeros(len(rows), width, 3)
        for place, (row, which) in enumerate(zip(rows.tolist(), chosen.tolist(), strict=True)):
            coords = self.records[row].ensemble.coords[which]
            positions[place, : len(coords)] = torch.as_tensor(coords - coords.mean(0)).float()
        real = torch.arange(centres) < self._num_stereo[rows][:, None]
        return Batch(
            state={"positions": positions},
            mask=torch.arange(width) < counts[:, None],
            cond={
                "atom_types": self._types[rows, :width],
                "atom_features": self._features[rows, :width].float(),
                "pair_types": self._pairs[rows, :width, :width].long(),
                "graph_distance": self._distance[rows, :width, :width].long(),
                "stereo": self._stereo[rows, :centres],
                "stereo_sign": real.float(),
            },
            ids=rows,
        )


def bonds_between(bonded: Tensor) -> Tensor:
    """Number of bonds between every two atoms, (M, N, N) int8, at most GRAPH_DISTANCES.

    Atoms without a path, padding among them, get 0.
    """
    reached = torch.eye(bonded.shape[-1], dtype=torch.bool).expand_as(bonded)
    step = bonded.float()
    distance = torch.zeros(bonded.shape, dtype=torch.int8)
    for length in range(1, GRAPH_DISTANCES + 1):
        found = (reached.float() @ step) > 0
        distance[found & ~reached] = length
        reached = reached | found
    far = (reached.float() @ reached.float()) > 0
    distance[far & ~reached] = GRAPH_DISTANCES
    return distance
