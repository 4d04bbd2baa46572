"""Which rows of which raw file belong to which split."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch

from orbitdiff.errors import BadInput
from orbitdiff.typing import Int, Tensor

__all__ = ["NOTE", "RULES", "SPLITS", "Part", "SplitRule", "first_by_hash", "hash_split"]

SPLITS = ("train", "val", "test")
NOTE = "reduced training set"


@dataclass(frozen=True)
class Part:
    """Rows start:stop of a raw file (as a Python slice), or all of them."""

    file: str
    start: int | None = None
    stop: int | None = None


@dataclass(frozen=True)
class SplitRule:
    """The parts of each split and the number of rows they must have.

    Parameters
    ----------
    parts : dict
        Split name to its parts, in order.
    rows : dict
        Split name to the rows that the parts have before any is rejected.
    text : str
        The rule in words, for the manifest.
    """

    parts: dict[str, tuple[Part, ...]]
    rows: dict[str, int]
    text: str


RULES = {
    "perov_5": SplitRule(
        parts={
            "train": (Part("train_head1024.csv"), Part("val.csv", 0, 2787)),
            "val": (Part("val.csv", -1000),),
            "test": (Part("test.csv"),),
        },
        rows={"train": 3811, "val": 1000, "test": 3785},
        text="train: first 1,024 official train rows and rows 1-2,787 of the official val split; "
        "val: last 1,000 rows of val; test: official test split",
    ),
    "mp_20": SplitRule(
        parts={
            "train": (
                Part("train_part.csv"),
                Part("mpts52_le20_extra.csv"),
                Part("binary_ternary_val.csv", 0, 6140),
            ),
            "val": (Part("binary_ternary_val.csv", -1000), Part("val_other.csv")),
            "test": (Part("test_other.csv"), Part("binary_ternary_test.csv")),
        },
        rows={"train": 12736, "val": 1025, "test": 6397},
        text="train: 3,420 official train rows, 3,176 MPTS-52 rows and rows 1-6,140 of the "
        "binary and ternary official val rows; val: their last 1,000 rows and 25 other official "
        "val rows; test: 6,397 official test rows (not all of them)",
    ),
}


def hash_split(key: str, *, seed: int = 0) -> str:
    """Assign a key to train, val or test (80/10/10) by its SHA-256.

    Parameters
    ----------
    key : str
        Usually the id; rows that must stay together share a key.
    seed : int
        0 hashes the key itself, any other number gives another division.
    """
    if seed < 0:
        raise BadInput(f"expected a seed of at least 0, got {seed}")
    text = key if seed == 0 else f"{seed}/{key}"
    share = int.from_bytes(sha256(text.encode()).digest()[:8], "big") / 2**64
    return "train" if share < 0.8 else "val" if share < 0.9 else "test"


def first_by_hash(ids: Sequence[str], k: int) -> Int[Tensor, " K"]:
    """Rows of the first k samples by sha256 of their id (all where k is larger).

    Parameters
    ----------
    ids : sequence of str
    k : int

    Raises
    ------
    BadInput
        k below 1.
    """
    if k < 1:
        raise BadInput(f"expected k of at least 1, got {k}")
    order = sorted(range(len(ids)), key=lambda row: sha256(ids[row].encode()).digest())
    return torch.tensor(order[:k], dtype=torch.long)
