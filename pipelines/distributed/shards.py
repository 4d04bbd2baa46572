"""Parquet shards through Ray Data: tasks of the cluster read ahead of the training."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from orbitdiff.data.store import read_shard

__all__ = ["stream_tables"]

FILES = 64
"""Files of one Ray data set: the next one is made when its last table has been taken."""
AHEAD = 2
"""Files that are read at a time."""


def stream_tables(files: Iterable[Path]) -> Iterator[Any]:
    """Give the table of each parquet file, in order.

    Blocks wait in the object store; a table that is given is a copy in this process.

    Parameters
    ----------
    files : iterable of Path
        May be endless; on storage that every node sees.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    import ray.data

    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    queue = iter(files)
    while part := list(islice(queue, FILES)):
        # not read_parquet: its listing of the files asks for a CPU, and the workers hold them all
        found = ray.data.from_items(
            [{"path": str(path)} for path in part], override_num_blocks=len(part)
        ).map_batches(
            read_table, batch_size=1, batch_format="pyarrow", num_cpus=0, concurrency=AHEAD
        )
        blocks = iter(
            found.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
        )
        held: Any = None
        for path in part:
            rows = pq.read_metadata(path).num_rows
            while held is None or len(held) < rows:
                block = next(blocks)
                held = block if held is None else pa.concat_tables([held, block])
            yield held.take(np.arange(rows))
            held = held.slice(rows)


def read_table(batch: Any) -> Any:
    """Read the file that a batch of one row names; a task of the cluster."""
    return read_shard(Path(batch["path"][0].as_py()), None)
