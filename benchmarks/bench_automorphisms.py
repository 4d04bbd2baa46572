"""Cost of the exact mean over SO(3) x Aut: 48 automorphisms, 128 molecules.

Two molecules with 48 automorphisms, 4-aminobutan-2-ol (flexible, 17 atoms) and cubane (16 atoms; 24
of its automorphisms are rotations, so half the components carry equal weight and cannot be
dropped): exact (one matrix Fisher mean per automorphism, negligible ones dropped) against SNIS that
rotates and permutes 200 x 48 clouds, the true one among them, in one run. Bars: exact at least 20
times faster at high noise, 100 times where sigma <= 0.3 angstrom. Subgroups and chains are measured
on tert-butanol (1,296 automorphisms), the cost of a training batch on 64 molecules of the training
file under the harmonic prior. Writes results/automorphisms_cpu.json.
"""

import argparse
import gzip
import itertools
import json
import statistics
import time
from functools import partial
from typing import NamedTuple

import torch
from molecules import DATA, Chem
from record import hardware, write

from orbitdiff.data.automorphisms import molecular_automorphisms
from orbitdiff.groups import SO3, GraphAutomorphisms
from orbitdiff.kernels import GaussianKernel, GeometricSigma, HarmonicKernel, Parametrization
from orbitdiff.kernels.harmonic_prior import HarmonicPrior
from orbitdiff.orbit import AutomorphismOrbit, OrbitContext, PlainTarget, RotationOrbit

SIGMAS = (0.1, 0.3, 1.0, 3.0, 10.0)
KERNEL = GaussianKernel(GeometricSigma(0.05, 20.0))
AT_ONCE = 40
"""Clouds of one molecule and automorphism that are compared at once: memory below 1 GB."""


def in_turn(functions, repeats):
    """CPU seconds of this thread in each call: other processes of the machine do not count."""
    seconds = [[] for _ in functions]
    for repeat in range(repeats + 2):
        for function, found in zip(functions, seconds, strict=True):
            start = time.thread_time()
            function()
            if repeat >= 2:
                found.append(time.thread_time() - start)
    return seconds


def molecule(smiles):
    """Geometry by the force field, centred, and the automorphisms."""
    from rdkit.Chem import AllChem

    found = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(found, randomSeed=1)
    AllChem.MMFFOptimizeMolecule(found)
    x_0 = torch.tensor(found.GetConformer().GetPositions())
    return x_0 - x_0.mean(0), molecular_automorphisms(found)


