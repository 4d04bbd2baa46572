"""Prepared protein chains in memory: rows at rest, fixed split, dense batches."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from orbitdiff.batch import Batch, pad
from orbitdiff.data.protein_chain import Backbone, BackboneLimits, check_backbone
from orbitdiff.data.rejected import Rejected
from orbitdiff.data.splits import first_by_hash, hash_split
from orbitdiff.errors import BadInput
from orbitdiff.typing import Int, Tensor

if TYPE_CHECKING:
    from orbitdiff.data.streaming import StreamedSplit

__all__ = [
    "SCHEMA_VERSION",
    "Backbone",
    "BackboneLimits",
    "ProteinDataset",
    "Rejected",
    "backbone_schema",
    "backbone_to_row",
    "blank_batch",
    "check_backbone",
    "read_traces",
    "rows_to_backbones",
    "split_of",
]

SCHEMA_VERSION = 1


def read_traces(path: Path | str) -> list[Backbone]:
    """Read a file `ca_traces.npz`: coords, offsets, id, sequence, component30, cluster40.

    Parameters
    ----------
    path : Path

    Raises
    ------
    BadInput
        No such file, or one without these arrays (pickled objects are never loaded).
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            coords, offsets = stored["coords"], stored["offsets"]
            names, sequences = stored["id"].tolist(), stored["sequence"].tolist()
            components, clusters = stored["component30"].tolist(), stored["cluster40"].tolist()
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise BadInput(f"expected traces of CA atoms in {path}, could not read it: {error}") from (
            error
        )
    if coords.ndim != 2 or coords.shape[1] != 3 or len(offsets) != len(names) + 1:
        raise BadInput(
            f"expected coords (R, 3) and one offset per chain and one more in {path}, got "
            f"coords {coords.shape}, {len(offsets)} offsets, {len(names)} chains"
        )
    parts = [coords[start:stop] for start, stop in pairwise(offsets.tolist())]
    return [
        Backbone(name, part.astype(np.float32), sequence, str(component), str(cluster))
        for name, part, sequence, component, cluster in zip(
            names, parts, sequences, components, clusters, strict=True
        )
    ]


def split_of(backbone: Backbone, *, seed: int = 0) -> str:
    """Return train, val or test (80/10/10) by the hash of the chain's component.

    Parameters
    ----------
    backbone : Backbone
    seed : int
        Another number gives another division.
    """
    return hash_split(f"component/{backbone.component}", seed=seed)


def backbone_schema() -> Any:
    """Arrow schema of prepared chains: id, sequence, ca (3 L), component, cluster."""
    import pyarrow as pa

    from orbitdiff.data.store import row_schema

    fields = {
        "id": pa.string(),
        "sequence": pa.string(),
        "ca": pa.list_(pa.float32()),
        "component": pa.string(),
        "cluster": pa.string(),
    }
    return row_schema("backbones", SCHEMA_VERSION, fields)


def backbone_to_row(backbone: Backbone) -> dict[str, Any]:
    """Return the parquet row of a chain."""
    return {
        "id": backbone.id,
        "sequence": backbone.sequence,
        "ca": backbone.ca.ravel().tolist(),
        "component": backbone.component,
        "cluster": backbone.cluster,
    }


def rows_to_backbones(table: Any) -> list[Backbone]:
    """Return the chains of an arrow table with the columns of `backbone_schema`."""
    names = ("id", "ca", "sequence", "component", "cluster")
    columns = [table.column(name).to_pylist() for name in names]
    return [
        Backbone(id, np.array(ca, dtype=np.float32).reshape(-1, 3), sequence, component, cluster)
        for id, ca, sequence, component, cluster in zip(*columns, strict=True)
    ]


def blank_batch(lengths: Sequence[int], *, ids: Sequence[int] | None = None) -> Batch:
    """Return a batch of chains of these lengths to be drawn; all coordinates are zero.

    Parameters
    ----------
    lengths : sequence of int
        Residues, at least one each.
    ids : sequence of int, optional
        Names of the samples, which seed their noise; default 0, 1, ...

    Returns
    -------
    Batch
        state `positions` (B, N, 3), cond `residue_index` (B, N).
    """
    if not lengths or min(lengths) < 1:
        raise BadInput(f"expected lengths of at least one residue, got {list(lengths)}")
    counts = torch.tensor(list(lengths))
    names = torch.arange(len(counts)) if ids is None else torch.tensor(list(ids))
    positions = torch.zeros(len(counts), int(counts.max()), 3)
    return _batch(positions, counts, names)


def _batch(positions: Tensor, counts: Tensor, ids: Tensor) -> Batch:
    index = torch.arange(positions.shape[1])
    mask = index < counts[:, None]
    return Batch({"positions": positions}, mask, {"residue_index": index * mask}, ids)


@final
class ProteinDataset:
    """Chains of one split, with padded tensors made once.

    Parameters
    ----------
    backbones : sequence of Backbone
        At least one.

    Attributes
    ----------
    backbones : list of Backbone
    ids : list of str
    lengths : (M,) int64

    Raises
    ------
    BadInput
        No chain.
    """

    def __init__(self, backbones: Sequence[Backbone]) -> None:
        if not backbones:
            raise BadInput("expected at least one chain, got an empty data set")
        self.backbones = list(backbones)
        self.ids = [backbone.id for backbone in self.backbones]
        self.lengths = torch.tensor([len(backbone) for backbone in self.backbones])
        centred = [backbone.ca - backbone.ca.mean(0) for backbone in self.backbones]
        self._positions = pad([torch.as_tensor(ca, dtype=torch.float32) for ca in centred])

    @classmethod
    def load(cls, directory: Path | str, split: str) -> "ProteinDataset":
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

        table = read_split(Path(directory), split, schema=backbone_schema(), task="backbones")
        return cls(rows_to_backbones(table))

    @classmethod
    def streamed(cls, directory: Path, split: str) -> "StreamedSplit":
        """Leave one split on the disk; batches are the same.

        Parameters
        ----------
        directory : Path
        split : str
            train, val or test.
        """
        from orbitdiff.data.streaming import StreamedSplit

        return StreamedSplit(
            directory, split, schema=backbone_schema(), column="sequence",
            build=lambda table: cls(rows_to_backbones(table)),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.backbones)

    def weights(self) -> Tensor:
        """Sampling weights 1 / (chains of the same cluster in this split), (M,) float64."""
        counts = Counter(backbone.cluster for backbone in self.backbones)
        values = [1 / counts[backbone.cluster] for backbone in self.backbones]
        return torch.tensor(values, dtype=torch.float64)

    @property
    def sizes(self) -> Int[Tensor, " M"]:
        """Points of each row."""
        return self.lengths

    def batch(self, indices: Int[Tensor, " B"] | Sequence[int]) -> Batch:
        """Gather chains into one batch, padded to its longest chain.

        Parameters
        ----------
        indices : (B,) int64
            Row numbers; they become `Batch.ids`.

        Returns
        -------
        Batch
            state `positions` (B, N, 3) in angstrom, centred; cond `residue_index` (B, N).
        """
        rows = torch.as_tensor(indices, dtype=torch.long)
        counts = self.lengths[rows]
        return _batch(self._positions[rows, : int(counts.max())], counts, rows)

    def first_k_by_hash(self, k: int) -> Int[Tensor, " K"]:
        """Rows of the first k chains by sha256 of their id (all where k is larger)."""
        return first_by_hash(self.ids, k)
