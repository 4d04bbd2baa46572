"""GFN2-xTB energies and optimised geometries: tblite in this process, or the `xtb` program.

Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652 (2019).
"""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from orbitdiff.data.descent import BOHR, NotConverged, minimise
from orbitdiff.errors import BadInput, MissingExtra

__all__ = ["HARTREE", "NotConverged", "Relaxed", "available_engine", "relax", "single_point"]

HARTREE = 627.5094740631
"""kcal/mol."""

PROGRAM_SECONDS = 600
"""Limit on one run of the program xtb."""


@final
@dataclass(frozen=True)
class Relaxed:
    """A geometry at a minimum.

    Parameters
    ----------
    coords : (n, 3) float64
        Angstrom.
    energy : float
        Hartree.
    """

    coords: NDArray[np.float64]
    energy: float


def available_engine() -> str:
    """Name `tblite` where it is installed, else `xtb` where the program is on the PATH.

    Raises
    ------
    MissingExtra
        Neither is there.
    """
    try:
        import tblite.interface  # noqa: F401
    except ImportError as error:
        if shutil.which("xtb"):
            return "xtb"
        raise MissingExtra.naming("tblite", "mol") from error
    return "tblite"


def single_point(
    atomic_numbers: NDArray[np.int64],
    coords: NDArray[np.float64],
    *,
    charge: int = 0,
    unpaired: int = 0,
) -> tuple[float, NDArray[np.float64]]:
    """Energy (Hartree) and gradient (n, 3) (Hartree/bohr) of one geometry, by tblite.

    Parameters
    ----------
    atomic_numbers : (n,)
    coords : (n, 3)
        Angstrom.
    charge, unpaired : int
        Total charge, number of unpaired electrons.

    Raises
    ------
    NotConverged
        The electronic structure does not converge.
    """
    return Surface(atomic_numbers, charge, unpaired)(coords / BOHR)


def relax(
    atomic_numbers: NDArray[np.int64],
    coords: NDArray[np.float64],
    *,
    charge: int = 0,
    unpaired: int = 0,
    engine: str = "tblite",
) -> Relaxed:
    """Optimise one geometry to a tight minimum in the gas phase.

    Parameters
    ----------
    atomic_numbers : (n,)
    coords : (n, 3)
        Angstrom.
    charge, unpaired : int
        Total charge, number of unpaired electrons.
    engine : str
        `tblite` or `xtb` (the program, in a temporary folder).

    Raises
    ------
    NotConverged
        No convergence of the electronic structure, or within 600 geometries.
    BadInput
        Another engine.
    """
    if engine == "tblite":
        return relax_by_tblite(atomic_numbers, coords, charge, unpaired)
    if engine == "xtb":
        return relax_by_program(atomic_numbers, coords, charge, unpaired)
    raise BadInput(f"expected engine tblite or xtb, got {engine!r}")


@final
class Surface:
    """GFN2-xTB energy and gradient; each call starts from the last electronic structure."""

    def __init__(self, atomic_numbers: NDArray[np.int64], charge: int, unpaired: int) -> None:
        try:
            from tblite.interface import Calculator
        except ImportError as error:
            raise MissingExtra.naming("tblite", "mol") from error
        numbers = np.asarray(atomic_numbers)
        self._build = partial(Calculator, "GFN2-xTB", numbers, charge=charge, uhf=unpaired)
        self._calculator: Any = None
        self._last: Any = None

    def __call__(self, points: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Energy and gradient at points (n, 3), in bohr."""
        try:
            if self._calculator is None:
                self._calculator = self._build(points)
                self._calculator.set("verbosity", 0)
            else:
                self._calculator.update(points)
            self._last = self._calculator.singlepoint(self._last)
        except Exception as error:
            self._last = None
            raise NotConverged(f"GFN2-xTB: {error}") from error
        energy, gradient = float(self._last.get("energy")), self._last.get("gradient")
        if not (np.isfinite(energy) and np.isfinite(gradient).all()):
            self._last = None
            raise NotConverged(f"GFN2-xTB: expected a finite energy, got {energy}")
        return energy, np.array(gradient)


def relax_by_tblite(
    atomic_numbers: NDArray[np.int64], coords: NDArray[np.float64], charge: int, unpaired: int
) -> Relaxed:
    """Optimise with tblite and L-BFGS."""
    surface = Surface(atomic_numbers, charge, unpaired)
    points, energy = minimise(surface, atomic_numbers, coords / BOHR)
    return Relaxed(points * BOHR, energy)


def relax_by_program(
    atomic_numbers: NDArray[np.int64], coords: NDArray[np.float64], charge: int, unpaired: int
) -> Relaxed:
    """Optimise with `xtb --gfn 2 --opt tight` in a temporary folder."""
    program = shutil.which("xtb")
    if program is None:
        raise BadInput("expected the program xtb on the PATH, found none; use engine tblite")
    from rdkit.Chem import GetPeriodicTable

    symbol = GetPeriodicTable().GetElementSymbol
    lines = [
        f"{symbol(int(number))} {x:.10f} {y:.10f} {z:.10f}"
        for number, (x, y, z) in zip(atomic_numbers, coords, strict=True)
    ]
    command = [program, "in.xyz", "--gfn", "2", "--opt", "tight"]
    command += ["--chrg", str(charge), "--uhf", str(unpaired)]
    with tempfile.TemporaryDirectory(prefix="orbitdiff-xtb-") as name:
        folder = Path(name)
        (folder / "in.xyz").write_text("\n".join([str(len(lines)), "", *lines]) + "\n")
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=PROGRAM_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise NotConverged(f"xtb took more than {PROGRAM_SECONDS} s") from error
        result = folder / "xtbopt.xyz"
        if done.returncode or not result.is_file() or (folder / "NOT_CONVERGED").exists():
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise NotConverged(f"the program xtb did not reach a minimum: {' '.join(last)}")
        _, comment, *rows = result.read_text().splitlines()
    points = np.array([[float(part) for part in row.split()[1:4]] for row in rows])
    return Relaxed(points, float(comment.split()[1]))
