"""Mineral names as Robocrystallographer gives them, its prototypes reduced once.

Stock code reduces and compares all 180 prototypes for each crystal. Here each is reduced when the
table is read, and only those whose anonymised composition is the crystal's are compared; the
others cannot match, since a mapping of species must carry one composition into the other.
"""

from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from orbitdiff.errors import MissingExtra

try:
    from matminer.featurizers.site import CrystalNNFingerprint
    from matminer.featurizers.utils.stats import PropertyStats
    from pymatgen.core.local_env import CrystalNN
    from pymatgen.core.structure_matcher import StructureMatcher
    from robocrys.condense.mineral import load_mineral_db_file
except ImportError as error:
    raise MissingExtra.naming("robocrys", "text") from error

if TYPE_CHECKING:
    from pymatgen.core import Structure

__all__ = ["KeptNeighbours", "PrototypeTable", "SiteFingerprints"]

LENGTH_TOLERANCE, SITE_TOLERANCE, ANGLE_TOLERANCE = 0.2, 0.3, 5.0
"""Of `MineralMatcher`: fractions of lengths and of the mean free length, degrees."""

SHRINK, SMALLEST_TOLERANCE = 0.8, 0.01
"""Tolerances shrink until one prototype is left, down to this length tolerance."""

CUTOFF = 0.4
"""Largest distance of fingerprints at which a mineral is called `-like`."""


@final
class KeptNeighbours(CrystalNN):
    """CrystalNN that remembers the neighbours of the structure it was asked about last.

    Bonds, mineral names and coordination geometries of one crystal each need all its neighbours;
    the Voronoi cells behind them are made once instead of three times.
    """

    def __init__(self) -> None:
        super().__init__()
        self._structure: Any = None
        self._found: dict[int, Any] = {}

    def get_nn_data(self, structure: "Structure", n: int, length: int | None = None) -> Any:
        """Neighbours of site n with the weights of all coordination numbers."""
        if length is not None:
            return super().get_nn_data(structure, n, length)
        if structure is not self._structure:
            self._structure, self._found = structure, {}
        if n not in self._found:
            self._found[n] = super().get_nn_data(structure, n)
        return self._found[n]


@final
class SiteFingerprints:
    """Local order parameters of all sites of a structure, matminer's preset `ops`.

    Parameters
    ----------
    neighbours : KeptNeighbours
    """

    def __init__(self, neighbours: KeptNeighbours) -> None:
        self._featurizer = CrystalNNFingerprint.from_preset("ops", cation_anion=False)
        self._featurizer.cnn = neighbours
        self.labels: list[str] = self._featurizer.feature_labels()
        self._structure: Any = None
        self._found = np.zeros((0, 0))

    def __call__(self, structure: "Structure") -> NDArray[np.float64]:
        """Order parameters, (sites, labels)."""
        if structure is not self._structure:
            rows = [self._featurizer.featurize(structure, n) for n in range(len(structure))]
            self._structure, self._found = structure, np.array(rows, dtype=np.float64)
        return self._found

    def summary(self, structure: "Structure") -> NDArray[np.float64]:
        """Mean and standard deviation of each order parameter over the sites, (2 labels,)."""
        columns = self(structure).T.tolist()
        calc = PropertyStats.calc_stat
        return np.array([calc(column, stat) for column in columns for stat in ("mean", "std_dev")])


@final
class PrototypeTable:
    """Names the mineral whose structure a crystal has, as robocrys' `MineralMatcher` does.

    Parameters
    ----------
    fingerprints : SiteFingerprints
    """

    def __init__(self, fingerprints: SiteFingerprints) -> None:
        table = load_mineral_db_file()
        self._minerals: list[str] = table["mineral"].tolist()
        self._num_elements = table["n_elems"].to_numpy()
        self._summaries = [np.array(row) for row in table["fingerprint"]]
        self._structures = table["structure"].tolist()
        self._compositions = [anonymised(prototype) for prototype in self._structures]
        self._reduced: dict[int, Structure] = {}
        self._fingerprints = fingerprints

    def get_best_mineral_name(self, structure: "Structure") -> dict[str, Any]:
        """Return the prototype's name, or that of the nearest fingerprint.

        Parameters
        ----------
        structure : pymatgen Structure

        Returns
        -------
        dict
            `type` (name or None), `distance` of the fingerprints (-1 where the structures match),
            `n_species_type_match`.
        """
        summary = self._fingerprints.summary(structure)
        distances = np.array([np.linalg.norm(row - summary) for row in self._summaries])
        order = distances.argsort(kind="quicksort").tolist()
        matching = self.matching(structure, order)
        if matching:
            return named(self._minerals[matching[0]], -1)
        near = [row for row in order if distances[row] < CUTOFF]
        same = [row for row in near if self._num_elements[row] == len(structure.elements)]
        if same:
            return named(self._minerals[same[0]], distances[same[0]])
        if near:
            return named(self._minerals[near[0]], distances[near[0]], same_number=False)
        return named(None, -1)

    def matching(self, structure: "Structure", order: list[int]) -> list[int]:
        """Rows of the prototypes that match, in the given order, at the tightest tolerances."""
        composition = anonymised(structure)
        rows = [row for row in order if self._compositions[row] == composition]
        if not rows:
            return []
        matcher = StructureMatcher(
            ltol=LENGTH_TOLERANCE, stol=SITE_TOLERANCE, angle_tol=ANGLE_TOLERANCE
        )
        crystal = reduced(
            structure.get_reduced_structure(reduction_algo="niggli").get_primitive_structure()
        )

        found = self.fitting(matcher, crystal, rows)
        while len(found) > 1:
            matcher.ltol *= SHRINK
            matcher.stol *= SHRINK
            matcher.angle_tol *= SHRINK
            found = self.fitting(matcher, crystal, found)
            if matcher.ltol < SMALLEST_TOLERANCE:
                break
        return found

    def fitting(
        self, matcher: StructureMatcher, crystal: "Structure", rows: list[int]
    ) -> list[int]:
        """Rows whose reduced prototype fits the reduced crystal."""
        found = []
        for row in rows:
            if row not in self._reduced:
                self._reduced[row] = reduced(self._structures[row])
            if matcher.fit_anonymous(self._reduced[row], crystal, skip_structure_reduction=True):
                found.append(row)
        return found


def named(mineral: str | None, distance: float, *, same_number: bool = True) -> dict[str, Any]:
    """Return the answer in the form that `StructureDescriber` reads."""
    return {"type": mineral, "distance": distance, "n_species_type_match": same_number}


def anonymised(structure: "Structure") -> tuple[int, ...]:
    """Numbers of atoms of each element in the reduced formula, sorted."""
    counts = [round(amount) for amount in structure.composition.get_el_amt_dict().values()]
    return tuple(sorted(count // int(np.gcd.reduce(counts)) for count in counts))


def reduced(structure: "Structure") -> "Structure":
    """Return the Niggli-reduced primitive cell, by the matcher's own reduction."""
    from pymatgen.core import Structure

    return StructureMatcher._get_reduced_structure(Structure.from_sites(structure), True, True)
