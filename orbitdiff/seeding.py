"""Random streams named by what they are for, so that a resumed run draws the same numbers."""

import hashlib

import torch

from orbitdiff.typing import Tensor

__all__ = ["epoch_order", "stream"]


def stream(*name: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator seeded by a name such as (seed, "noise", step, rank).

    A stream depends on its name alone, not on what was drawn before.
    """
    digest = hashlib.sha256("/".join(map(str, name)).encode()).digest()
    seed = int.from_bytes(digest[:8], "little") >> 1
    return torch.Generator(device=device).manual_seed(seed)


def epoch_order(size: int, *, seed: int, epoch: int) -> Tensor:
    """Permutation of the training rows in one epoch, (size,)."""
    return torch.randperm(size, generator=stream(seed, "order", epoch))
