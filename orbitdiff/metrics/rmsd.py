"""Heavy-atom RMSD over all symmetries of the graph and proper rotations, many pairs at once.

RMSD(x, y)^2 = min over permutations p and rotations R of 1/n sum_i |R x_i - y_p(i)|^2
             = (|x|^2 + |y|^2 - 2 max_p s(M_p)) / n,   M_p = x^T y_p (both centred),
where s is the sum of the singular values, the last one with the sign of det M. Equal to RDKit's
`GetBestRMS` on molecules without hydrogens.
"""

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from orbitdiff.errors import BadInput, MissingExtra
from orbitdiff.typing import Float, Int

if TYPE_CHECKING:
    from rdkit.Chem import Bond, Mol

__all__ = ["MAX_MATCHES", "HeavyAtoms", "best_rmsd", "heavy_atoms"]

MAX_MATCHES = 1_000_000
"""Symmetries that are tried at most, in RDKit's order: the default of `GetBestRMS`."""

TERMINAL = "[O,N;D1;$([O,N;D1]-[*]=[O,N;D1]),$([O,N;D1]=[*]-[O,N;D1])]~[*]"
"""Terminal atoms of conjugated groups (carboxylate, nitro, amidine): RDKit's own pattern."""

CHUNK = 4_000
"""Cross-covariances held at once (for one permutation: all pairs), so that they fit a cache."""

NEWTON_STEPS = 12


class HeavyAtoms(NamedTuple):
    """Atoms that are compared, and their symmetries.

    Attributes
    ----------
    indices : (n,) int64
        Which atoms of the molecule: those that `RemoveHs` keeps. A hydrogen that defines a double
        bond's configuration (of an imine) is among them.
    permutations : (P, n) int64
        Positions in `indices`.
    """

    indices: np.ndarray
    permutations: np.ndarray


def heavy_atoms(molecule: "Mol", *, max_matches: int = MAX_MATCHES) -> HeavyAtoms:
    """Return heavy atoms of a molecule and the matches of its graph with itself.

    As in `GetBestRMS`, stereo labels do not restrict the matches (the RMSD decides), and terminal
    atoms of conjugated groups are alike.

    Parameters
    ----------
    molecule : rdkit Mol
        With explicit hydrogens.
    max_matches : int
    """
    try:
        from rdkit import Chem
    except ImportError as error:
        raise MissingExtra.naming("rdkit", "mol") from error

    marked = Chem.Mol(molecule)
    for place in range(marked.GetNumAtoms()):
        marked.GetAtomWithIdx(place).SetIntProp("place", place)
    heavy = Chem.RemoveHs(marked)
    kept = map(heavy.GetAtomWithIdx, range(heavy.GetNumAtoms()))
    indices = np.array([atom.GetIntProp("place") for atom in kept], dtype=np.int64)
    pattern, either = _queries()
    query = Chem.RWMol(heavy)
    for terminal, centre in query.GetSubstructMatches(pattern):
        query.GetAtomWithIdx(terminal).SetFormalCharge(0)
        query.ReplaceBond(query.GetBondBetweenAtoms(terminal, centre).GetIdx(), either)
    found = heavy.GetSubstructMatches(query, uniquify=False, maxMatches=max_matches)
    return HeavyAtoms(indices, np.array(found, dtype=np.int64).reshape(-1, len(indices)))


@cache
def _queries() -> tuple["Mol", "Bond"]:
    """Conjugated terminal atoms; a bond that is single or double."""
    from rdkit import Chem

    return Chem.MolFromSmarts(TERMINAL), Chem.MolFromSmarts("*-,=*").GetBondWithIdx(0)


def best_rmsd(
    probe: Float[np.ndarray, "G n 3"],
    reference: Float[np.ndarray, "L n 3"],
    permutations: Int[np.ndarray, "P n"],
) -> Float[np.ndarray, "G L"]:
    """RMSD of every probe to every reference, over permutations and proper rotations.

    Parameters
    ----------
    probe : (G, n, 3)
        Angstrom, any position and orientation.
    reference : (L, n, 3)
    permutations : (P, n)
        Atom i of the probe answers to atom `permutations[p, i]` of the reference.

    Returns
    -------
    (G, L) float64
        Angstrom. Atoms are weighted equally.

    Raises
    ------
    BadInput
        No permutation.

    References
    ----------
    Kabsch 1976; Theobald 2005 (the quartic of the quaternion matrix).
    """
    if not len(permutations):
        raise BadInput("expected at least one permutation, the identity; got none")
    x = np.asarray(probe, dtype=np.float64)
    y = np.asarray(reference, dtype=np.float64)
    x = x - x.mean(1, keepdims=True)
    y = y - y.mean(1, keepdims=True)
    cross = _best_cross(x, y, permutations)
    singular = np.linalg.svd(np.moveaxis(cross, (0, 1), (-2, -1)), compute_uv=False)
    singular[..., 2] *= np.sign((cross[0] * _outer(cross[1], cross[2])).sum(0))
    size = np.square(x).sum((1, 2))[:, None] + np.square(y).sum((1, 2))
    squares: np.ndarray = (size - 2 * singular.sum(-1)) / max(1, x.shape[1])
    return np.sqrt(squares.clip(min=0.0))


def _best_cross(x: np.ndarray, y: np.ndarray, permutations: np.ndarray) -> np.ndarray:
    """Cross-covariance of each pair under its best permutation, (3, 3, G, L)."""
    num, atoms = len(x), x.shape[1]
    left = x.transpose(2, 0, 1).reshape(3 * num, atoms)
    best = np.zeros((3, 3, num, len(y)))
    overlap = np.full((num, len(y)), -np.inf)
    at_once = max(1, CHUNK // max(1, num * len(y)))
    for start in range(0, len(permutations), at_once):
        part = permutations[start : start + at_once]
        images = y[:, part].transpose(2, 3, 0, 1).reshape(atoms, -1)
        cross = (left @ images).reshape(3, num, 3, len(y), len(part)).swapaxes(1, 2)
        if len(permutations) == 1:
            return cross[..., 0]
        found = _overlap(np.ascontiguousarray(cross))
        top = found.argmax(-1)[..., None]
        value = np.take_along_axis(found, top, -1)[..., 0]
        better = value > overlap
        chosen = np.take_along_axis(cross, top[None, None], -1)[..., 0]
        best = np.where(better, chosen, best)
        overlap = np.where(better, value, overlap)
    return best


def _overlap(cross: np.ndarray) -> np.ndarray:
    """Largest root of the quartic whose roots are s1 + s2 + s3, s1 - s2 - s3, ..., from above.

    With I = |M|^2, K = |cofactors of M|^2, D = det M: (z^2 - I)^2 = 4 K + 8 D z. Newton's steps
    decrease monotonically to the largest root of a polynomial with real roots only.
    """
    a, b, c = cross
    cofactors = (_outer(b, c), _outer(c, a), _outer(a, b))
    square = np.einsum("ij...,ij...->...", cross, cross)
    second = sum(np.square(row).sum(0) for row in cofactors)
    determinant = (a * cofactors[0]).sum(0)
    z = np.sqrt(square + 2 * np.sqrt(second + 2 * determinant.clip(min=0) * np.sqrt(3 * square)))
    for _ in range(NEWTON_STEPS):
        rest = z * z - square
        value = rest * rest - 4 * second - 8 * determinant * z
        slope = 4 * (rest * z - 2 * determinant)
        z = z - np.divide(value, slope, out=np.zeros_like(z), where=slope > 0)
    return z


def _outer(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product along the first axis."""
    return np.stack([
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ])  # fmt: skip
