"""ProteinDataset: rows at rest, batches, splits by component; the shared data where present."""

import json
import os
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("pyarrow")

from orbitdiff.data.proteins import (
    Backbone,
    BackboneLimits,
    ProteinDataset,
    Rejected,
    backbone_schema,
    backbone_to_row,
    blank_batch,
    check_backbone,
    read_traces,
    rows_to_backbones,
    split_of,
)
from orbitdiff.data.splits import SPLITS
from orbitdiff.data.store import read_shards, write_shards
from orbitdiff.errors import BadInput

SHARED = Path(os.environ.get("ORBITDIFF_DATA", "../shared/data")) / "proteins/ca_traces.npz"
needs_data = pytest.mark.skipif(not SHARED.is_file(), reason=f"no {SHARED}")


def chains(count=7):
    rng = np.random.default_rng(0)
    sizes = [4 + index % 5 for index in range(count)]
    return [
        Backbone(
            f"id-{index}",
            rng.normal(size=(size, 3)).astype(np.float32) + 3,
            "ACDEFGHIK"[:size],
            str(index // 2),
            str(index // 3),
        )
        for index, size in enumerate(sizes)
    ]


def prepared(folder, rows):
    for split in ("train", "val", "test"):
        write_shards(
            map(backbone_to_row, rows),
            folder,
            schema=backbone_schema(),
            name=split,
            rows_per_shard=3,
        )
    counts = dict.fromkeys(("train", "val", "test"), len(rows))
    (folder / "manifest.json").write_text(json.dumps({"counts": counts}))
    return folder


def test_rows_survive_the_disk(tmp_path):
    rows = chains()
    paths = write_shards(
        map(backbone_to_row, rows), tmp_path, schema=backbone_schema(), name="train"
    )
    for old, new in zip(rows, rows_to_backbones(read_shards(paths)), strict=True):
        assert (old.id, old.sequence, old.component, old.cluster) == (
            new.id,
            new.sequence,
            new.component,
            new.cluster,
        )
        np.testing.assert_array_equal(old.ca, new.ca)
        assert new.ca.dtype == np.float32


def test_batch_holds_the_rows_asked_for_centred_with_no_more_padding_than_needed(tmp_path):
    rows = chains()
    dataset = ProteinDataset.load(prepared(tmp_path, rows), "val")
    assert dataset.ids == [row.id for row in rows]
    assert dataset.lengths.tolist() == [len(row) for row in rows]
    chosen = [3, 0, 1]
    batch = dataset.batch(torch.tensor(chosen))
    assert batch.mask.shape == (3, 7)
    assert batch.ids.tolist() == chosen
    for place, index in enumerate(chosen):
        row, size = rows[index], len(rows[index])
        assert batch.mask[place].tolist() == [True] * size + [False] * (7 - size)
        centred = row.ca - row.ca.mean(0)
        np.testing.assert_allclose(batch.state["positions"][place, :size], centred, atol=1e-6)
        assert (batch.state["positions"][place, size:] == 0).all()
        assert batch.cond["residue_index"][place].tolist() == [*range(size), *[0] * (7 - size)]
    assert batch.state["positions"].dtype == torch.float32
    assert batch.cond["residue_index"].dtype == torch.int64


def test_weights_make_clusters_equal():
    dataset = ProteinDataset(chains())
    total = Counter()
    for row, weight in zip(dataset.backbones, dataset.weights().tolist(), strict=True):
        total[row.cluster] += weight
    assert list(total.values()) == pytest.approx([1.0] * 3)


def test_first_k_by_hash_is_a_prefix_by_sha256():
    dataset = ProteinDataset(chains())
    chosen = [dataset.ids[row] for row in dataset.first_k_by_hash(3).tolist()]
    assert chosen == sorted(dataset.ids, key=lambda id: sha256(id.encode()).hexdigest())[:3]
    assert len(dataset.first_k_by_hash(100)) == len(dataset)
    with pytest.raises(BadInput, match="k"):
        dataset.first_k_by_hash(0)


def test_blank_batches_for_sampling():
    batch = blank_batch([3, 1], ids=[8, 4])
    assert batch.mask.tolist() == [[True] * 3, [True, False, False]]
    assert batch.cond["residue_index"].tolist() == [[0, 1, 2], [0, 0, 0]]
    assert batch.ids.tolist() == [8, 4]
    assert blank_batch([2]).ids.tolist() == [0]
    for lengths in ([], [3, 0]):
        with pytest.raises(BadInput, match="at least one residue"):
            blank_batch(lengths)


def test_bad_folders(tmp_path):
    with pytest.raises(BadInput, match="prepare"):
        ProteinDataset.load(tmp_path, "train")
    folder = prepared(tmp_path, chains())
    with pytest.raises(BadInput, match="split"):
        ProteinDataset.load(folder, "valid")
    (folder / "train-00002.parquet").unlink()
    with pytest.raises(BadInput, match="expected 7 backbones"):
        ProteinDataset.load(folder, "train")
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(BadInput, match="manifest"):
        ProteinDataset.load(folder, "val")
    with pytest.raises(BadInput, match="empty"):
        ProteinDataset([])


def test_traces_are_sliced_by_their_offsets_and_pickles_refused(tmp_path):
    rows = chains(3)
    arrays = {
        "coords": np.concatenate([row.ca for row in rows]),
        "offsets": np.cumsum([0, *[len(row) for row in rows]]),
        "id": np.array([row.id for row in rows]),
        "sequence": np.array([row.sequence for row in rows]),
        "component30": np.array([5, 5, 6]),
        "cluster40": np.array([1, 2, 3]),
    }
    path = tmp_path / "traces.npz"
    np.savez(path, **arrays)
    for old, new in zip(rows, read_traces(path), strict=True):
        np.testing.assert_array_equal(old.ca, new.ca)
        assert (new.id, new.sequence) == (old.id, old.sequence)
    assert [row.component for row in read_traces(path)] == ["5", "5", "6"]
    np.savez(path, **arrays | {"id": np.array([row.id for row in rows], dtype=object)})
    with pytest.raises(BadInput, match="could not read"):
        read_traces(path)
    np.savez(path, **arrays | {"offsets": np.array([0, 4])})
    with pytest.raises(BadInput, match="offset"):
        read_traces(path)
    with pytest.raises(BadInput, match="could not read"):
        read_traces(tmp_path / "absent.npz")


@needs_data
def test_the_shared_traces_are_accepted_and_split_by_component():
    rows = read_traces(SHARED)
    found = [check_backbone(row, BackboneLimits()) for row in rows]
    refused = [item for item in found if isinstance(item, Rejected)]
    assert {item.reason for item in refused} == {"extended chain"}
    stored = np.load(SHARED)
    assert len(refused) == int((stored["rg_ratio"] > 1.5).sum())
    kept = [item for item in found if isinstance(item, Backbone)]
    parts = {split: {r.component for r in kept if split_of(r) == split} for split in SPLITS}
    assert sum(map(len, parts.values())) == len({row.component for row in kept})
    shares = Counter(split_of(row) for row in kept)
    assert 0.7 < shares["train"] / len(kept) < 0.9
    assert min(shares.values()) > 0.05 * len(kept)
    assert {split_of(row, seed=1) != split_of(row) for row in kept} == {True, False}
