"""Rows of each step: any number of workers, epochs, buckets, and windows of shards."""

from itertools import islice

import pytest
import torch

from orbitdiff.seeding import epoch_order
from orbitdiff.training.rows import RowOrder


def order_of(num: int = 10, **others: object) -> RowOrder:
    return RowOrder(torch.ones(num), **{"seed": 0, "batch_size": 4, **others})  # type: ignore[arg-type]


def test_global_batch_does_not_depend_on_the_number_of_workers() -> None:
    def rows(world_size: int) -> list[set[int]]:
        streams = [
            order_of().of_worker(rank=r, world_size=world_size, start=2) for r in range(world_size)
        ]
        return [set(torch.cat([next(s) for s in streams]).tolist()) for _ in range(6)]

    assert rows(1) == rows(2)


def test_every_row_comes_once_per_epoch() -> None:
    stream = order_of().of_worker(rank=0, world_size=1, start=0)
    drawn = torch.cat([next(stream) for _ in range(5)])
    assert sorted(drawn[:10].tolist()) == list(range(10))
    assert sorted(drawn[10:].tolist()) == list(range(10))


def test_buckets_hold_samples_of_like_size() -> None:
    sizes = torch.arange(64) % 8
    stream = RowOrder(sizes, 0, 4, 16).of_worker(rank=0, world_size=1, start=0)
    batches = [next(stream) for _ in range(32)]
    for epoch in (batches[:16], batches[16:]):
        assert sorted(torch.cat(epoch).tolist()) == list(range(64))
        assert all(len(set(sizes[rows].tolist())) == 1 for rows in epoch)
        means = [float(sizes[rows].double().mean()) for rows in epoch]
        assert means != sorted(means)
    assert [b.tolist() for b in batches[:16]] != [b.tolist() for b in batches[16:]]


SHARDS = torch.tensor([5, 3, 8, 1, 6, 2, 7])


@pytest.mark.parametrize("bucket", [0, 2])
def test_windows_hold_the_rows_of_their_epoch(bucket: int) -> None:
    order = order_of(32, shards=SHARDS, window=3, bucket=bucket)
    ends = SHARDS.cumsum(0)
    epochs = [order.of_epoch(epoch) for epoch in range(3)]
    for epoch, rows in enumerate(epochs):
        assert sorted(rows.tolist()) == list(range(32))
        groups = order.windows_of_epoch(epoch)
        assert [len(group) for group in groups] == [3, 3, 1]
        assert sorted(shard for group in groups for shard in group) == list(range(7))
        owners = torch.bucketize(rows, ends, right=True).tolist()
        for group in groups:
            count = int(SHARDS[group].sum())
            assert set(owners[:count]) == set(group)
            owners = owners[count:]
    assert not torch.equal(epochs[0], epochs[1])
    first = epochs[0][: int(SHARDS[order.windows_of_epoch(0)[0]].sum())]
    assert first.tolist() != sorted(first.tolist())


def test_one_window_of_one_shard_is_the_order_without() -> None:
    order = order_of(32, shards=torch.tensor([32]), window=1)
    assert torch.equal(order.of_epoch(3), epoch_order(32, seed=0, epoch=3))


@pytest.mark.parametrize("window", [1, 2, 3, 9])
@pytest.mark.parametrize("start", [0, 1, 5, 8, 23, 40])
def test_windows_come_as_the_steps_from_any_start_need_them(window: int, start: int) -> None:
    """A reader that keeps a window until a row of a later one comes finds every row."""
    order = order_of(32, shards=SHARDS, window=window)
    ends, windows = SHARDS.cumsum(0), order.windows(start=start)
    held: list[set[int]] = []
    for rows in islice(order.of_worker(rank=0, world_size=1, start=start), 30):
        for owner in torch.bucketize(rows, ends, right=True).tolist():
            while not any(owner in part for part in held[-2:]):
                held.append(set(next(windows)))
    # three epochs and four batches: no more windows than that were read
    assert len(held) <= 5 * -(-7 // window) + 1


def test_a_start_skips_the_windows_before_it() -> None:
    order = order_of(32, shards=SHARDS, window=2)
    groups = [order.windows_of_epoch(epoch) for epoch in range(2)]
    last = int(SHARDS[groups[1][-1]].sum())
    found = order.windows(start=(64 - last) // 4 + 1)
    assert next(found) == groups[1][-1]
