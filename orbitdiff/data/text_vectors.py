"""Vectors of the texts of prepared crystals, in a folder beside them.

The last bits of a vector depend on the processor. They do not reach the folder of crystals and
texts, which names the encoder; so what is trained on it stays valid where it is made again.
"""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from orbitdiff.errors import BadInput
from orbitdiff.typing import Float, Tensor

__all__ = ["read_text_vectors", "vectors_folder", "write_text_vectors"]

CURE = "run the texts stage again"


def vectors_folder(folder: Path) -> Path:
    """Return the folder of the vectors of a folder of crystals and texts: `NAME.vectors`."""
    return folder.with_name(f"{folder.name}.vectors")


def write_text_vectors(
    vectors: Float[Tensor, "M E"],
    texts: Sequence[str],
    folder: Path,
    name: str,
    *,
    fingerprint: str,
) -> None:
    """Write `{name}.safetensors`, marked with a hash of what it is of.

    Parameters
    ----------
    vectors : (M, E)
    texts : sequence of str
        Length M.
    folder : Path
    name : str
        Kind and split.
    fingerprint : str
        The encoder's.
    """
    mark = {"of": digest(texts, fingerprint)}
    save_file({"vectors": vectors.contiguous()}, path_of(folder, name), metadata=mark)


def read_text_vectors(
    texts: Sequence[str], folder: Path, name: str, *, fingerprint: str
) -> Float[Tensor, "M E"]:
    """Read the vectors of these texts.

    Parameters
    ----------
    texts : sequence of str
        Length M.
    folder : Path
    name : str
        Kind and split.
    fingerprint : str
        The encoder's.

    Returns
    -------
    (M, E)

    Raises
    ------
    BadInput
        Missing or damaged file, vectors of other texts or of another encoder.
    """
    path = path_of(folder, name)
    if not path.is_file():
        raise BadInput(f"expected the vectors {path}, found none; {CURE}")
    try:
        with safe_open(path, framework="pt") as file:
            vectors: Tensor = file.get_tensor("vectors").float()
            mark = (file.metadata() or {}).get("of")
    except Exception as error:
        raise BadInput(f"{path} is damaged ({error}); {CURE}") from error
    if mark != digest(texts, fingerprint):
        raise BadInput(f"{path} has vectors of other texts or of another encoder; {CURE}")
    return vectors


def path_of(folder: Path, name: str) -> Path:
    """Return the file of one kind and split."""
    return folder / f"{name}.safetensors"


def digest(texts: Sequence[str], fingerprint: str) -> str:
    """SHA-256 of an encoder's fingerprint and texts in their order."""
    return sha256(json.dumps([fingerprint, *texts]).encode()).hexdigest()
