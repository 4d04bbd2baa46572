"""Pickles of other people, read without running what they name.

A pickle is a program: it may call whatever it names. Here it may name RDKit molecules and what
numpy needs to rebuild plain arrays and scalars; anything else ends the reading.
"""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, final

import numpy as np

from orbitdiff.errors import BadInput

__all__ = ["load_npy", "load_pickle"]

NUMPY_CORE = tuple(
    f"numpy.{core}.{part}" for core in ("core", "_core") for part in ("multiarray", "numeric")
)
SETS = {"set": set, "frozenset": frozenset}


def load_pickle(path: Path) -> Any:
    """Read a pickle of RDKit molecules, numpy arrays and builtin containers.

    Parameters
    ----------
    path : Path

    Raises
    ------
    BadInput
        It names anything else, is damaged, or is not there.
    """
    try:
        with path.open("rb") as file:
            return load_stream(file, path)
    except OSError as error:
        raise BadInput(f"could not read {path}: {error}") from error


def load_npy(path: Path) -> Any:
    """Read an npy file, also one with objects, which `numpy.load` would unpickle freely.

    Parameters
    ----------
    path : Path

    Raises
    ------
    BadInput
        See `load_pickle`.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            _, _, kind = read(file)
            if kind.hasobject:
                return load_stream(file, path)
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"could not read {path} as npy: {error}") from error


def load_stream(file: IO[bytes], path: Path) -> Any:
    """Read one object; `path` is for the messages."""
    try:
        return _Unpickler(file).load()
    except BadInput as error:
        raise BadInput(f"{path} was refused: {error}") from error
    except Exception as error:
        raise BadInput(f"{path} is damaged ({type(error).__name__}: {error})") from error


@final
class _Unpickler(pickle.Unpickler):
    """Finds the few names that are allowed."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name means here."""
        if (module, name) == ("rdkit.Chem.rdchem", "Mol"):
            return _molecule
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        if module in NUMPY_CORE and name in NUMPY_NAMES:
            return NUMPY_NAMES[name]
        if module in ("builtins", "__builtin__") and name in SETS:
            return SETS[name]
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        raise BadInput(
            f"expected RDKit molecules, numpy arrays and builtin containers, got {module}.{name}; "
            "nothing of the file was run"
        )


def _molecule(content: bytes) -> Any:
    """RDKit's binary form of a molecule."""
    from rdkit import Chem

    if not isinstance(content, bytes):
        raise BadInput(f"expected the bytes of a molecule, got {type(content).__name__}")
    parse: Any = Chem.Mol
    return parse(content)


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes as protocol 2 writes them."""
    if encoding != "latin1":
        raise BadInput(f"expected bytes written as latin1, got {encoding!r}")
    return text.encode("latin1")


def _empty_array(kind: type, shape: tuple[int, ...], code: bytes) -> Any:
    """The array that a pickle then fills."""
    if kind is not np.ndarray or shape != (0,):
        raise BadInput(f"expected an array, got {kind!r} of shape {shape}")
    return np.ndarray((0,), "b")


def _from_buffer(content: bytes | bytearray, kind: Any, shape: tuple[int, ...], order: str) -> Any:
    """An array as protocol 5 writes it."""
    if not isinstance(kind, np.dtype) or kind.hasobject:
        raise BadInput(f"expected an array of numbers, got one of {kind!r}")
    flat = np.frombuffer(bytearray(content), dtype=kind)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _scalar(kind: Any, content: bytes) -> Any:
    """A numpy number."""
    if not isinstance(kind, np.dtype) or kind.hasobject or not isinstance(content, bytes):
        raise BadInput(f"expected a number, got a scalar of {kind!r}")
    return np.frombuffer(content, dtype=kind, count=1)[0]


NUMPY_NAMES: dict[str, Callable[..., Any]] = {
    "_reconstruct": _empty_array,
    "_frombuffer": _from_buffer,
    "scalar": _scalar,
}