def problem(x_0, sigma, batch, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    points = x_0.expand(batch, -1, -1)
    t = torch.tensor(sigma / 0.05).log() / torch.tensor(400.0).log()
    t = t.double().expand(batch).contiguous()
    x_t = KERNEL.sample(points, t, generator=generator).x_t
    return x_t.to(dtype), points.to(dtype).contiguous(), t.to(dtype)


def rotated_clouds(x_t, x_0, t, lists, num_samples, generator):
    """SNIS that rotates and permutes clouds, the true one first, as published."""
    sigma = KERNEL.schedule(t).sigma[:, None, None]
    images = x_0[:, lists]
    logits, clouds = [], []
    for start in range(0, num_samples, AT_ONCE):
        g = SO3().sample(min(AT_ONCE, num_samples - start), generator=generator).to(x_0)
        if start == 0:
            g[0] = torch.eye(3)
        moved = images[:, None] @ g[:, None].mT
        distance = (x_t[:, None, None] - moved).square().sum((3, 4))
        logits.append(-0.5 * distance / sigma**2)
        clouds.append(moved)
    weights = torch.softmax(torch.cat(logits, 1).flatten(1), 1).view(len(x_t), num_samples, -1)
    parts = zip(weights.split(AT_ONCE, 1), clouds, strict=True)
    return sum(torch.einsum("bkp,bkpnd->bnd", w, c) for w, c in parts)


def rms(value, truth, size):
    return float(f"{float((value.double() - truth).square().mean().sqrt() / size):.3g}")


def listed(smiles, batch, repeats):
    """Exact against rotated and permuted clouds."""
    x_0, group = molecule(smiles)
    lists = group.elements()
    around = OrbitContext(permutations=lists.expand(batch, -1, -1))
    exact = RotationOrbit(KERNEL)
    rows = {}
    for sigma in SIGMAS:
        data = problem(x_0, sigma, batch)
        generator = torch.Generator().manual_seed(1)
        calls = [
            lambda data=data: exact(*data, context=around).value,
            lambda data=data, g=generator: rotated_clouds(*data, lists, 200, g),
        ]
        burst, slow = in_turn(calls[:1], 20)[0], in_turn(calls[1:], repeats)[0]
        truth = exact(*problem(x_0, sigma, batch, torch.float64), context=around).value
        size = x_0.square().mean().sqrt()
        ms = [1e3 * statistics.median(seconds) for seconds in (burst, slow)]
        rows[str(sigma)] = {
            "exact_ms": round(ms[0], 3),
            "rotated_clouds_ms": round(ms[1], 1),
            "times": round(ms[1] / ms[0], 1),
            "exact_float32_error": rms(calls[0](), truth, size),
            "rotated_clouds_error": rms(calls[1](), truth, size),
            "plain_error": rms(data[1], truth, size),
        }
        print(sigma, rows[str(sigma)], flush=True)
    return rows


def chains(batch, repeats):
    """Subgroups and chains over their cosets, for 1,296 automorphisms."""
    x_0, group = molecule("CC(C)(C)O")
    around = OrbitContext(automorphisms=(group,) * batch)
    methods = {
        "whole_group": AutomorphismOrbit(KERNEL, max_enumerated=group.order),
        "rotations_only": AutomorphismOrbit(KERNEL, max_enumerated=1, moves=0),
        "subgroup_of_216": AutomorphismOrbit(KERNEL, moves=0),
        "subgroup_and_2_moves": AutomorphismOrbit(KERNEL),
        "subgroup_and_8_moves": AutomorphismOrbit(KERNEL, moves=8),
        "rotations_and_32_moves": AutomorphismOrbit(KERNEL, max_enumerated=1, moves=32),
        "plain": PlainTarget(KERNEL, parametrization=Parametrization.DATA),
    }
    rows = {}
    for sigma in SIGMAS:
        data = problem(x_0, sigma, batch, torch.float64)
        calls = [
            lambda e=e, d=data: (
                e(*d, context=around, generator=torch.Generator().manual_seed(1)).value
            )
            for e in methods.values()
        ]
        times = in_turn(calls, repeats)
        truth, size = calls[0](), x_0.square().mean().sqrt()
        rows[str(sigma)] = {
            name: {"ms": round(1e3 * statistics.median(s), 2), "error": rms(call(), truth, size)}
            for name, s, call in zip(methods, times, calls, strict=True)
        }
        print(sigma, rows[str(sigma)], flush=True)
    return rows


def training_batches(repeats, batch=64, batches=10):
    """Milliseconds of the mean velocity of training molecules, t uniform, bridge 0.1."""
    chosen = sampled_molecules(batch * batches)
    generator = torch.Generator().manual_seed(0)
    times: dict[str, list[float]] = {"rotation": [], "automorphism": []}
    orders = []
    for start in range(0, len(chosen), batch):
        part = chosen[start : start + batch]
        width = max(len(one.x_0) for one in part)
        x_0, mask = torch.zeros(batch, width, 3), torch.zeros(batch, width, dtype=torch.bool)
        bonds = torch.zeros(batch, width, width, dtype=torch.bool)
        for row, one in enumerate(part):
            n = len(one.x_0)
            x_0[row, :n], mask[row, :n], bonds[row, :n, :n] = one.x_0, True, one.bonds
        kernel = HarmonicKernel(HarmonicPrior.from_bonds(bonds, mask=mask), sigma=0.1)
        t = torch.rand(batch, generator=generator)
        x_t = kernel.sample(x_0, t, generator=generator).x_t
        groups = tuple(one.group for one in part)
        orders += [group.order for group in groups]
        velocity = {"parametrization": Parametrization.VELOCITY}
        both = (
            (RotationOrbit(kernel, **velocity), None),
            (AutomorphismOrbit(kernel, **velocity), OrbitContext(automorphisms=groups)),
        )
        calls = [
            partial(mean, x_t, x_0, t, context=around, mask=mask, generator=generator)
            for mean, around in both
        ]
        found = in_turn(calls, repeats)
        for name, seconds in zip(times, found, strict=True):
            times[name].append(1e3 * statistics.median(seconds))
    return {
        "batch": batch,
        "batches": batches,
        "elements_per_batch": sum(orders) // batches,
        "median_ms": {name: round(statistics.median(ms), 2) for name, ms in times.items()},
        "largest_ms": {name: round(max(ms), 2) for name, ms in times.items()},
    }


def sampled_molecules(count, stride=13):
    """Every 13th molecule of the training file: geometry, bonds and automorphisms."""
    found = []
    with gzip.open(DATA / "geom_qm9" / "xtb_train.jsonl.gz", "rt") as lines:
        for line in itertools.islice(lines, 0, count * stride, stride):
            row = json.loads(line)
            graph = Chem.AddHs(Chem.MolFromSmiles(row["smiles"]))
            x_0 = torch.tensor(row["coords"][0])
            bonds = torch.tensor(Chem.GetAdjacencyMatrix(graph)) > 0
            found.append(Row(x_0 - x_0.mean(0), bonds, molecular_automorphisms(graph)))
    return found


class Row(NamedTuple):
    """A molecule of a training batch."""

    x_0: torch.Tensor
    bonds: torch.Tensor
    group: GraphAutomorphisms


def orders():
    """Orders of the groups of the official test molecules."""
    with open(DATA / "geom_qm9" / "test_smiles.csv") as lines:
        smiles = [line.split(",")[0].strip() for line in lines.readlines()[1:]]
    found = []
    for one in smiles:
        parsed = Chem.MolFromSmiles(one)
        if parsed is not None:
            found.append(molecular_automorphisms(Chem.AddHs(parsed)).order)
    edges = (1, 6, 48, 120, 720)
    shares = {f"<= {edge}": sum(o <= edge for o in found) / len(found) for edge in edges}
    return {"molecules": len(found), "largest": max(found), "share": shares}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    state = hardware(torch.device("cpu"))
    exact = {
        name: listed(smiles, arguments.batch, arguments.repeats)
        for name, smiles in (("4-aminobutan-2-ol", "CC(O)CCN"), ("cubane", "C12C3C4C1C5C2C3C45"))
    }
    content = {
        "what": __doc__.splitlines()[0],
        **state,
        "config": {**vars(arguments), "rotations": 200, "automorphisms": 48},
        "bars": {"times at sigma <= 0.3": 100, "times at high noise": 20},
        "exact_against_rotated_clouds_by_sigma": exact,
        "tert_butanol_batch_16_by_sigma": chains(16, arguments.repeats),
        "training_batches_of_qm9": training_batches(arguments.repeats),
        "orders_of_test_molecules": orders(),
        "note": "milliseconds are medians of CPU time; errors are root mean squares over that of "
        "x_0, against the exact mean in float64",
    }
    write("automorphisms_cpu", content)


if __name__ == "__main__":
    main()
