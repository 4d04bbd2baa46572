"""Files of protein structures (PDB, mmCIF, BinaryCIF) to checked chains, and chains to PDB."""

import gzip
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orbitdiff.data.cif import Fault
from orbitdiff.data.protein_chain import Backbone, BackboneLimits, check_backbone, joined
from orbitdiff.data.rejected import Rejected
from orbitdiff.errors import BadInput, MissingExtra

if TYPE_CHECKING:
    from biotite.structure import AtomArray

__all__ = [
    "SUFFIXES",
    "fetch_entries",
    "pdb_text",
    "read_file",
    "read_folder",
    "read_trace",
    "to_atom_array",
]

PDB, TEXT_CIF, BINARY_CIF = (".pdb", ".ent"), (".cif", ".mmcif"), (".bcif",)
SUFFIXES = tuple(kind + end for kind in (*PDB, *TEXT_CIF, *BINARY_CIF) for end in ("", ".gz"))
"""Names of files that `read_folder` reads."""

THREE_LETTERS = {
    "A": "ALA", "R": "ARG", "N": "ASN", "D": "ASP", "C": "CYS", "Q": "GLN", "E": "GLU", "G": "GLY",
    "H": "HIS", "I": "ILE", "L": "LEU", "K": "LYS", "M": "MET", "F": "PHE", "P": "PRO", "S": "SER",
    "T": "THR", "W": "TRP", "Y": "TYR", "V": "VAL", "X": "UNK",
}  # fmt: skip
ONE_LETTER = {three: one for one, three in THREE_LETTERS.items() if one != "X"} | {"MSE": "M"}
ENTRY = re.compile(r"([0-9][0-9A-Za-z]{3}|pdb_[0-9A-Za-z]{8})")


class Trace(NamedTuple):
    """CA atoms of one chain of a file as they stand, and how many residues it models."""

    chain: str
    ca: NDArray[np.float32]
    sequence: str
    residues: int


def read_folder(
    folder: Path | str, limits: BackboneLimits | None = None
) -> Iterator[Backbone | Rejected]:
    """Read every structure file below a folder, in the order of their names.

    Parameters
    ----------
    folder : Path
        Holds files with `SUFFIXES`, at any depth.
    limits : BackboneLimits, optional

    Yields
    ------
    Backbone or Rejected
        At least one per file. The id is the file's path below the folder and the chain's name.

    Raises
    ------
    BadInput
        No such folder, or no structure file in it.
    """
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*") if path.name.lower().endswith(SUFFIXES))
    if not paths:
        raise BadInput(f"expected structure files {SUFFIXES} in {folder}, found none")
    for path in paths:
        name = path.relative_to(folder).as_posix()
        yield from read_file(path, limits, name=name[: -len(_suffix(path))])


def read_file(
    path: Path | str, limits: BackboneLimits | None = None, *, name: str | None = None
) -> list[Backbone | Rejected]:
    """Read the chains of one file: first model, first alternate location; never raises for it.

    Of each chain the longest unbroken stretch is kept. Chains of equal sequence form a component.

    Parameters
    ----------
    path : Path
    limits : BackboneLimits, optional
    name : str, optional
        First part of the ids; default the file's name.

    Returns
    -------
    list of Backbone or Rejected
        One per chain, or one Rejected for a file without any.
    """
    path, limits = Path(path), limits or BackboneLimits()
    stem = path.name[: -len(_suffix(path))] if name is None else name
    try:
        traces = _traces(path)
    except Fault as fault:
        return [Rejected(stem, fault.reason, fault.detail)]
    return [_accept(f"{stem}_{trace.chain}", trace, limits) for trace in traces]


def read_trace(path: Path | str) -> NDArray[np.float32]:
    """CA atoms of the first chain of a file, (L, 3) in angstrom, unchecked.

    Parameters
    ----------
    path : Path

    Raises
    ------
    BadInput
        The file cannot be read or holds no protein.
    """
    try:
        return _traces(Path(path))[0].ca
    except Fault as fault:
        raise BadInput(f"{path}: {fault.reason}, {fault.detail}") from fault


def to_atom_array(ca: NDArray[Any], sequence: str) -> "AtomArray":
    """Return the CA atoms as a biotite AtomArray, residues numbered from 1 in chain A.

    Parameters
    ----------
    ca : (L, 3), angstrom
    sequence : str
        L letters; X becomes UNK.
    """
    _require_biotite()
    from biotite.structure import AtomArray

    if len(ca) != len(sequence):
        raise BadInput(f"expected one letter per residue, got {len(sequence)} for {len(ca)}")
    atoms = AtomArray(len(ca))
    atoms.coord = np.asarray(ca, dtype=np.float32)
    atoms.atom_name = np.full(len(ca), "CA")
    atoms.element = np.full(len(ca), "C")
    atoms.chain_id = np.full(len(ca), "A")
    atoms.res_id = np.arange(1, len(ca) + 1)
    atoms.res_name = np.array([THREE_LETTERS.get(letter, "UNK") for letter in sequence])
    return atoms


