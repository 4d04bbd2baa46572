"""Prepared crystals in memory: fast batches, fixed subsets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from orbitdiff.batch import Batch, pad
from orbitdiff.data.cif import Crystal, Rejected, parse_crystal, reduce_structure, to_structure
from orbitdiff.data.splits import first_by_hash
from orbitdiff.errors import BadInput
from orbitdiff.typing import Int, Tensor

if TYPE_CHECKING:
    from orbitdiff.data.streaming import StreamedSplit

__all__ = [
    "SCHEMA_VERSION",
    "Crystal",
    "CrystalDataset",
    "Rejected",
    "crystal_schema",
    "crystal_to_row",
    "parse_crystal",
    "reduce_structure",
    "rows_to_crystals",
    "to_structure",
]

SCHEMA_VERSION = 1


def crystal_schema() -> Any:
    """Arrow schema of prepared crystals: id, atom_types, frac (3 N), lattice (9)."""
    import pyarrow as pa

    from orbitdiff.data.store import row_schema

    fields = {
        "id": pa.string(),
        "atom_types": pa.list_(pa.int16()),
        "frac": pa.list_(pa.float64()),
        "lattice": pa.list_(pa.float64()),
    }
    return row_schema("crystals", SCHEMA_VERSION, fields)


def crystal_to_row(crystal: Crystal) -> dict[str, Any]:
    """Return the parquet row of a crystal."""
    return {
        "id": crystal.id,
        "atom_types": crystal.atom_types.tolist(),
        "frac": crystal.frac.ravel().tolist(),
        "lattice": crystal.lattice.ravel().tolist(),
    }


def rows_to_crystals(table: Any) -> list[Crystal]:
    """Return the crystals of an arrow table with the columns of `crystal_schema`."""
    columns = [table.column(name).to_pylist() for name in ("id", "atom_types", "frac", "lattice")]
    return [
        Crystal(
            id,
            np.array(types, dtype=np.int64),
            np.array(frac, dtype=np.float64).reshape(-1, 3),
            np.array(lattice, dtype=np.float64).reshape(3, 3),
        )
        for id, types, frac, lattice in zip(*columns, strict=True)
    ]


@final
class CrystalDataset:
    """Crystals of one split, with padded tensors made once.

    Parameters
    ----------
    crystals : sequence of Crystal
        At least one.
    conditions : mapping of name to tensor, optional
        More conditions of each crystal, (M, ...), which batches carry along.

    Attributes
    ----------
    crystals : list of Crystal
    ids : list of str
    num_atoms : (M,) int64

    Raises
    ------
    BadInput
        No crystal, or conditions of another number of crystals.
    """

    def __init__(
        self, crystals: Sequence[Crystal], *, conditions: Mapping[str, Tensor] | None = None
    ) -> None:
        if not crystals:
            raise BadInput("expected at least one crystal, got an empty data set")
        self.conditions = dict(conditions or {})
        for name, value in self.conditions.items():
            if len(value) != len(crystals):
                raise BadInput(f"expected {len(crystals)} rows of {name}, got {len(value)}")
        self.crystals = list(crystals)
        self.ids = [crystal.id for crystal in self.crystals]
        self.num_atoms = torch.tensor([len(crystal.atom_types) for crystal in self.crystals])
        self._types = pad([torch.as_tensor(crystal.atom_types) for crystal in self.crystals])
        frac = pad([torch.as_tensor(crystal.frac, dtype=torch.float32) for crystal in crystals])
        self._frac = frac - frac.floor()
        lattices = np.stack([crystal.lattice for crystal in self.crystals])
        self._lattice = torch.as_tensor(lattices, dtype=torch.float32)

    @classmethod
    def load(cls, directory: Path | str, split: str) -> "CrystalDataset":
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

        table = read_split(Path(directory), split, schema=crystal_schema(), task="crystals")
        return cls(rows_to_crystals(table))

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
            directory, split, schema=crystal_schema(), column="atom_types",
            build=lambda table: cls(rows_to_crystals(table)),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.crystals)

    @property
    def sizes(self) -> Int[Tensor, " M"]:
        """Points of each row."""
        return self.num_atoms

    def batch(self, indices: Int[Tensor, " B"] | Sequence[int]) -> Batch:
        """Gather crystals into one batch, padded to its largest crystal.

        Parameters
        ----------
        indices : (B,) int64
            Row numbers; they become `Batch.ids`.

        Returns
        -------
        Batch
            state `lattice` (B, 3, 3) in angstrom and `frac` (B, N, 3), cond `atom_types` (B, N)
            and the further conditions.
        """
        rows = torch.as_tensor(indices, dtype=torch.long)
        counts = self.num_atoms[rows]
        width = int(counts.max())
        return Batch(
            state={"lattice": self._lattice[rows], "frac": self._frac[rows, :width]},
            mask=torch.arange(width) < counts[:, None],
            cond={
                "atom_types": self._types[rows, :width],
                **{name: value[rows] for name, value in self.conditions.items()},
            },
            ids=rows,
        )

    def first_k_by_hash(self, k: int) -> Int[Tensor, " K"]:
        """Rows of the first k crystals by sha256 of their id (all where k is larger)."""
        return first_by_hash(self.ids, k)
