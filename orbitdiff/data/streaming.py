"""Rows of a split that does not fit into memory: a few shards at a time, in a known order."""

import dataclasses
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol, final, runtime_checkable

import torch

from orbitdiff.batch import Batch
from orbitdiff.data.splits import first_by_hash
from orbitdiff.data.store import read_shard
from orbitdiff.errors import BadInput, MissingExtra
from orbitdiff.typing import Int, Tensor

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtra.naming("pyarrow", "data") from error

__all__ = ["Rows", "StreamedSplit"]

Read = Callable[[Iterable[Path]], Iterator[pa.Table]]
"""Gives the table of each file, in order."""


@runtime_checkable
class Rows(Protocol):
    """A data set in memory."""

    def batch(self, indices: Int[Tensor, " B"], /) -> Batch:
        """Gather rows."""
        ...


@final
class StreamedSplit:
    """One split of a folder written by `prepare`, of which no more is in memory than two windows.

    Parameters
    ----------
    directory : Path
    split : str
    schema : pyarrow.Schema
        Kind and version of the rows.
    column : str
        A list or string with an entry for each point of a sample.
    build : callable
        Makes a data set of the rows of a table.

    Attributes
    ----------
    sizes : (M,) int32
        Points of each row: all that is kept of rows that are not there.
    shards : (S,) int64
        Rows of each file.

    Raises
    ------
    BadInput
        Folder not prepared, truncated or foreign files, empty split.
    """

    def __init__(
        self,
        directory: Path,
        split: str,
        *,
        schema: pa.Schema,
        column: str,
        build: Callable[[pa.Table], Rows],
    ) -> None:
        self.schema, self.build = schema, build
        self.files = sorted(directory.glob(f"{split}-*.parquet"))
        manifest = directory / "manifest.json"
        if not self.files or not manifest.is_file():
            raise BadInput(f"expected shards of split {split} in {directory}; run prepare")
        read_shard(self.files[0], schema)  # refuses rows of another kind or version
        sizes = [lengths(read_column(path, column)) for path in self.files]
        self.shards = torch.tensor([len(part) for part in sizes])
        self.sizes = torch.cat(sizes)
        self.ends = self.shards.cumsum(0)
        expected = json.loads(manifest.read_text())["counts"][split]
        if len(self.sizes) != expected or not expected:
            raise BadInput(
                f"expected {expected} rows of split {split} in {directory} by its manifest and at "
                f"least one, got {len(self.sizes)}; run prepare again"
            )
        self.supply: Iterator[tuple[list[int], Iterator[pa.Table]]] | None = None
        self.loaded: deque[dict[int, pa.Table]] = deque()

    def __len__(self) -> int:
        return len(self.sizes)

    def open(self, windows: Iterator[list[int]], read: Read) -> None:
        """Take rows from now on from shards that come in this order.

        Parameters
        ----------
        windows : iterator of list of int
            Shards that are needed at the same time; never ends.
        read : callable
            Gives the table of each file, in order.
        """
        self.loaded.clear()
        asked: deque[list[int]] = deque()

        def files() -> Iterator[Path]:
            for window in windows:
                asked.append(window)
                yield from (self.files[shard] for shard in window)

        tables = read(files())

        def supply() -> Iterator[tuple[list[int], Iterator[pa.Table]]]:
            for first in tables:
                window = asked.popleft()
                yield window, (first if k == 0 else next(tables) for k in range(len(window)))

        self.supply = supply()

    def batch(self, rows: Int[Tensor, " B"]) -> Batch:
        """Gather rows into one batch; their numbers become `Batch.ids`.

        Once opened, rows are expected in the order of its windows; before, any are read.
        """
        owners = torch.bucketize(rows, self.ends, right=True)
        needed = owners.unique().tolist()
        parts = [
            table.take((rows[owners == shard] - (self.ends - self.shards)[shard]).numpy())
            for shard, table in self.tables(needed)
        ]
        place = torch.cat([(owners == shard).nonzero()[:, 0] for shard in needed])
        table = pa.concat_tables(parts).take(place.argsort().numpy())
        found = self.build(table.select(self.schema.names).cast(self.schema))
        return dataclasses.replace(found.batch(torch.arange(len(rows))), ids=rows)

    def tables(self, needed: list[int]) -> Iterator[tuple[int, pa.Table]]:
        """Give each of these shards."""
        if self.supply is None:
            for shard in needed:
                yield shard, read_shard(self.files[shard], self.schema)
            return
        self.drop(needed)
        while not set(needed) <= self.present():
            window, tables = next(self.supply)
            self.loaded.append(dict(zip(window, tables, strict=True)))
            self.drop(needed)
        known = {shard: table for window in self.loaded for shard, table in window.items()}
        yield from ((shard, known[shard]) for shard in needed)

    def present(self, first: int = 0) -> set[int]:
        """Shards in memory, windows before `first` left out."""
        return {shard for window in list(self.loaded)[first:] for shard in window}

    def drop(self, needed: list[int]) -> None:
        """Drop the oldest windows that nothing needs, or of which a later one has what is needed.

        Rows come window by window, so what is not needed now comes again with a later window.
        """
        while self.loaded and set(needed) & set(self.loaded[0]) <= self.present(1):
            self.loaded.popleft()

    def first_k_by_hash(self, k: int) -> Int[Tensor, " K"]:
        """Rows of the first k by sha256 of their id (all where k is larger)."""
        ids = [id for path in self.files for id in read_column(path, "id").to_pylist()]
        return first_by_hash(ids, k)


def read_column(path: Path, name: str) -> pa.ChunkedArray:
    """Read one column of a file."""
    try:
        return pq.read_table(path, columns=[name], partitioning=None)[name]
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path} is truncated or no parquet ({error}); run prepare again") from error


def lengths(column: pa.ChunkedArray) -> Int[Tensor, " M"]:
    """Entries of each list or string of a column."""
    count = pc.utf8_length if pa.types.is_string(column.type) else pc.list_value_length
    return torch.from_numpy(count(column).to_numpy().astype("int32"))
