"""GEOM's two releases, written here with RDKit: atom order, quarantine, and pickles that attack."""

import json
import os
import pickle
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rdkit")

from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from orbitdiff.data import geom_atoms
from orbitdiff.data.geom import read_msgpack, read_rdkit_folder, read_split
from orbitdiff.data.molecules import Ensemble
from orbitdiff.data.rejected import Rejected
from orbitdiff.data.restricted_pickle import load_npy, load_pickle
from orbitdiff.errors import BadInput

ETHANOL, STEREO, IMINE = "CCO", "C[C@H](O)[C@@H](F)C#N", "[H]/N=C(/C)F"
SYMMETRIC = "O[C@H]1[C@H](F)[C@@H](F)[C@@H]1O"
SMILES = [ETHANOL, STEREO, IMINE, SYMMETRIC]


def shuffled(smiles: str, count: int, seed: int = 0) -> list[Chem.Mol]:
    """Conformers of a molecule, one a Mol, all in the same other order of atoms."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMultipleConfs(molecule, count, randomSeed=seed + 1)
    rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(molecule, maxIters=500)
    order = np.random.default_rng(seed).permutation(molecule.GetNumAtoms()).tolist()
    made = []
    for conformer in molecule.GetConformers():
        one = Chem.Mol(molecule, confId=conformer.GetId())
        made.append(Chem.RenumberAtoms(one, order))
    return made


def entry(molecule: Chem.Mol, energy: float, weight: float, **extra: Any) -> dict[str, Any]:
    return {
        "geom_id": 7,
        "set": 1,
        "degeneracy": 1,
        "totalenergy": -12.3,
        "relativeenergy": energy,
        "boltzmannweight": weight,
        "conformerweights": [weight],
        "rd_mol": molecule,
        **extra,
    }


def write_folder(folder: Path, molecules: dict[str, list[dict[str, Any]]]) -> Path:
    """An `rdkit_folder` with its summary."""
    (folder / "qm9").mkdir(parents=True)
    summary = {}
    for smiles, conformers in molecules.items():
        name = f"qm9/{smiles.replace('/', '_')}.pickle"
        with (folder / name).open("wb") as file:
            pickle.dump({"smiles": smiles, "conformers": conformers, "charge": 0}, file)
        summary[smiles] = {"pickle_path": name, "charge": 0}
    summary["N#N"] = {"charge": 0}  # GEOM lists molecules without conformers, too
    (folder / "summary_qm9.json").write_text(json.dumps(summary))
    return folder


def table(molecule: Chem.Mol) -> list[list[float]]:
    numbers = [[float(atom.GetAtomicNum())] for atom in molecule.GetAtoms()]
    points = molecule.GetConformer().GetPositions().tolist()
    return [number + point for number, point in zip(numbers, points, strict=True)]


def write_msgpack(path: Path, molecules: list[dict[str, list[dict[str, Any]]]]) -> Path:
    """The release: some maps of molecules, one behind the other."""
    msgpack = pytest.importorskip("msgpack")
    with path.open("wb") as file:
        for part in molecules:
            content = {
                smiles: {
                    "totalconfs": len(conformers),
                    "conformers": [
                        {**{k: v for k, v in c.items() if k != "rd_mol"}, "xyz": table(c["rd_mol"])}
                        for c in conformers
                    ],
                }
                for smiles, conformers in part.items()
            }
            file.write(msgpack.packb(content))
    return path


def check(ensemble: Ensemble, originals: list[Chem.Mol]) -> None:
    """Same molecules, atom by atom: graph and labels read anew from the coordinates."""
    target = Chem.AddHs(Chem.MolFromSmiles(ensemble.smiles))
    numbers = [atom.GetAtomicNum() for atom in target.GetAtoms()]
    assert ensemble.atomic_numbers.tolist() == numbers
    for coords, original in zip(ensemble.coords, originals, strict=True):
        theirs = original.GetConformer().GetPositions()
        taken = [int(np.linalg.norm(theirs - point, axis=1).argmin()) for point in coords]
        assert sorted(taken) == list(range(len(numbers)))
        np.testing.assert_allclose(coords, theirs[taken], atol=1e-6)  # RDKit pickles single floats
        here = {tuple(sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx()))) for b in target.GetBonds()}
        there = {
            tuple(sorted((taken.index(b.GetBeginAtomIdx()), taken.index(b.GetEndAtomIdx()))))
            for b in original.GetBonds()
        }
        assert here == there
        placed = Chem.Mol(target)
        Chem.RemoveStereochemistry(placed)
        conformer = Chem.Conformer(len(numbers))
        conformer.SetPositions(np.ascontiguousarray(coords))
        placed.AddConformer(conformer)
        Chem.AssignStereochemistryFrom3D(placed)
        for mine, wanted in zip(placed.GetAtoms(), target.GetAtoms(), strict=True):
            assert mine.GetChiralTag() == wanted.GetChiralTag()
        for mine, wanted in zip(placed.GetBonds(), target.GetBonds(), strict=True):
            assert mine.GetStereo() == wanted.GetStereo()


Release = Callable[[Path, dict[str, list[dict[str, Any]]], list[Rejected]], list[Ensemble]]


def from_folder(
    tmp_path: Path, molecules: dict[str, list[dict[str, Any]]], refused: list[Rejected]
) -> list[Ensemble]:
    folder = write_folder(tmp_path / "rdkit_folder", molecules)
    return list(read_rdkit_folder(folder, quarantine=refused.append))


def from_msgpack(
    tmp_path: Path, molecules: dict[str, list[dict[str, Any]]], refused: list[Rejected]
) -> list[Ensemble]:
    parts = [{smiles: conformers} for smiles, conformers in molecules.items()]
    path = write_msgpack(tmp_path / "qm9_crude.msgpack", parts)
    return list(read_msgpack(path, quarantine=refused.append))


@pytest.fixture(params=[from_folder, from_msgpack])
def release(request: pytest.FixtureRequest) -> Release:
    return request.param


def test_conformers_come_in_the_order_of_the_smiles(release: Release, tmp_path: Path) -> None:
    made = {smiles: shuffled(smiles, 3, seed) for seed, smiles in enumerate(SMILES)}
    energies, weights = [1.5, 0.7, 2.5], [0.2, 0.5, 0.1]
    content = {
        smiles: [entry(*row) for row in zip(molecules, energies, weights, strict=True)]
        for smiles, molecules in made.items()
    }
    refused: list[Rejected] = []
    found = {ensemble.smiles: ensemble for ensemble in release(tmp_path, content, refused)}
    assert not refused
    assert set(found) == set(SMILES)
    for smiles, molecules in made.items():
        check(found[smiles], [molecules[1], molecules[0], molecules[2]])
        np.testing.assert_allclose(found[smiles].energies, [0, 0.8, 1.8])
        np.testing.assert_allclose(found[smiles].weights, np.array([0.5, 0.2, 0.1]) / 0.8)


def test_one_order_for_all_conformers(release: Release, tmp_path: Path) -> None:
    """Hydrogens of a methyl are numbered as in the first conformer, also after a rotation."""
    molecules = shuffled(ETHANOL, 4)
    content = {ETHANOL: [entry(mol, float(k), 0.1) for k, mol in enumerate(molecules)]}
    (ensemble,) = release(tmp_path, content, [])
    orders = []
    for coords, molecule in zip(ensemble.coords, molecules, strict=True):
        theirs = molecule.GetConformer().GetPositions()
        orders.append([int(np.linalg.norm(theirs - p, axis=1).argmin()) for p in coords])
    assert all(order == orders[0] for order in orders)


def test_what_is_left_out(release: Release, tmp_path: Path) -> None:
    good, reacted, empty, inverted = shuffled(STEREO, 4)
    moved = reacted.GetConformer().GetPositions()
    fluorine = next(a.GetIdx() for a in reacted.GetAtoms() if a.GetSymbol() == "F")
    moved[fluorine] += 3.0
    reacted.GetConformer().SetPositions(moved)
    empty.GetConformer().SetPositions(np.full_like(moved, np.nan))
    inverted.GetConformer().SetPositions(inverted.GetConformer().GetPositions() * [1, 1, -1])
    nameless = entry(shuffled(STEREO, 1)[0], 1.0, 0.1)
    del nameless["relativeenergy"]
    other = shuffled("CCC", 1)[0]
    content = {
        STEREO: [
            entry(reacted, 0.0, 0.5),
            entry(good, 0.4, 0.2),
            entry(empty, 0.5, 0.1),
            entry(inverted, 0.6, 0.1),
            nameless,
            entry(other, 0.7, 0.1),
        ],
        "CC.O": [entry(other, 0.0, 1.0)],
        "CCCC": [entry(other, 0.0, 1.0)],
        "C": [],
    }
    refused: list[Rejected] = []
    (ensemble,) = release(tmp_path, content, refused)
    check(ensemble, [good])
    assert ensemble.energies.tolist() == [0.0]
    assert ensemble.weights.tolist() == [1.0]
    assert sorted((found.id, found.reason) for found in refused) == sorted(
        [
            (STEREO, "changed connectivity"),
            (STEREO, "not finite"),
            (STEREO, "wrong configuration"),
            (STEREO, "broken row"),
            (STEREO, "other atoms"),
            ("CC.O", "unusable SMILES"),
            ("CCCC", "other atoms"),
            ("CCCC", "no conformer left"),
            ("C", "no conformer left"),
        ]
    )
    assert any("conformer 3" in found.detail for found in refused)


def test_corrected_smiles(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "g", {"CC[O]": [entry(shuffled(ETHANOL, 1)[0], 0.0, 1.0)]})
    refused: list[Rejected] = []
    assert not list(read_rdkit_folder(folder, quarantine=refused.append))
    assert {found.reason for found in refused} == {"other atoms", "no conformer left"}
    corrected = {"CC[O]": ETHANOL}
    (found,) = read_rdkit_folder(folder, quarantine=refused.append, corrected=corrected)
    assert found.smiles == ETHANOL


def test_hydrogens_follow_their_atoms_in_every_order_of_the_skeleton() -> None:
    """Against all matches that RDKit finds for the heavy atoms."""
    molecule = Chem.AddHs(Chem.MolFromSmiles("CC(C)(C)O"))
    bonds = Chem.GetAdjacencyMatrix(molecule).astype(bool)
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
    orders = geom_atoms.skeleton_orders(molecule, numbers, bonds)
    heavy = Chem.MolFromSmiles("CC(C)(C)O")
    assert len(orders) == len(heavy.GetSubstructMatches(heavy, uniquify=False)) == 6
    for order in orders:
        np.testing.assert_array_equal(numbers[order], numbers)
        np.testing.assert_array_equal(bonds[np.ix_(order, order)], bonds)


def test_two_hydrogens() -> None:
    molecule = Chem.AddHs(Chem.MolFromSmiles("[H][H]"))
    bonds = np.array([[False, True], [True, False]])
    orders = geom_atoms.skeleton_orders(molecule, np.array([1, 1]), bonds)
    assert sorted(map(tuple, orders)) == [(0, 1), (1, 0)]


class Attack:
    """Runs a command where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