def pdb_text(ca: NDArray[Any], sequence: str) -> str:
    """Return a chain as the text of a PDB file.

    Parameters
    ----------
    ca : (L, 3), angstrom
    sequence : str
    """
    atoms = to_atom_array(ca, sequence)
    from biotite.structure.io.pdb import PDBFile

    file, text = PDBFile(), io.StringIO()
    file.set_structure(atoms)
    file.write(text)
    return text.getvalue()


def fetch_entries(entries: Sequence[str], folder: Path | str) -> tuple[list[Path], list[Rejected]]:
    """Download PDB entries as BinaryCIF; entries that are there already are kept.

    Parameters
    ----------
    entries : sequence of str
        Such as `1ubq`.
    folder : Path

    Returns
    -------
    tuple of lists
        Files in the order of the entries, and entries that could not be had.
    """
    _require_biotite()
    from biotite.database import rcsb

    paths, rejected = [], []
    for entry in dict.fromkeys(text.strip().lower() for text in entries):
        if not ENTRY.fullmatch(entry):
            rejected.append(Rejected(entry, "no PDB entry", "expected four characters like 1ubq"))
            continue
        try:
            paths.append(Path(rcsb.fetch(entry, "bcif", target_path=str(folder))))
        except Exception as error:
            rejected.append(Rejected(entry, "not fetched", f"{type(error).__name__}: {error}"))
    return paths, rejected


def _require_biotite() -> None:
    try:
        import biotite.structure  # noqa: F401
    except ImportError as error:
        raise MissingExtra.naming("biotite", "protein") from error


def _suffix(path: Path) -> str:
    lower = path.name.lower()
    found = max((end for end in SUFFIXES if lower.endswith(end)), key=len, default="")
    return found or path.suffix


def _traces(path: Path) -> list[Trace]:
    """Chains of a file in their order, not checked."""
    _require_biotite()
    from biotite.structure import filter_amino_acids

    atoms = _atoms(path)
    atoms = atoms[filter_amino_acids(atoms)]
    if len(atoms) == 0:
        raise Fault("no protein", "no amino acid in the file")
    traces = []
    for chain in dict.fromkeys(atoms.chain_id.tolist()):
        own = atoms[atoms.chain_id == chain]
        places = list(zip(own.res_id.tolist(), own.ins_code.tolist(), strict=True))
        first: dict[tuple[int, str], int] = {}  # of two residues at one place the first counts
        for row in np.flatnonzero(own.atom_name == "CA").tolist():
            first.setdefault(places[row], row)
        kept = own[list(first.values())]
        letters = "".join(ONE_LETTER.get(three, "X") for three in kept.res_name.tolist())
        ca = np.asarray(kept.coord, dtype=np.float32).reshape(-1, 3)
        traces.append(Trace(chain or "_", ca, letters, len(set(places))))
    return traces


def _atoms(path: Path) -> Any:
    """First model of a file."""
    from biotite.structure.io import pdb, pdbx

    kind = _suffix(path).removesuffix(".gz")
    options: dict[str, Any] = {"model": 1, "altloc": "first"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = path.read_bytes()
            if _suffix(path).endswith(".gz"):
                data = gzip.decompress(data)
            if kind in BINARY_CIF:
                return pdbx.get_structure(pdbx.BinaryCIFFile.read(io.BytesIO(data)), **options)
            text = io.StringIO(data.decode("utf-8", "replace"))
            if kind in TEXT_CIF:
                return pdbx.get_structure(pdbx.CIFFile.read(text), **options)
            return pdb.PDBFile.read(text).get_structure(**options)
        except Exception as error:
            detail = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            raise Fault("broken file", detail) from error


def _accept(name: str, trace: Trace, limits: BackboneLimits) -> Backbone | Rejected:
    """The longest unbroken stretch of a chain, checked."""
    if len(trace.ca) == 0:
        return Rejected(name, "missing atoms", f"no CA atom in {trace.residues} residues")
    if not np.isfinite(trace.ca).all():
        return Rejected(name, "NaN coordinates", "a coordinate is no finite number")
    edges = [0, *(np.flatnonzero(~joined(trace.ca)) + 1).tolist(), len(trace.ca)]
    longest = int(np.argmax(np.diff(edges)))
    start, stop = edges[longest], edges[longest + 1]
    if stop - start < limits.min_share * trace.residues:
        missing = trace.residues - len(trace.ca)
        return Rejected(
            name,
            "missing atoms" if missing else "chain break",
            f"{len(edges) - 2} breaks, {missing} residues without CA; longest stretch "
            f"{stop - start} of {trace.residues} residues",
        )
    sequence = trace.sequence[start:stop]
    component = sha256(sequence.encode()).hexdigest()[:16]
    return check_backbone(
        Backbone(name, trace.ca[start:stop], sequence, component, component), limits
    )
