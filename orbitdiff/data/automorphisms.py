"""Automorphisms of molecules: graphs with elements, charges, bonds and stereochemistry.

What must stay the same is the labelled stereoisomer. Exchanging the two hydrogens of a CH2, or two
of a methyl, changes nothing that a label tells, so these count; exchanging the halves of a meso
compound turns each stereocentre into its mirror image, so that does not.
"""

from typing import TYPE_CHECKING

from orbitdiff.errors import MissingExtra
from orbitdiff.groups.automorphism import GraphAutomorphisms, graph_automorphisms
from orbitdiff.groups.graph import LabelledGraph

if TYPE_CHECKING:
    from rdkit.Chem import Bond, Mol

__all__ = ["molecular_automorphisms", "molecular_graph"]

SAME_SIDE, OTHER_SIDE = 101, 102
"""Labels of the edges between substituents of a double bond with a known side."""


def molecular_automorphisms(molecule: "Mol") -> GraphAutomorphisms:
    """Return the automorphisms of a molecule's graph, hydrogens included, once per molecule.

    Parameters
    ----------
    molecule : rdkit Mol
        With explicit hydrogens if they are points of the data.

    Returns
    -------
    GraphAutomorphisms
        Permutations of its atoms in their order.
    """
    return graph_automorphisms(molecular_graph(molecule))


def molecular_graph(molecule: "Mol") -> LabelledGraph:
    """Return the graph that automorphisms of a molecule keep.

    Colours: element, isotope, charge, radicals, implicit hydrogens. Edge labels: bond type, and the
    side of substituents at double bonds of known configuration. Orientations: stereocentres.

    Parameters
    ----------
    molecule : rdkit Mol
    """
    try:
        from rdkit.Chem import BondStereo, ChiralType
    except ImportError as error:
        raise MissingExtra.naming("rdkit", "mol") from error

    kinds = [
        (
            atom.GetAtomicNum(),
            atom.GetIsotope(),
            atom.GetFormalCharge(),
            atom.GetNumRadicalElectrons(),
            atom.GetTotalNumHs(),
        )
        for atom in molecule.GetAtoms()
    ]
    names = {kind: name for name, kind in enumerate(sorted(set(kinds)))}
    edges = []
    for bond in molecule.GetBonds():
        edges.append((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), int(bond.GetBondType())))
        stereo = bond.GetStereo()
        if stereo in (BondStereo.STEREOZ, BondStereo.STEREOCIS):
            edges += _sides(bond, same=True)
        elif stereo in (BondStereo.STEREOE, BondStereo.STEREOTRANS):
            edges += _sides(bond, same=False)
    orientations = []
    for atom in molecule.GetAtoms():
        around = [bond.GetOtherAtomIdx(atom.GetIdx()) for bond in atom.GetBonds()]
        tag = atom.GetChiralTag()
        if tag == ChiralType.CHI_TETRAHEDRAL_CW:
            orientations.append((atom.GetIdx(), *around))
        elif tag == ChiralType.CHI_TETRAHEDRAL_CCW:
            orientations.append((atom.GetIdx(), around[1], around[0], *around[2:]))
    colours = tuple(names[kind] for kind in kinds)
    return LabelledGraph(colours, tuple(edges), tuple(orientations))


def _sides(bond: "Bond", *, same: bool) -> list[tuple[int, int, int]]:
    """Edges between the substituents of a double bond, given those of its stereo atoms."""
    first, second = bond.GetBeginAtom(), bond.GetEndAtom()
    one, other = bond.GetStereoAtoms()
    edges = []
    for a in first.GetNeighbors():
        for b in second.GetNeighbors():
            if a.GetIdx() == second.GetIdx() or b.GetIdx() == first.GetIdx():
                continue
            agrees = (a.GetIdx() == one) == (b.GetIdx() == other)
            label = SAME_SIDE if agrees == same else OTHER_SIDE
            edges.append((a.GetIdx(), b.GetIdx(), label))
    return edges
