"""The conformers of one molecule from its SMILES: ETKDGv3 seeds, MMFF94s, GFN2-xTB."""

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from orbitdiff.data.conformer_checks import (
    distinct,
    same_connectivity,
    same_stereo,
    with_conformers,
)
from orbitdiff.data.ensembles import KT
from orbitdiff.data.molecule_graph import molecule_of_smiles
from orbitdiff.data.molecules import Ensemble
from orbitdiff.data.xtb import HARTREE, NotConverged, available_engine, relax
from orbitdiff.errors import BadInput
from orbitdiff.seeding import stream

if TYPE_CHECKING:
    from rdkit.Chem import Mol

__all__ = ["LEVELS", "Failure", "Found", "SearchSettings", "search"]

LEVELS = ("etkdg", "mmff", "xtb")
LARGEST_SEED = 2**30
"""RDKit multiplies: 0 would embed the same conformer each time, and more overflows."""

MMFF_STEPS = 2000
MMFF_SAME_ENERGY = 0.005
"""kcal/mol, in place of `same_energy` before xTB: rotamers of OH and NH2 whose heavy atoms agree
are often that near in MMFF94s and lead to different minima of GFN2-xTB."""


@final
@dataclass(frozen=True)
class SearchSettings:
    """How hard to search.

    Parameters
    ----------
    seeds, most_seeds : int
        Starts: `seeds` times two for each rotatable bond (of hydroxyls, too), at most `most_seeds`.
    tries : int
        Attempts to embed each start. A strained cage fails nearly all of them.
    keep : int
        Lowest MMFF94s conformers that go on to xTB, and the most that an ensemble has.
    mmff_window, window : float
        Conformers above the lowest by more are dropped, kcal/mol; before xTB, and at the end.
    same_energy, same_rmsd : float
        Conformers nearer than both are duplicates: kcal/mol, angstrom over heavy atoms.
    max_seconds : float
        A molecule that takes longer is a Failure.
    engine : str, optional
        `tblite` or `xtb`; default the one that is installed.
    """

    seeds: int = 30
    most_seeds: int = 300
    tries: int = 10
    keep: int = 40
    mmff_window: float = 15.0
    window: float = 6.0
    same_energy: float = 0.05
    same_rmsd: float = 0.125
    max_seconds: float = 300.0
    engine: str | None = None

    @classmethod
    def for_training(cls) -> "SearchSettings":
        """Fewer seeds and conformers than for a test set."""
        return cls(seeds=10, most_seeds=100, keep=10)


@final
@dataclass(frozen=True)
class Found:
    """What a search gave.

    Parameters
    ----------
    ensemble : Ensemble
        Energies ascending; weights of 298.15 K.
    seconds : float
    dropped : mapping
        Reason to number of conformers: not embedded, not converged, wrong configuration, changed
        connectivity, duplicate, out of window, beyond keep.
    """

    ensemble: Ensemble
    seconds: float
    dropped: Mapping[str, int] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class Failure:
    """Why a molecule has no ensemble: the kind of fault, and what was found."""

    reason: str
    detail: str


