"""Conformers by RDKit's ETKDGv3: the baseline that every table of conformers carries."""

import math
import time
from typing import Any

import numpy as np
import torch

from orbitdiff.data.conformer_rows import parsed_smiles
from orbitdiff.errors import BadInput
from orbitdiff.seeding import stream
from orbitdiff.typing import Float

__all__ = ["MAX_SECONDS", "MAX_TRIES", "etkdg_conformers"]

MAX_TRIES = 200
"""Starts per conformer: RDKit's default (ten per atom) for 20 atoms. Strained cages fail nearly all
of them, at one or two milliseconds each."""

MAX_SECONDS = 60
"""Limit on the time of one molecule; what was embedded until then is kept."""

AT_ONCE = 16
"""Conformers of one call: RDKit's own time limit throws away all conformers of its call."""

LARGEST_SEED = 2**31 // (AT_ONCE + 1)
"""RDKit starts conformer k from (k + 1) * seed: seed 0 would give one conformer again and again."""


def etkdg_conformers(
    smiles: str,
    num: int,
    *,
    seed: int,
    max_tries: int = MAX_TRIES,
    max_seconds: int = MAX_SECONDS,
) -> Float[np.ndarray, "K n 3"]:
    """Embed a molecule, without any force field afterwards.

    Parameters
    ----------
    smiles : str
    num : int
        Conformers asked for.
    seed : int
        Names the random stream, together with the SMILES. The same seed gives the same conformers
        unless `max_seconds` strikes.
    max_tries : int
        Starts per conformer.
    max_seconds : int

    Returns
    -------
    (K, n, 3) float64
        Angstrom, atoms as in `Chem.AddHs(Chem.MolFromSmiles(smiles))`; K <= num, 0 where none
        embeds.

    Raises
    ------
    BadInput
        No valid SMILES, fewer than one conformer asked for.

    References
    ----------
    Wang, Witek, Landrum, Riniker, J. Chem. Inf. Model. 60, 2044 (2020).
    """
    if num < 1:
        raise BadInput(f"expected at least one conformer to be asked for, got {num}")
    molecule = parsed_smiles(smiles)
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdDistGeom

    chosen: Any = rdDistGeom.ETKDGv3()
    chosen.maxIterations = max_tries
    chosen.numThreads = 1
    generator = stream(seed, "etkdg", smiles)
    end = time.monotonic() + max_seconds
    coords: list[np.ndarray] = []
    for start in range(0, num, AT_ONCE):
        left = end - time.monotonic()
        if left <= 0:
            break
        chosen.timeout = math.ceil(left)
        chosen.randomSeed = int(torch.randint(1, LARGEST_SEED, (), generator=generator))
        embedded = Chem.Mol(molecule)
        with rdBase.BlockLogs():
            rdDistGeom.EmbedMultipleConfs(embedded, min(AT_ONCE, num - start), chosen)
        coords += [conformer.GetPositions() for conformer in embedded.GetConformers()]
    return np.array(coords, dtype=np.float64).reshape(-1, molecule.GetNumAtoms(), 3)
