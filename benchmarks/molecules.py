"""Molecules of the GFN2 ensembles for benchmarks: geometry, bonds, automorphisms."""

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from rdkit import Chem, RDLogger

from orbitdiff.kernels.harmonic_prior import HarmonicPrior
from orbitdiff.typing import Tensor

RDLogger.DisableLog("rdApp.*")
DATA = Path(os.environ.get("ORBITDIFF_DATA", "../shared/data"))


class Molecule(NamedTuple):
    """One molecule: its lowest conformer (N, 3), bonds (N, N), automorphisms (P, N)."""

    smiles: str
    x_0: Tensor
    bonds: Tensor
    automorphisms: Tensor

    def prior(self) -> HarmonicPrior:
        """Springs along its bonds."""
        return HarmonicPrior.from_bonds(self.bonds)


def automorphisms(molecule: Chem.Mol, most: int) -> Tensor | None:
    """All matches of a molecule with itself, the identity first; None if more than `most`."""
    found = molecule.GetSubstructMatches(
        molecule, uniquify=False, useChirality=True, maxMatches=most + 1
    )
    if len(found) > most:
        return None
    lists = torch.tensor(sorted(found))
    assert lists[0].tolist() == list(range(molecule.GetNumAtoms()))
    return lists


def molecules(*, most: int, atoms: int | None = None, file: str = "xtb_test") -> Iterator[Molecule]:
    """Molecules with at most `most` automorphisms, in file order."""
    with gzip.open(DATA / "geom_qm9" / f"{file}.jsonl.gz", "rt") as lines:
        for line in lines:
            row = json.loads(line)
            if atoms is not None and len(row["atomic_numbers"]) != atoms:
                continue
            molecule = Chem.AddHs(Chem.MolFromSmiles(row["smiles"]))
            lists = automorphisms(molecule, most)
            if lists is None:
                continue
            x_0 = torch.tensor(row["coords"][0], dtype=torch.float64)
            bonds = torch.tensor(Chem.GetAdjacencyMatrix(molecule)) > 0
            yield Molecule(row["smiles"], x_0 - x_0.mean(0), bonds, lists)


class Ensembles(NamedTuple):
    """Conformers of molecules, padded: (M, C, N, 3) centred, their number, mask, types."""

    conformers: Tensor
    counts: Tensor
    mask: Tensor
    types: Tensor


def ensembles(num: int, *, atoms: int, most: int, skip: int = 0) -> Ensembles:
    """Return the first molecules of the training file with at most `atoms` atoms.

    The first `most` conformers of each; where there are fewer, the first is repeated with a
    prior of zero (see `counts`).
    """
    found: list[tuple[list[int], Tensor]] = []
    with gzip.open(DATA / "geom_qm9" / "xtb_train.jsonl.gz", "rt") as lines:
        for line in lines:
            row = json.loads(line)
            if len(row["atomic_numbers"]) <= atoms:
                coords = torch.tensor(row["coords"][:most], dtype=torch.float32)
                found.append((row["atomic_numbers"], coords - coords.mean(1, keepdim=True)))
            if len(found) == num + skip:
                break
    found = found[skip:]
    conformers = torch.zeros(num, most, atoms, 3)
    mask = torch.zeros(num, atoms, dtype=torch.bool)
    types = torch.zeros(num, atoms, dtype=torch.long)
    kinds = {1: 1, 6: 2, 7: 3, 8: 4, 9: 5}
    for row, (numbers, coords) in enumerate(found):
        n = len(numbers)
        conformers[row, :, :n] = coords[:1]
        conformers[row, : len(coords), :n] = coords
        mask[row, :n] = True
        types[row, :n] = torch.tensor([kinds[z] for z in numbers])
    counts = torch.tensor([len(coords) for _, coords in found])
    return Ensembles(conformers, counts, mask, types)