class _Stop(Exception):
    """The search ends with a Failure."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.failure = Failure(reason, detail)


def search(
    smiles: str, *, level: str, seed: int, settings: SearchSettings | None = None
) -> Found | Failure:
    """Search the conformers of a molecule; a molecule that gives none is no exception.

    A stereocentre or double bond whose configuration the SMILES leaves open takes any.

    Parameters
    ----------
    smiles : str
    level : str
        `etkdg`: embedded geometries, all of energy zero; `mmff`: minima of MMFF94s; `xtb`: minima
        of GFN2-xTB.
    seed : int
        With the SMILES it determines the result, unless `max_seconds` strikes.
    settings : SearchSettings, optional
        Default: those of a test set.

    Returns
    -------
    Found or Failure

    Raises
    ------
    BadInput
        An unknown level.
    MissingExtra
        RDKit, or at level xtb both tblite and the program xtb, are not installed.
    """
    if level not in LEVELS:
        raise BadInput(f"expected level etkdg, mmff or xtb, got {level!r}")
    settings = settings or SearchSettings()
    engine = (settings.engine or available_engine()) if level == "xtb" else ""
    started = time.monotonic()
    try:
        molecule = molecule_of_smiles(smiles)
    except BadInput as error:
        return Failure("unusable SMILES", str(error))
    run = _Search(molecule, settings, started)
    try:
        start = 1 + stream(seed, "conformers", smiles).initial_seed() % LARGEST_SEED
        coords = run.embed(start)
        energies = np.zeros(len(coords))
        if level != "etkdg":
            coords, energies = run.mmff(coords)
        if level == "xtb":
            coords, _ = run.select(coords, energies, settings.mmff_window, MMFF_SAME_ENERGY)
            coords, energies = run.xtb(coords, engine)
        coords, energies = run.select(coords, energies, settings.window, settings.same_energy)
    except _Stop as stop:
        return stop.failure
    energies = energies - energies[0]
    weights = np.exp(-energies / KT)
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.int64)
    ensemble = Ensemble(smiles, numbers, coords, energies, weights / weights.sum())
    return Found(ensemble, time.monotonic() - started, dict(sorted(run.dropped.items())))


@final
class _Search:
    """Steps of the search of one molecule, with the count of what they drop."""

    def __init__(self, molecule: "Mol", settings: SearchSettings, started: float) -> None:
        self.molecule, self.settings = molecule, settings
        self.ends = started + settings.max_seconds
        self.dropped: Counter[str] = Counter()

    def embed(self, seed: int) -> NDArray[np.float64]:
        """Embed the seeds, (L, n, 3).

        ETKDG tests the volume at each stereocentre, and those of strained cages seldom pass. Seeds
        that failed are therefore embedded again without the test; `select` looks at the
        configuration of every conformer after the optimisation.
        """
        from rdkit.Chem import rdDistGeom
        from rdkit.Chem.rdMolDescriptors import CalcNumRotatableBonds

        chosen = self.settings
        doubled = chosen.seeds * 2 ** min(CalcNumRotatableBonds(self.molecule), 30)
        number = min(doubled, chosen.most_seeds)
        found: list[NDArray[np.float64]] = []
        for strict in (True, False):
            options: Any = rdDistGeom.ETKDGv3()
            options.randomSeed, options.maxIterations = seed, chosen.tries
            options.enforceChirality, options.numThreads = strict, 1
            options.timeout = math.ceil(self.left())
            wanted = number - len(found)
            if wanted:
                copied = with_conformers(self.molecule, np.zeros((0, 0, 3)))
                try:
                    rdDistGeom.EmbedMultipleConfs(copied, wanted, options)
                except (RuntimeError, ValueError) as error:
                    raise _Stop("not embedded", f"RDKit: {error}".splitlines()[0]) from error
                found += [conformer.GetPositions() for conformer in copied.GetConformers()]
            self.left()
        self.drop("not embedded", number - len(found))
        if not found:
            raise _Stop("not embedded", f"none of {number} seeds with {chosen.tries} tries each")
        return np.array(found)

    def mmff(self, coords: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Optimise with MMFF94s; coordinates and energies (kcal/mol) of what converged."""
        from rdkit.Chem.rdForceFieldHelpers import (
            MMFFHasAllMoleculeParams,
            MMFFOptimizeMoleculeConfs,
        )

        if not MMFFHasAllMoleculeParams(self.molecule):
            raise _Stop("no MMFF94s parameters", "an atom has no MMFF94s type; use level etkdg")
        placed = with_conformers(self.molecule, coords)
        states = MMFFOptimizeMoleculeConfs(
            placed, numThreads=1, maxIters=MMFF_STEPS, mmffVariant="MMFF94s"
        )
        self.left()
        energies = np.array([energy for _, energy in states])
        fine = np.array([state == 0 for state, _ in states]) & np.isfinite(energies)
        self.drop("not converged", int((~fine).sum()))
        points = np.array([conformer.GetPositions() for conformer in placed.GetConformers()])
        return points[fine], energies[fine]

    def xtb(
        self, coords: NDArray[np.float64], engine: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Optimise with GFN2-xTB; coordinates and energies (kcal/mol) of what converged."""
        from rdkit.Chem import GetFormalCharge

        atoms = list(self.molecule.GetAtoms())
        numbers = np.array([atom.GetAtomicNum() for atom in atoms])
        unpaired = sum(atom.GetNumRadicalElectrons() for atom in atoms)
        minima = []
        for points in coords:
            self.left()
            try:
                minimum = relax(
                    numbers,
                    points,
                    charge=GetFormalCharge(self.molecule),
                    unpaired=unpaired,
                    engine=engine,
                )
            except NotConverged:
                self.drop("not converged", 1)
            else:
                minima.append((minimum.coords, minimum.energy * HARTREE))
        if not minima:
            raise _Stop("not converged", f"GFN2-xTB failed for all {len(coords)} conformers")
        return np.array([c for c, _ in minima]), np.array([energy for _, energy in minima])

    def select(
        self,
        coords: NDArray[np.float64],
        energies: NDArray[np.float64],
        window: float,
        same_energy: float,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Drop changed molecules, conformers above the window and duplicates; sort by energy."""
        chosen = self.settings
        for reason, check in (
            ("changed connectivity", same_connectivity),
            ("wrong configuration", same_stereo),
        ):
            right = check(self.molecule, coords)
            self.drop(reason, int((~right).sum()))
            coords, energies = coords[right], energies[right]
        if not len(coords):
            counts = ", ".join(f"{reason} {number}" for reason, number in self.dropped.items())
            raise _Stop("no conformer left", counts)
        order = np.argsort(energies, kind="stable")
        inside = order[energies[order] - energies[order[0]] <= window]
        self.drop("out of window", len(order) - len(inside))
        coords, energies = coords[inside], energies[inside]
        kept = distinct(
            self.molecule,
            coords,
            energies,
            energy=same_energy,
            rmsd=chosen.same_rmsd,
            most=chosen.keep,
        )
        seen = kept[-1] + 1 if len(kept) == chosen.keep else len(coords)
        self.drop("duplicate", seen - len(kept))
        self.drop("beyond keep", len(coords) - seen)
        self.left()
        return coords[kept], energies[kept]

    def left(self) -> float:
        """Seconds left."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise _Stop("time limit", f"more than {self.settings.max_seconds:g} s")
        return left

    def drop(self, reason: str, number: int) -> None:
        """Count conformers that are dropped."""
        if number:
            self.dropped[reason] += number
