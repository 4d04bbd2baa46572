"""Conformer files: round trips, foreign atom orders, rows that are left out; ETKDG."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

Chem = pytest.importorskip("rdkit.Chem")

from rdkit.Chem import rdDepictor, rdDistGeom

from orbitdiff.data.conformer_rows import atom_order, canonical_smiles
from orbitdiff.data.ensembles import (
    KT,
    read_ensembles,
    to_molecule,
    with_coords,
    write_ensembles,
)
from orbitdiff.data.etkdg import etkdg_conformers
from orbitdiff.data.molecules import Ensemble
from orbitdiff.errors import BadInput

ALANINE = "C[C@H](N)C(=O)O"
CAGE = "C[C@]12OC[C@H]3[C@@H]4[C@H]3[C@H]1[C@@H]42"


def embedded(smiles, num, seed=7):
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMultipleConfs(molecule, num, randomSeed=seed)
    return molecule


def ensemble(smiles, num, energies=None):
    molecule = embedded(smiles, num)
    coords = np.array([conformer.GetPositions() for conformer in molecule.GetConformers()])
    energies = np.zeros(num) if energies is None else np.array(energies)
    weights = np.exp(-energies / KT)
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
    return Ensemble(smiles, numbers, coords, energies, weights / weights.sum())


def bond_lengths(molecule, coords):
    """Sorted lengths by kind of bond: a wrong atom order changes them."""
    lengths = {}
    for bond in molecule.GetBonds():
        ends = bond.GetBeginAtom(), bond.GetEndAtom()
        kind = (*sorted(atom.GetSymbol() for atom in ends), bond.GetBondType())
        gap = coords[ends[0].GetIdx()] - coords[ends[1].GetIdx()]
        lengths.setdefault(kind, []).append(np.linalg.norm(gap))
    return np.concatenate([sorted(lengths[kind]) for kind in sorted(lengths, key=str)])


def sdf_of(molecule, path, *, name="", smiles=None):
    with Chem.SDWriter(str(path)) as writer:
        molecule.SetProp("_Name", name)
        if smiles:
            molecule.SetProp("smiles", smiles)
        for conformer in molecule.GetConformers():
            writer.write(molecule, confId=conformer.GetId())
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".sdf", ".sdf.gz"])
def test_round_trip(tmp_path, suffix):
    written = [ensemble(ALANINE, 3, [0.0, 0.5, 2.0]), ensemble("[H]/N=C(/C)N", 1)]
    path = tmp_path / f"made{suffix}"
    write_ensembles(written, path)
    found = read_ensembles(path)
    assert not found.rejected
    assert list(found.ensembles) == [canonical_smiles(one.smiles) for one in written]
    for one, other in zip(written, found.ensembles.values(), strict=True):
        assert other.smiles == one.smiles
        np.testing.assert_array_equal(other.atomic_numbers, one.atomic_numbers)
        np.testing.assert_allclose(other.coords, one.coords, atol=1e-4)
        np.testing.assert_allclose(other.energies, one.energies)
        np.testing.assert_allclose(other.weights, one.weights)
    assert [path.name for path in tmp_path.iterdir()] == [path.name]
    with path.open("rb") as file:
        assert (file.read(2) == b"\x1f\x8b") == suffix.endswith(".gz")


def test_writing_twice_gives_the_same_bytes(tmp_path):
    for name in ("a.sdf.gz", "b.sdf.gz"):
        write_ensembles([ensemble("CCO", 2)], tmp_path / name)
    first, second = (tmp_path / name for name in ("a.sdf.gz", "b.sdf.gz"))
    assert first.read_bytes() == second.read_bytes()
    assert gzip.decompress(first.read_bytes()).count(b"$$$$") == 2


def test_molecules_keep_order_charges_and_stereo():
    written = ensemble("C[C@H]([NH3+])C(=O)[O-]", 2)
    molecule = to_molecule(written)
    assert molecule.GetNumConformers() == 2
    assert [a.GetAtomicNum() for a in molecule.GetAtoms()] == written.atomic_numbers.tolist()
    assert {a.GetFormalCharge() for a in molecule.GetAtoms()} == {-1, 0, 1}
    Chem.AssignStereochemistryFrom3D(molecule)
    assert Chem.MolToSmiles(Chem.RemoveHs(molecule)) == canonical_smiles(written.smiles)


@pytest.mark.parametrize("how", ["property", "title", "graph"])
def test_another_atom_order_is_put_right(tmp_path, how):
    molecule = embedded(ALANINE, 2)
    order = np.random.default_rng(0).permutation(molecule.GetNumAtoms()).tolist()
    shuffled = Chem.RenumberAtoms(molecule, order)
    named = {"property": {"name": "x1", "smiles": ALANINE}, "title": {"name": ALANINE}}
    path = sdf_of(shuffled, tmp_path / "made.sdf", **named.get(how, {"name": "molecule 1"}))
    found = read_ensembles(path)
    assert list(found.ensembles) == [canonical_smiles(ALANINE)]
    (one,) = found.ensembles.values()
    target = Chem.AddHs(Chem.MolFromSmiles(one.smiles))
    assert one.atomic_numbers.tolist() == [atom.GetAtomicNum() for atom in target.GetAtoms()]
    for coords, conformer in zip(one.coords, molecule.GetConformers(), strict=True):
        expected = bond_lengths(molecule, conformer.GetPositions())
        np.testing.assert_allclose(bond_lengths(target, coords), expected, atol=3e-4)


def test_stereo_decides_between_equal_halves():
    """Renumbered meso compounds: the match must put R on R, which one of the graph alone may not."""
    meso = embedded("C[C@H](F)[C@H](F)C", 1)
    labels = Chem.FindMolChiralCenters(meso)
    assert {label for _, label in labels} == {"R", "S"}
    rng = np.random.default_rng(1)
    graph_alone = []
    for _ in range(20):
        shuffled = Chem.RenumberAtoms(meso, rng.permutation(meso.GetNumAtoms()).tolist())
        found = Chem.RenumberAtoms(shuffled, atom_order(shuffled, meso).tolist())
        assert Chem.FindMolChiralCenters(found) == labels
        match = list(shuffled.GetSubstructMatch(meso))
        graph_alone.append(Chem.FindMolChiralCenters(Chem.RenumberAtoms(shuffled, match)) == labels)
    assert not all(graph_alone)


def test_hydrogens_that_a_record_lacks_are_placed(tmp_path):
    molecule = Chem.RemoveHs(embedded(ALANINE, 1))
    path = sdf_of(molecule, tmp_path / "made.sdf", smiles=ALANINE)
    (one,) = read_ensembles(path).ensembles.values()
    assert one.coords.shape == (1, 13, 3)
    expected = molecule.GetConformer().GetPositions()
    np.testing.assert_allclose(one.coords[0, :6], expected, atol=1e-4)
    lengths = bond_lengths(Chem.AddHs(Chem.MolFromSmiles(ALANINE)), one.coords[0])
    assert lengths.min() > 0.9


def test_two_spellings_of_one_molecule_join(tmp_path):
    first, second = ensemble("CCO", 2), ensemble("OCC", 1)
    write_ensembles([first, second], tmp_path / "made.jsonl")
    (one,) = read_ensembles(tmp_path / "made.jsonl").ensembles.values()
    assert one.smiles == "CCO"
    assert one.coords.shape == (3, 9, 3)
    target = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    source = Chem.AddHs(Chem.MolFromSmiles("OCC"))
    expected = bond_lengths(source, second.coords[0])
    np.testing.assert_allclose(bond_lengths(target, one.coords[2]), expected, atol=1e-5)


def test_one_conformer_a_line_and_no_conformer(tmp_path):
    made = ensemble("CCO", 1)
    lines = [
        {"smiles": "CCO", "coords": made.coords[0].tolist()},
        {"smiles": "CCO", "coords": made.coords.tolist()},
        {"smiles": "CCC", "coords": []},
    ]
    path = tmp_path / "made.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_ensembles(path)
    assert not found.rejected
    assert {name: len(one.coords) for name, one in found.ensembles.items()} == {"CCO": 2}


def test_bad_lines_are_left_out_with_a_reason(tmp_path):
    good = ensemble("CCO", 2)
    coords = good.coords.tolist()
    broken = np.array(coords)
    broken[0, 3, 1] = np.nan
    lines = [
        json.dumps({"smiles": "CCO", "coords": coords}),
        "{",
        json.dumps(["CCO"]),
        json.dumps({"smiles": "CCO"}),
        json.dumps({"smiles": "C1CC", "coords": coords}),
        json.dumps({"smiles": "CCO.O", "coords": coords}),
        json.dumps({"smiles": 5, "coords": coords}),
        json.dumps({"smiles": "CCCO", "coords": coords}),
        json.dumps({"smiles": "CCO", "coords": [[["a", 0, 0]] * 9]}),
        json.dumps({"smiles": "CCO", "coords": [[[0, 0, 0]] * 8, [[0, 0, 0]] * 9]}),
        json.dumps({"smiles": "CCO", "coords": coords, "atomic_numbers": [8] + [6] * 8}),
        json.dumps({"smiles": "CCO", "coords": coords, "energies_kcal": [0.0]}),
        json.dumps({"smiles": "CCO", "coords": coords, "energies_kcal": ["x", "y"]}),
        json.dumps({"smiles": "CCO", "coords": broken.tolist()}),
    ]
    path = tmp_path / "made.jsonl"
    path.write_text("\n".join(lines) + "\n")
    found = read_ensembles(path)
    assert len(found.ensembles["CCO"].coords) == 3
    reasons = {}
    for row in found.rejected:
        reasons.setdefault(row.reason, []).append(row.row)
    assert reasons == {
        "no row with smiles and coords": [2, 3, 4],
        "molecule": [5, 6, 7],
        "coordinates": [8, 9, 10],
        "atom order": [11],
        "energies": [12, 13],
        "not finite": [14],
    }
    assert {row.smiles for row in found.rejected if row.row > 7} == {"CCO", "CCCO"}


def test_bad_records_are_left_out_with_a_reason(tmp_path):
    good = embedded("CCO", 1)
    text = Chem.MolToMolBlock(good)
    flat = Chem.Mol(good)
    rdDepictor.Compute2DCoords(flat)
    records = [
        text + "> <smiles>\nCCO\n\n",
        text + "> <smiles>\nCCN\n\n",
        text + "> <smiles>\nnonsense\n\n",
        Chem.MolToMolBlock(flat) + "> <smiles>\nCCO\n\n",
        "broken\n\n\n  1  0  0\nM  END\n> <smiles>\nOCC\n\n",
        text[: len(text) // 2],
    ]
    path = tmp_path / "made.sdf"
    path.write_text("$$$$\n".join(records))
    found = read_ensembles(path)
    assert len(found.ensembles["CCO"].coords) == 1
    assert [(row.row, row.smiles, row.reason) for row in found.rejected] == [
        (2, "CCN", "another molecule"),
        (3, "", "molecule"),
        (4, "CCO", "no 3D coordinates"),
        (5, "CCO", "unreadable record"),
        (6, "", "unreadable record"),
    ]


def test_a_proton_shifted_form_is_another_molecule():
    path = (
        Path(os.environ.get("ORBITDIFF_DATA", "../shared/data")) / "geom_qm9/geom_drugs_10.sdf.gz"
    )
    if not path.is_file():
        pytest.skip("needs ORBITDIFF_DATA")
    found = read_ensembles(path)
    assert len(found.ensembles) == 10
    assert sum(len(one.coords) for one in found.ensembles.values()) == 502
    assert [row.reason for row in found.rejected] == ["another molecule"]


def test_unusable_files(tmp_path):
    with pytest.raises(BadInput, match="found none"):
        read_ensembles(tmp_path / "missing.sdf")
    with pytest.raises(BadInput, match=r"expected \*.sdf"):
        read_ensembles(tmp_path / "made.xyz")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(BadInput, match="empty"):
        read_ensembles(tmp_path / "empty.jsonl")
    whole = tmp_path / "whole.jsonl.gz"
    write_ensembles([ensemble("CCO", 4)], whole)
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(BadInput, match="truncated"):
        read_ensembles(cut)
    (tmp_path / "plain.sdf.gz").write_text("no gzip")
    with pytest.raises(BadInput, match="no gzip"):
        read_ensembles(tmp_path / "plain.sdf.gz")


def test_a_failing_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "made.jsonl"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        write_ensembles(iter_and_fail(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def iter_and_fail():
    yield ensemble("CCO", 1)
    raise RuntimeError("stopped")


def test_etkdg_gives_different_conformers_of_the_right_isomer():
    coords = etkdg_conformers("CC[C@H](O)CCO", 6, seed=0)
    assert coords.shape == (6, 19, 3)
    spread = coords - coords.mean(1, keepdims=True)
    sizes = np.square(spread).sum((1, 2))
    assert len(np.unique(sizes.round(3))) > 3
    np.testing.assert_array_equal(coords, etkdg_conformers("CC[C@H](O)CCO", 6, seed=0))
    assert not np.array_equal(coords, etkdg_conformers("CC[C@H](O)CCO", 6, seed=1))
    found = to_molecule(with_coords(ensemble("CC[C@H](O)CCO", 1), coords))
    for number in range(6):
        Chem.AssignStereochemistryFrom3D(found, confId=number)
        assert Chem.MolToSmiles(Chem.RemoveHs(found)) == canonical_smiles("CC[C@H](O)CCO")


def test_etkdg_gives_up_on_a_strained_cage():
    assert etkdg_conformers(CAGE, 3, seed=0, max_tries=3).shape == (0, 19, 3)


def test_etkdg_keeps_what_it_has_when_its_time_is_over():
    found = etkdg_conformers("CCO", 10**6, seed=0, max_seconds=1)
    assert 0 < len(found) < 10**6
    assert found.shape[1:] == (9, 3)


def test_etkdg_refuses_bad_input():
    with pytest.raises(BadInput, match="at least one"):
        etkdg_conformers("CCO", 0, seed=0)
    with pytest.raises(BadInput, match="SMILES"):
        etkdg_conformers("C1CC", 2, seed=0)
