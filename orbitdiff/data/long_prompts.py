"""Robocrystallographer's text of a crystal; what stock code makes anew for each one is kept.

Stock `robocrys` reads its table of molecules and compares its prototypes anew for each crystal, and
finds the neighbours of each site three times. The text is the same, word for word, up to
`orbitdiff.data.prompts.canonical_text`.
"""

import warnings
from functools import cache
from typing import TYPE_CHECKING, Any, final

from orbitdiff.data.prompts import canonical_text
from orbitdiff.errors import MissingExtra

try:
    from pymatgen.analysis.dimensionality import get_structure_components
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
    from robocrys import StructureCondenser, StructureDescriber
    from robocrys.condense.component import (
        components_are_vdw_heterostructure,
        get_component_formula,
        get_structure_inequiv_components,
        get_vdw_heterostructure_information,
    )
    from robocrys.condense.molecule import MoleculeNamer
    from robocrys.condense.site import SiteAnalyzer

    from orbitdiff.data.prototype_matching import KeptNeighbours, PrototypeTable, SiteFingerprints
except ImportError as error:
    raise MissingExtra.naming("robocrys", "text") from error

if TYPE_CHECKING:
    from pymatgen.core import Structure

__all__ = ["describe"]


def describe(structure: "Structure") -> str:
    """Return Robocrystallographer's text, without oxidation states and without names from the net.

    Parameters
    ----------
    structure : pymatgen Structure
        Ordered.

    Returns
    -------
    str
        `canonical_text` of `StructureDescriber(describe_oxidation_states=False, fmt="raw")`.

    Raises
    ------
    Exception
        Whatever robocrys raises for the few crystals that it cannot describe.

    Notes
    -----
    Source: Ganose and Jain, MRS Communications 9, 874 (2019); robocrys 0.2.13.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        condensed = condenser().condense_structure(structure)
        describer = StructureDescriber(describe_oxidation_states=False, fmt="raw")
        text = describer.describe(condensed)
    assert isinstance(text, str)
    return canonical_text(text)


@cache
def condenser() -> "KeepingCondenser":
    """Return the condenser of this process; its tables are read at the first crystal."""
    return KeepingCondenser()


@final
class KeptBonds:
    """Bonds of a structure graph, each site's neighbours listed once.

    Parameters
    ----------
    graph : pymatgen StructureGraph
    """

    def __init__(self, graph: Any) -> None:
        self.structure = graph.structure
        self._connected = cache(graph.get_connected_sites)

    def get_connected_sites(self, n: int, jimage: tuple[int, int, int] = (0, 0, 0)) -> Any:
        """Neighbours of site n in the cell `jimage`, nearest first."""
        return self._connected(int(n), tuple(map(int, jimage)))


@final
class KeepingSites(SiteAnalyzer):
    """SiteAnalyzer that takes fingerprints already made and lists next neighbours once.

    Parameters
    ----------
    bonds : KeptBonds
    fingerprints : SiteFingerprints
    symprec : float
        Angstrom.
    """

    def __init__(self, bonds: KeptBonds, fingerprints: SiteFingerprints, symprec: float) -> None:
        self.bonded_structure = bonds  # type: ignore[assignment]
        self.use_iupac_formula = True
        self.minimum_geometry_op = 0.4
        self.site_fingerprints = [
            dict(zip(fingerprints.labels, row, strict=True))
            for row in fingerprints(bonds.structure)
        ]
        self._next_neighbours: dict[tuple[int, bool], list[dict[str, Any]]] = {}
        dataset = SpacegroupAnalyzer(bonds.structure, symprec=symprec).get_symmetry_dataset()
        self.equivalent_sites = self._calculate_equivalent_sites()
        self.symmetry_labels = self._calculate_symmetry_labels(dataset.equivalent_atoms.tolist())

    def get_next_nearest_neighbors(
        self, site_index: int, inc_inequivalent_site_index: bool = True
    ) -> list[dict[str, Any]]:
        """Return the next nearest neighbours of a site."""
        key = (site_index, inc_inequivalent_site_index)
        if key not in self._next_neighbours:
            self._next_neighbours[key] = super().get_next_nearest_neighbors(*key)
        return self._next_neighbours[key]


@final
class KeepingCondenser(StructureCondenser):
    """StructureCondenser of default settings that keeps tables, prototypes and neighbours."""

    def __init__(self) -> None:
        neighbours = KeptNeighbours()
        self.fingerprints = SiteFingerprints(neighbours)
        self.namer = MoleculeNamer(use_online_pubchem=False)
        super().__init__(
            near_neighbors=neighbours,
            mineral_matcher=PrototypeTable(self.fingerprints),  # type: ignore[arg-type]
        )

    def condense_structure(self, structure: "Structure") -> dict[str, Any]:
        """Return what `StructureDescriber` reads, as the stock method does."""
        structure = structure.get_sorted_structure()
        structure.translate_sites(range(len(structure)), [1, 1, 1])
        symmetry = SpacegroupAnalyzer(structure, symprec=self.symprec)
        structure = symmetry.get_conventional_standard_structure()
        graph = self.near_neighbors.get_bonded_structure(structure)
        components = get_structure_components(
            graph, inc_orientation=True, inc_site_ids=True, inc_molecule_graph=True
        )
        # before the mineral, which may ask for the fingerprints of another structure
        sites = KeepingSites(KeptBonds(graph), self.fingerprints, self.symprec)
        data = {
            "formula": self._condense_formula(structure, components),
            "spg_symbol": symmetry.get_space_group_symbol(),
            "crystal_system": symmetry.get_crystal_system(),
            "mineral": self._condense_mineral(structure, components),
            "dimensionality": max(component["dimensionality"] for component in components),
        }
        data["sites"] = sites.get_all_site_summaries()
        data["distances"] = sites.get_all_bond_distance_summaries()
        data["angles"] = sites.get_all_connectivity_angle_summaries()
        data["nnn_distances"] = sites.get_all_nnn_distance_summaries()
        summary, makeup = self._condense_components(components, symmetry, sites)
        data["components"], data["component_makeup"] = summary, makeup
        layered = components_are_vdw_heterostructure(components)
        data["vdw_heterostructure_info"] = (
            get_vdw_heterostructure_information(
                components, use_iupac_formula=True, use_common_formulas=True
            )
            if layered
            else None
        )
        return data

    def _condense_components(
        self, components: list[Any], spacegroup_analyzer: Any, site_analyzer: SiteAnalyzer
    ) -> tuple[dict[int, dict[str, Any]], list[int]]:
        """List the inequivalent components and which of them make up the crystal."""
        summary: dict[int, dict[str, Any]] = {}
        makeup: list[int] = []
        for index, component in enumerate(get_structure_inequiv_components(components)):
            molecule = component["dimensionality"] == 0
            summary[index] = {
                "formula": get_component_formula(
                    component, use_iupac_formula=True, use_common_formulas=True
                ),
                "dimensionality": component["dimensionality"],
                "orientation": component["orientation"],
                "molecule_name": self.namer.get_name_from_molecule_graph(
                    component["molecule_graph"]
                )
                if molecule
                else None,
                "sites": site_analyzer.get_inequivalent_site_indices(component["site_ids"]),
            }
            makeup.extend([index] * component["count"])
        return summary, makeup
