"""Vectors of texts, each computed once and kept under the hash of what it depends on."""

import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from orbitdiff.errors import BadInput
from orbitdiff.nn.text import TextEncoder
from orbitdiff.typing import Float, Tensor

__all__ = ["embed", "embedding_key"]

SHARD = 512
"""Texts of a file: what a kill can lose, half a minute of work."""


def embedding_key(text: str, encoder: TextEncoder) -> str:
    """SHA-256 of an encoder's fingerprint and a text."""
    return sha256(f"{encoder.fingerprint}\0{text}".encode()).hexdigest()


def embed(
    texts: Sequence[str],
    encoder: TextEncoder,
    *,
    cache: Path | None = None,
    progress: Callable[[int], object] | None = None,
) -> Float[Tensor, "M D"]:
    """Return the vector of each text; only what the cache does not have is computed.

    Parameters
    ----------
    texts : sequence of str
    encoder : TextEncoder
    cache : Path, optional
        Folder of safetensors files, made where it does not exist. Files that are cut are passed
        over, so a killed run loses at most the texts of one file.
    progress : callable, optional
        Gets the number of different texts that have just got their vector.

    Returns
    -------
    (M, D)

    Raises
    ------
    BadInput
        Full disk, or a folder that cannot be written.
    """
    keys = [embedding_key(text, encoder) for text in texts]
    wanted = dict(zip(keys, texts, strict=True))
    known = {} if cache is None else read_vectors(cache, set(wanted), encoder.dim)
    missing = [key for key in wanted if key not in known]
    if progress is not None:
        progress(len(known))
    # like lengths together, so that little is padding
    missing.sort(key=lambda key: len(wanted[key]))
    for start in range(0, len(missing), SHARD):
        part = missing[start : start + SHARD]
        vectors = encoder([wanted[key] for key in part])
        known |= dict(zip(part, vectors, strict=True))
        if cache is not None:
            write_vectors(cache, part, vectors)
        if progress is not None:
            progress(len(part))
    if not keys:
        return torch.zeros(0, encoder.dim)
    return torch.stack([known[key] for key in keys])


def read_vectors(cache: Path, wanted: set[str], dim: int) -> dict[str, Tensor]:
    """Read the wanted vectors of a cache."""
    found: dict[str, Tensor] = {}
    for path in sorted(cache.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                keys = (file.metadata() or {}).get("keys", "").split()
                rows = [row for row, key in enumerate(keys) if key in wanted]
                if rows:
                    vectors = file.get_tensor("vectors")
                    found |= {keys[row]: vectors[row] for row in rows if len(vectors[row]) == dim}
        except (SafetensorError, OSError, IndexError):
            continue
    return found


def write_vectors(cache: Path, keys: Sequence[str], vectors: Tensor) -> None:
    """Write one file of a cache under another name, and rename it."""
    partial = cache / f".{uuid4().hex}.partial"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        save_file({"vectors": vectors.contiguous()}, partial, metadata={"keys": " ".join(keys)})
        os.replace(partial, cache / f"{uuid4().hex}.safetensors")
    except (OSError, SafetensorError) as error:
        raise BadInput(f"could not write {cache}: {error}; free some space there") from error
    finally:
        if partial.exists():
            partial.unlink()
