"""Validity of conformers by PoseBusters' checks of a molecule alone, on a sample.

Connectivity, sanitization, bond lengths and angles, flat rings and double bonds, steric clashes,
internal energy. About 20 ms a conformer, hence the sample.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from orbitdiff.errors import BadInput, MissingExtra
from orbitdiff.metrics.base import Map

if TYPE_CHECKING:
    from rdkit.Chem import Mol

__all__ = ["Validity", "failed_checks", "hash_sample", "validity"]


class Validity(NamedTuple):
    """Share of the checked conformers that pass every check.

    Attributes
    ----------
    share : float
    num_checked : int
    failed : dict
        Name of a check to the number of conformers that fail it.
    """

    share: float
    num_checked: int
    failed: dict[str, int]


def hash_sample(names: Sequence[str], num: int) -> list[int]:
    """Positions of a fixed sample, the names with the smallest sha256, in order.

    Parameters
    ----------
    names : sequence of str
        Different ones.
    num : int
        All where there are fewer.
    """
    ranked = sorted(range(len(names)), key=lambda row: sha256(names[row].encode()).digest())
    return sorted(ranked[:num])


def failed_checks(molecule: "Mol") -> list[str]:
    """Names of the checks that a conformer fails; a check that raises is failed by name `error`.

    Parameters
    ----------
    molecule : rdkit Mol
        With one conformer and explicit hydrogens.
    """
    try:
        found = _buster().bust([molecule]).iloc[0]
    except MissingExtra:
        raise
    except Exception:
        return ["error"]
    return [str(name) for name, passed in found.items() if not passed]


@cache
def _buster() -> Any:
    try:
        from posebusters import PoseBusters
    except ImportError as error:
        raise MissingExtra.naming("posebusters", "mol") from error
    return PoseBusters(config="mol")


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
    found = parallel(failed_checks, molecules, description="check validity (PoseBusters)")
    counts = Counter(name for names in found for name in names)
    passed = sum(not names for names in found)
    return Validity(passed / len(found), len(found), dict(sorted(counts.items())))
