"""Validity of conformers by PoseBusters' checks of a molecule alone, on a sample.

Connectivity, sanitization, bond lengths and angles, flat rings and double bonds, steric clashes,
internal energy. About 20 ms a conformer (20 s for a strained cage, whose energy is compared with
ETKDG's), hence the sample.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from orbitdiff.errors import BadInput, MissingExtra
from orbitdiff.metrics.base import Map

if TYPE_CHECKING:
    from rdkit.Chem import Mol

__all__ = ["Checks", "Validity", "check_conformer", "validity"]


class Validity(NamedTuple):
    """Share of the checked conformers that pass every check.

    Attributes
    ----------
    share : float
    num_checked : int
    failed : dict
        Name of a check to the number of conformers that fail it.
    not_made : dict
        Name of a check to the number of conformers for which it has no answer (energies of
        molecules that ETKDG does not embed); they do not fail it.
    """

    share: float
    num_checked: int
    failed: dict[str, int]
    not_made: dict[str, int]


class Checks(NamedTuple):
    """Names of the checks that one conformer fails, and of those without an answer."""

    failed: tuple[str, ...]
    not_made: tuple[str, ...]


def check_conformer(molecule: "Mol") -> Checks:
    """Run PoseBusters on one conformer; where it raises, the check `error` is failed.

    Parameters
    ----------
    molecule : rdkit Mol
        With one conformer and explicit hydrogens.
    """
    buster = _buster()
    try:
        found = dict(buster.bust([molecule]).iloc[0])
    except Exception:
        return Checks(("error",), ())
    unknown = tuple(str(name) for name, passed in found.items() if passed != passed)
    failed = tuple(str(name) for name, passed in found.items() if not passed)
    return Checks(failed, unknown)


@cache
def _buster() -> Any:
    """PoseBusters' set of checks `mol`, on one thread and its energy check made once."""
    try:
        from posebusters import PoseBusters
    except ImportError as error:
        raise MissingExtra.naming("posebusters", "mol") from error
    logging.getLogger("posebusters").setLevel(logging.ERROR)
    buster = PoseBusters(config="mol")
    told = [module for module in buster.config["modules"] if "chosen_binary_test_output" in module]
    for module in told:
        if module["function"] == "energy_ratio":
            module["parameters"]["num_threads"] = 1
    buster.config["modules"] = told
    return buster


def validity(molecules: Sequence["Mol"], *, parallel: Map) -> Validity:
    """Check conformers in parallel.

    Parameters
    ----------
    molecules : sequence of rdkit Mol
        One conformer each; at least one.
    parallel : Map
        An executor's `map`.

    Raises
    ------
    BadInput
        No molecule.
    """
    if not molecules:
        raise BadInput("expected at least one conformer to check, got none")
    found = parallel(check_conformer, molecules, description="check validity (PoseBusters)")
    failed = Counter(name for checks in found for name in checks.failed)
    not_made = Counter(name for checks in found for name in checks.not_made)
    passed = sum(not checks.failed for checks in found)
    return Validity(
        passed / len(found),
        len(found),
        dict(sorted(failed.items())),
        dict(sorted(not_made.items())),
    )
