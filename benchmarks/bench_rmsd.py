"""Evaluation of conformers against a plain loop over RDKit's GetBestRMS, equal values, one core.

Molecules of the GFN2 test set; 2L generated conformers each: the references with Gaussian noise of
0.1 angstrom and the references themselves. Both sides start from the coordinates and end with
COV and AMR: ours finds symmetries, RMSDs and stereo labels; the loop builds two molecules, removes
their hydrogens and calls GetBestRMS for each pair. Bar: at least 3 times faster at equal RMSDs.
A second part times single molecules of high symmetry. Writes results/rmsd_cpu.json.
"""

import argparse
import time

import numpy as np
import torch
from molecules import DATA, Chem
from rdkit.Chem import rdMolAlign
from record import hardware, write

from orbitdiff.data.conformer_rows import parsed_smiles
from orbitdiff.data.ensembles import read_ensembles
from orbitdiff.metrics.conformers import THRESHOLDS, MoleculePair, coverage, score_molecule
from orbitdiff.metrics.rmsd import best_rmsd, heavy_atoms

SYMMETRIC = {
    "benzene": "c1ccccc1",
    "bis(trifluoromethyl)benzene": "FC(F)(F)c1ccc(cc1)C(F)(F)F",
    "tetraphenylmethane": "c1ccc(cc1)C(c1ccccc1)(c1ccccc1)c1ccccc1",
    "perfluoro-tert-butanol": "FC(F)(F)C(C(F)(F)F)(C(F)(F)F)O",
}


def heavy_molecule(smiles, coords):
    """Molecule without hydrogens that holds all conformers."""
    molecule = Chem.Mol(parsed_smiles(smiles))
    for points in coords:
        conformer = Chem.Conformer(molecule.GetNumAtoms())
        conformer.SetPositions(points)
        molecule.AddConformer(conformer, assignId=True)
    return Chem.RemoveHs(molecule)


def plain(pair):
    """The loop that evaluation scripts of the field have."""
    probe = heavy_molecule(pair.smiles, pair.generated)
    reference = heavy_molecule(pair.smiles, pair.reference)
    found = np.zeros((len(pair.generated), len(pair.reference)))
    for g in range(len(pair.generated)):
        for k in range(len(pair.reference)):
            found[g, k] = rdMolAlign.GetBestRMS(probe, reference, g, k)
    return found


def ours(pair):
    atoms = heavy_atoms(parsed_smiles(pair.smiles))
    probe, reference = (x[:, atoms.indices] for x in (pair.generated, pair.reference))
    return best_rmsd(probe, reference, atoms.permutations)


def compare(pairs, repeats, *, whole):
    """Processor seconds of both sides, the least of the repeats; largest difference of an RMSD."""
    calls = [
        lambda: [score_molecule(pair) if whole else ours(pair) for pair in pairs],
        lambda: [coverage(plain(pair), THRESHOLDS) if whole else plain(pair) for pair in pairs],
    ]
    times: list[list[float]] = [[], []]
    for _ in range(repeats):
        for call, row in zip(calls, times, strict=True):
            start = time.process_time()
            call()
            row.append(time.process_time() - start)
    seconds = [min(row) for row in times]
    return {
        "pairs": sum(len(pair.generated) * len(pair.reference) for pair in pairs),
        "ours_s": round(seconds[0], 4),
        "plain_loop_s": round(seconds[1], 4),
        "times": round(seconds[1] / seconds[0], 2),
        "largest_difference": float(
            f"{max(float(np.abs(ours(pair) - plain(pair)).max()) for pair in pairs):.2g}"
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--molecules", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    state = hardware(torch.device("cpu"))
    rng = np.random.default_rng(0)
    truth = read_ensembles(DATA / "geom_qm9" / "xtb_test.jsonl.gz").ensembles.values()
    pairs = []
    for one in list(truth)[: arguments.molecules]:
        noisy = one.coords + 0.1 * rng.normal(size=one.coords.shape)
        pairs.append(MoleculePair(one.smiles, np.concatenate([noisy, one.coords]), one.coords))
    few = [pair for pair in pairs if len(pair.reference) <= 4]
    symmetric = {}
    for name, smiles in SYMMETRIC.items():
        size = (20, parsed_smiles(smiles).GetNumAtoms(), 3)
        pair = MoleculePair(smiles, rng.normal(size=size), rng.normal(size=size)[:10])
        order = len(heavy_atoms(parsed_smiles(smiles)).permutations)
        row = compare([pair], arguments.repeats, whole=False)
        symmetric[name] = {"symmetries": order, **row}
    content = {
        "what": __doc__.splitlines()[0],
        **state,
        "config": {**vars(arguments), "generated": "2L", "noise_angstrom": 0.1},
        "bars": {"times": 3, "largest_difference": 1e-4},
        "whole_evaluation": compare(pairs, arguments.repeats, whole=True),
        "rmsd_matrices": compare(pairs, arguments.repeats, whole=False),
        "molecules_of_at_most_4_references": compare(few, arguments.repeats, whole=True),
        "symmetric_molecules_rmsd_only": symmetric,
        "note": "processor time of one thread, least of the repeats, sides in turn; the loop does "
        "no stereo labels; GetBestRMS loses digits near zero: differences are largest there",
    }
    write("rmsd_cpu", content)


if __name__ == "__main__":
    main()