class Import:
    def __reduce__(self) -> tuple[Any, ...]:
        return __import__, ("antigravity",)


class Shell:
    def __reduce__(self) -> tuple[Any, ...]:
        return subprocess.Popen, (["true"],)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_a_command_is_refused(tmp_path: Path, protocol: int) -> None:
    mark, path = tmp_path / "ran", tmp_path / "evil.pickle"
    with path.open("wb") as file:
        pickle.dump({"smiles": "C", "conformers": [Attack(mark)]}, file, protocol=protocol)
    with pytest.raises(BadInput, match=r"posix\.system.*nothing"):
        load_pickle(path)
    assert not mark.exists()
    with path.open("rb") as file:
        pickle.load(file)  # it would have run
    assert mark.exists()


@pytest.mark.parametrize("evil", [Import(), Shell(), eval, getattr, np.load, pickle.loads])
def test_other_names_are_refused(tmp_path: Path, evil: object) -> None:
    path = tmp_path / "evil.pickle"
    path.write_bytes(pickle.dumps([evil]))
    with pytest.raises(BadInput, match="refused"):
        load_pickle(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__class__\x93.",
        b"cnumpy\nndarray\n(K\x01tR.",
        b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(J\xff\xff\xff\x7ftC\x01btR.",
        b"crdkit.Chem.rdchem\nMol\n(X\x03\x00\x00\x00abctR.",
        b"crdkit.Chem.rdchem\nMol\n(C\x03abctR.",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00zlibtR.",
        b"P1\n.",
        b"not a pickle",
        b"",
    ],
)
def test_crafted_and_damaged_pickles(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "evil.pickle"
    path.write_bytes(content)
    if content.startswith(b"cnumpy\nndarray"):
        assert load_pickle(path).shape == (1,)  # an array is no harm
        return
    with pytest.raises(BadInput, match="evil"):
        load_pickle(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_harmless_content_is_kept(tmp_path: Path, protocol: int) -> None:
    molecule = shuffled(ETHANOL, 1)[0]
    content = {
        "mol": molecule,
        "array": np.arange(6.0).reshape(2, 3),
        "turned": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "objects": np.array([None, "x"], dtype=object),
        "scalar": np.float64(1.5),
        "set": {1, 2},
        "nested": [(1, b"bytes", "text", None, True)],
    }
    path = tmp_path / "fine.pickle"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    found = load_pickle(path)
    assert Chem.MolToMolBlock(found["mol"]) == Chem.MolToMolBlock(molecule)
    assert found["scalar"] == 1.5
    assert found["objects"].tolist() == [None, "x"]
    assert found["nested"] == content["nested"]
    assert found["set"] == {1, 2}
    for name in ("array", "turned"):
        np.testing.assert_array_equal(found[name], content[name])


def test_a_bad_file_costs_one_molecule(tmp_path: Path) -> None:
    molecules = {ETHANOL: [entry(shuffled(ETHANOL, 1)[0], 0.0, 1.0)]}
    folder = write_folder(tmp_path / "g", molecules)
    mark = tmp_path / "ran"
    (folder / "qm9" / "evil.pickle").write_bytes(pickle.dumps(Attack(mark)))
    (folder / "qm9" / "cut.pickle").write_bytes((folder / "qm9" / "CCO.pickle").read_bytes()[:200])
    (folder / "qm9" / "list.pickle").write_bytes(pickle.dumps([1, 2]))
    summary = json.loads((folder / "summary_qm9.json").read_text())
    summary["CC"] = {"pickle_path": "qm9/CC.pickle"}
    (folder / "summary_qm9.json").write_text(json.dumps(summary))
    refused: list[Rejected] = []
    found = list(read_rdkit_folder(folder, quarantine=refused.append))
    assert [ensemble.smiles for ensemble in found] == [ETHANOL]
    assert not mark.exists()
    assert {(bad.id, bad.reason) for bad in refused} == {
        ("qm9/CC.pickle", "missing file"),
        ("evil.pickle", "unreadable file"),
        ("cut.pickle", "unreadable file"),
        ("list.pickle", "broken row"),
    }


def write_split(path: Path, parts: list[list[int]]) -> Path:
    content = np.empty(len(parts), dtype=object)
    for row, part in enumerate(parts):
        content[row] = np.array(part)
    np.save(path, content, allow_pickle=True)
    return path


def test_splits_count_sorted_files(tmp_path: Path) -> None:
    molecules = {s: [entry(shuffled(s, 1)[0], 0.0, 1.0)] for s in ("CCO", "CC", "CCC", "CO", "CN")}
    folder = write_folder(tmp_path / "g", molecules)
    parts = read_split(write_split(tmp_path / "split0.npy", [[3, 0], [4], [1, 2]]))
    found = {
        name: [e.smiles for e in read_rdkit_folder(folder, quarantine=print, rows=rows)]
        for name, rows in parts.items()
    }
    ordered = sorted(molecules, key=lambda smiles: f"{smiles}.pickle")
    assert found["train"] == [ordered[0], ordered[3]]
    assert found["val"] == [ordered[4]]
    assert found["test"] == [ordered[1], ordered[2]]
    with pytest.raises(BadInput, match="places below 5"):
        list(read_rdkit_folder(folder, quarantine=print, rows=[5]))
    (folder / "qm9" / "CO.pickle").unlink()
    with pytest.raises(BadInput, match="other molecules"):
        list(read_rdkit_folder(folder, quarantine=print, rows=[0]))


def test_split_files(tmp_path: Path) -> None:
    equal = write_split(tmp_path / "equal.npy", [[0, 1], [2, 3], [4, 5]])
    np.save(tmp_path / "plain.npy", np.arange(6).reshape(3, 2))
    for path in (equal, tmp_path / "plain.npy"):
        assert {k: v.tolist() for k, v in read_split(path).items()} == {
            "train": [0, 1],
            "val": [2, 3],
            "test": [4, 5],
        }
    mark = tmp_path / "ran"
    evil = np.empty(3, dtype=object)
    evil[0] = Attack(mark)
    np.save(tmp_path / "evil.npy", evil, allow_pickle=True)
    with pytest.raises(BadInput, match="refused"):
        read_split(tmp_path / "evil.npy")
    assert not mark.exists()
    for name, parts in {
        "two": [[0], [1]],
        "double": [[0], [1], [1]],
        "minus": [[-1], [1], [2]],
    }.items():
        with pytest.raises(BadInput, match="three lists"):
            read_split(write_split(tmp_path / f"{name}.npy", parts))
    (tmp_path / "cut.npy").write_bytes(equal.read_bytes()[:-20])
    (tmp_path / "none.npy").write_bytes(b"x")
    for name in ("cut.npy", "none.npy", "absent.npy"):
        with pytest.raises(BadInput, match=name):
            load_npy(tmp_path / name)


def test_msgpack_is_read_molecule_by_molecule(tmp_path: Path) -> None:
    """The first molecule comes before a later one is found to be cut off."""
    one, two = ({s: [entry(shuffled(s, 1)[0], 0.0, 1.0)]} for s in (ETHANOL, "CCC"))
    path = write_msgpack(tmp_path / "qm9_crude.msgpack", [{**one, **two}, one])
    whole = list(read_msgpack(path, quarantine=print))
    assert [ensemble.smiles for ensemble in whole] == [ETHANOL, "CCC", ETHANOL]
    with tarfile.open(tmp_path / "qm9_crude.msgpack.tar.gz", "w:gz") as archive:
        archive.add(path, arcname="qm9_crude.msgpack")
    again = list(read_msgpack(tmp_path / "qm9_crude.msgpack.tar.gz", quarantine=print))
    assert [ensemble.smiles for ensemble in again] == [ETHANOL, "CCC", ETHANOL]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 50])
    stream = read_msgpack(path, quarantine=print)
    assert next(stream).smiles == ETHANOL
    assert next(stream).smiles == "CCC"
    with pytest.raises(BadInput, match="truncated"):
        next(stream)
    path.write_bytes(b"\x93\x01\x02\x03")
    with pytest.raises(BadInput, match="no map"):
        next(read_msgpack(path, quarantine=print))
    with pytest.raises(BadInput, match="could not read"):
        next(read_msgpack(tmp_path / "absent.msgpack", quarantine=print))


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="found none"):
        next(read_rdkit_folder(tmp_path, quarantine=print))
