"""One order of rows for any number of workers, each row once per epoch."""

import torch

from orbitdiff.training.rows import rows_of_worker


def test_global_batch_does_not_depend_on_the_number_of_workers():
    def rows(world_size):
        streams = [
            rows_of_worker(
                torch.ones(10),
                batch_size=4,
                bucket=0,
                seed=0,
                rank=r,
                world_size=world_size,
                start=2,
            )
            for r in range(world_size)
        ]
        return [set(torch.cat([next(s) for s in streams]).tolist()) for _ in range(6)]

    assert rows(1) == rows(2)


def test_every_row_comes_once_per_epoch():
    stream = rows_of_worker(
        torch.ones(10), batch_size=4, bucket=0, seed=0, rank=0, world_size=1, start=0
    )
    drawn = torch.cat([next(stream) for _ in range(5)])
    assert sorted(drawn[:10].tolist()) == list(range(10))
    assert sorted(drawn[10:].tolist()) == list(range(10))


def test_buckets_hold_samples_of_like_size():
    sizes = torch.arange(64) % 8
    stream = rows_of_worker(sizes, batch_size=4, bucket=16, seed=0, rank=0, world_size=1, start=0)
    batches = [next(stream) for _ in range(32)]
    for epoch in (batches[:16], batches[16:]):
        assert sorted(torch.cat(epoch).tolist()) == list(range(64))
        assert all(len(set(sizes[rows].tolist())) == 1 for rows in epoch)
        means = [float(sizes[rows].double().mean()) for rows in epoch]
        assert means != sorted(means)
    assert [b.tolist() for b in batches[:16]] != [b.tolist() for b in batches[16:]]
