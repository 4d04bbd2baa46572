"""What a network is told of a molecule's graph: atoms, pairs, stereocentres; and its symmetries."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from orbitdiff.data.automorphisms import OTHER_SIDE, SAME_SIDE, molecular_graph
from orbitdiff.errors import BadInput, MissingExtra
from orbitdiff.groups.graph import LabelledGraph

if TYPE_CHECKING:
    from rdkit.Chem import Atom, Mol

__all__ = [
    "ATOM_FEATURES",
    "ELEMENTS",
    "PAIR_TYPES",
    "MoleculeGraph",
    "graph_of_smiles",
    "molecule_of_smiles",
]

ELEMENTS = (1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53)
"""Elements that are supported: H, B, C, N, O, F, Si, P, S, Cl, Br, I."""

CHARGES = (-1, 0, 1)
HYBRIDISATIONS = ("SP", "SP2", "SP3")
RINGS = (3, 4, 5, 6)
DEGREES = (1, 2, 3, 4)
ATOM_FEATURES = len(CHARGES) + len(HYBRIDISATIONS) + len(RINGS) + len(DEGREES) + 3

EDGE_TYPES = {1: 1, 2: 2, 3: 3, 12: 4, SAME_SIDE: 5, OTHER_SIDE: 6}
"""Labels of graph edges (RDKit bond types, sides of double bonds) to `pair_types`."""

PAIR_TYPES = 7
"""Single, double, triple, aromatic, same side, other side; 0 is none."""

BONDS = (1, 2, 3, 4)


@final
@dataclass(frozen=True)
class MoleculeGraph:
    """A molecule without its coordinates.

    Parameters
    ----------
    smiles : str
        Isomeric; atoms are those of `Chem.AddHs(Chem.MolFromSmiles(smiles))`, in that order.
    atom_types : (n,) int64
        Atomic numbers.
    atom_features : (n, F) uint8
        Charge, hybridisation, ring sizes, degree (one-hot), ring, aromatic, hydrogens.
    graph : LabelledGraph
        What automorphisms keep. The first neighbours of an orientation (centre, a, b, c, d) have
        a positive signed volume det(b - a, c - a, d - a).
    """

    smiles: str
    atom_types: np.ndarray
    atom_features: np.ndarray
    graph: LabelledGraph

    @property
    def bonds(self) -> list[tuple[int, int, int]]:
        """Bonded pairs with their pair type."""
        typed = [(a, b, EDGE_TYPES[label]) for a, b, label in self.graph.edges]
        return [edge for edge in typed if edge[2] in BONDS]

    @property
    def stereo(self) -> np.ndarray:
        """Stereocentres with four neighbours each, (S, 5) int64, by signed volume."""
        found = [centre for centre in self.graph.orientations if len(centre) == 5]
        return np.array(found, dtype=np.int64).reshape(-1, 5)

    def pair_types(self) -> np.ndarray:
        """Pair type of every two atoms, (n, n) int8; a bond goes before a side."""
        size = len(self.atom_types)
        table = np.zeros((size, size), dtype=np.int8)
        typed = [(a, b, EDGE_TYPES[label]) for a, b, label in self.graph.edges]
        for a, b, kind in sorted(typed, key=lambda edge: -edge[2]):
            table[a, b] = table[b, a] = kind
        return table


def molecule_of_smiles(smiles: str) -> "Mol":
    """Parse a SMILES and add its hydrogens.

    Parameters
    ----------
    smiles : str

    Returns
    -------
    rdkit Mol
        With explicit hydrogens after the heavy atoms, without coordinates.

    Raises
    ------
    BadInput
        No valid SMILES, several fragments, an element that is not supported, radicals.
    """
    try:
        from rdkit import Chem, RDLogger
    except ImportError as error:
        raise MissingExtra.naming("rdkit", "mol") from error

    RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]
    text = smiles.strip()
    parsed = Chem.MolFromSmiles(text) if text else None
    if parsed is None or parsed.GetNumAtoms() == 0:
        raise BadInput(f"expected a SMILES such as CCO, got {smiles!r}")
    if len(Chem.GetMolFrags(parsed)) > 1:
        raise BadInput(f"expected one molecule, got several fragments in {smiles!r}")
    molecule = Chem.AddHs(parsed)
    strange = sorted(
        {a.GetSymbol() for a in molecule.GetAtoms() if a.GetAtomicNum() not in ELEMENTS}
    )
    if strange:
        known = [Chem.GetPeriodicTable().GetElementSymbol(z) for z in ELEMENTS]
        raise BadInput(f"expected elements among {', '.join(known)}, got {strange} in {smiles!r}")
    return molecule


def graph_of_smiles(smiles: str) -> MoleculeGraph:
    """Return the graph of a SMILES.

    Parameters
    ----------
    smiles : str

    Raises
    ------
    BadInput
        See `molecule_of_smiles`.
    """
    molecule = molecule_of_smiles(smiles)
    ring_info = molecule.GetRingInfo()
    features = [
        [
            *_one_hot(atom.GetFormalCharge(), CHARGES),
            *_one_hot(str(atom.GetHybridization()), HYBRIDISATIONS),
            *(ring_info.IsAtomInRingOfSize(atom.GetIdx(), size) for size in RINGS),
            *_one_hot(atom.GetDegree(), DEGREES),
            atom.IsInRing(),
            atom.GetIsAromatic(),
            _hydrogens(atom),
        ]
        for atom in molecule.GetAtoms()
    ]
    graph = molecular_graph(molecule)
    unknown = sorted({label for _, _, label in graph.edges} - set(EDGE_TYPES))
    if unknown:
        raise BadInput(f"expected single, double, triple or aromatic bonds in {smiles!r}")
    return MoleculeGraph(
        smiles=smiles,
        atom_types=np.array([a.GetAtomicNum() for a in molecule.GetAtoms()], dtype=np.int64),
        atom_features=np.array(features, dtype=np.uint8).reshape(-1, ATOM_FEATURES),
        graph=graph,
    )


def _one_hot(value: object, known: tuple[object, ...]) -> list[bool]:
    return [value == other for other in known]


def _hydrogens(atom: "Atom") -> int:
    return sum(other.GetAtomicNum() == 1 for other in atom.GetNeighbors())
