"""Conformers of one molecule: known ensembles, stereochemistry, bookkeeping, failures."""

import csv
import gzip
import json
import math
from importlib.resources import files

import numpy as np
import pytest

pytest.importorskip("rdkit")

from rdkit import Chem
from rdkit.Chem.rdMolAlign import GetBestRMS

from orbitdiff.data import conformer_search
from orbitdiff.data.conformer_checks import (
    distinct,
    same_connectivity,
    same_stereo,
    with_conformers,
)
from orbitdiff.data.conformer_search import Failure, Found, SearchSettings, search
from orbitdiff.data.descent import NotConverged
from orbitdiff.data.sources import data_root
from orbitdiff.data.xtb import HARTREE, single_point
from orbitdiff.errors import BadInput

QUICK = SearchSettings(seeds=10, most_seeds=40, keep=10)
STEREO = [
    "C[C@H](O)[C@@H](C)O",
    "C[C@H](O)[C@H](C)O",
    "O[C@H]1C[C@@H](F)[C@@H]1C",
    "C[C@H]1CN1",
    "C[S@](=O)CC",
    "C/C=C/C",
    "C/C=C\\C",
    "[H]/N=C/O",
    "C/C=C/[C@H](C)O",
]


def built(smiles: str, **options: object) -> Found:
    found = search(smiles, **{"level": "mmff", "seed": 0, "settings": QUICK, **options})
    assert isinstance(found, Found), found
    return found


def molecule(smiles: str) -> Chem.Mol:
    return Chem.AddHs(Chem.MolFromSmiles(smiles))


def dihedral(points: np.ndarray) -> float:
    """Of four points, degrees."""
    a, b, c = np.diff(points, axis=0)
    left, right = np.cross(a, b), np.cross(b, c)
    turn = np.dot(np.cross(left, right), b / np.linalg.norm(b))
    return math.degrees(math.atan2(turn, np.dot(left, right)))


@pytest.mark.parametrize("level", ["mmff", "xtb"])
def test_butane_is_anti_and_two_mirrored_gauches(level: str) -> None:
    if level == "xtb":
        pytest.importorskip("tblite")
    ensemble = built("CCCC", level=level).ensemble
    angles = [dihedral(coords[:4]) for coords in ensemble.coords]
    assert abs(abs(angles[0]) - 180) < 1
    assert sorted(np.sign(angles[1:])) == [-1, 1]
    assert all(60 < abs(angle) < 70 for angle in angles[1:])
    assert ensemble.energies[0] == 0
    assert ensemble.energies[1] == pytest.approx(ensemble.energies[2], abs=2e-3)
    assert 0.4 < ensemble.energies[1] < 1.0
    boltzmann = [math.exp(-energy / (1.987204e-3 * 298.15)) for energy in ensemble.energies]
    np.testing.assert_allclose(ensemble.weights, np.array(boltzmann) / sum(boltzmann), rtol=1e-4)


def test_rotamers_of_hydrogen_count() -> None:
    """Ethanol's heavy atoms are rigid: anti and gauche differ in the hydroxyl alone.

    The two gauche forms have one energy and the same heavy atoms: duplicates by definition.
    """
    ensemble = built("CCO", settings=SearchSettings()).ensemble
    angles = sorted(abs(dihedral(coords[[0, 1, 2, 8]])) for coords in ensemble.coords)
    assert len(angles) == 2
    assert 50 < angles[0] < 75
    assert angles[1] > 175


@pytest.mark.parametrize("smiles", STEREO)
@pytest.mark.parametrize("level", ["etkdg", "mmff"])
def test_every_stereocentre_is_as_written(smiles: str, level: str) -> None:
    """RDKit's own perception of the coordinates, on a molecule that lost its labels."""
    ensemble = built(smiles, level=level).ensemble
    wanted = Chem.MolToSmiles(Chem.MolFromSmiles(smiles))
    for coords in ensemble.coords:
        flat = with_conformers(molecule(smiles), coords[None])
        Chem.RemoveStereochemistry(flat)
        Chem.AssignStereochemistryFrom3D(flat)
        assert Chem.MolToSmiles(Chem.RemoveHs(flat)) == wanted


@pytest.mark.parametrize("smiles", STEREO)
def test_mirror_images_and_exchanged_groups_are_noticed(smiles: str) -> None:
    ensemble = built(smiles, level="etkdg").ensemble
    labelled = molecule(smiles)
    assert same_stereo(labelled, ensemble.coords).all()
    centres = [a for a in labelled.GetAtoms() if a.GetChiralTag() != Chem.CHI_UNSPECIFIED]
    bonds = [b for b in labelled.GetBonds() if b.GetStereo() != Chem.BondStereo.STEREONONE]
    assert centres or bonds
    mirrored = same_stereo(labelled, ensemble.coords * [1, 1, -1])
    assert not mirrored.any() if centres else mirrored.all()
    for atom in centres:
        one, other = (bond.GetOtherAtomIdx(atom.GetIdx()) for bond in atom.GetBonds()[:2])
        swapped = ensemble.coords.copy()
        swapped[:, [one, other]] = swapped[:, [other, one]]
        assert not same_stereo(labelled, swapped).any()
    for bond in bonds:
        other = Chem.Mol(labelled)
        turned = {Chem.BondStereo.STEREOE: Chem.BondStereo.STEREOZ}
        changed = other.GetBondWithIdx(bond.GetIdx())
        changed.SetStereo(turned.get(bond.GetStereo(), Chem.BondStereo.STEREOE))
        assert not same_stereo(other, ensemble.coords).any()


def test_open_configuration_takes_any() -> None:
    labels = set()
    for coords in built("CC(F)CO").ensemble.coords:
        placed = with_conformers(molecule("CC(F)CO"), coords[None])
        Chem.AssignStereochemistryFrom3D(placed)
        labels.add(Chem.MolToSmiles(Chem.RemoveHs(placed)))
    assert labels == {"C[C@@H](F)CO", "C[C@H](F)CO"}


def test_connectivity() -> None:
    water = molecule("OCCN")
    coords = built("OCCN", level="etkdg").ensemble.coords[:1]
    assert same_connectivity(water, coords).all()
    transferred = coords.copy()
    proton = next(a.GetIdx() for a in water.GetAtomWithIdx(0).GetNeighbors() if a.GetIdx() > 3)
    outwards = coords[0, 3] - coords[0, 2]
    transferred[0, proton] = coords[0, 3] + outwards / np.linalg.norm(outwards)
    stretched = coords.copy()
    stretched[0, proton] = 2.0 * coords[0, proton] - coords[0, 0]
    missing = np.full_like(coords, np.nan)
    for changed in (transferred, stretched, missing):
        assert not same_connectivity(water, changed).any()


@pytest.mark.parametrize("level", ["etkdg", "mmff", "xtb"])
def test_what_comes_out(level: str) -> None:
    if level == "xtb":
        pytest.importorskip("tblite")
    smiles = "C[C@H](F)CO"
    found = built(smiles, level=level)
    ensemble = found.ensemble
    assert ensemble.smiles == smiles
    numbers = [atom.GetAtomicNum() for atom in molecule(smiles).GetAtoms()]
    assert ensemble.atomic_numbers.tolist() == numbers
    assert ensemble.coords.shape == (len(ensemble.energies), len(numbers), 3)
    assert len(ensemble.energies) > 2
    assert (np.diff(ensemble.energies) >= 0).all()
    assert ensemble.energies[0] == 0
    assert ensemble.energies[-1] <= 6
    assert ensemble.weights.sum() == pytest.approx(1)
    rotatable = 2  # the hydroxyl turns, too
    assert len(ensemble.energies) + sum(found.dropped.values()) == 10 * 2**rotatable
    if level == "etkdg":
        assert not ensemble.energies.any()
        assert np.ptp(ensemble.weights) == 0
    heavy = Chem.RemoveHs(with_conformers(molecule(smiles), ensemble.coords))
    for i in range(len(ensemble.energies)):
        for j in range(i):
            near = abs(ensemble.energies[i] - ensemble.energies[j]) < 0.05
            assert not (near and GetBestRMS(Chem.Mol(heavy), heavy, i, j) < 0.125)


def test_seeds_grow_with_rotatable_bonds_up_to_a_limit() -> None:
    for smiles, number in (("CCCC", 20), ("CCCCC", 40), ("CCCCCC", 40)):
        found = built(smiles, level="etkdg")
        assert len(found.ensemble.coords) + sum(found.dropped.values()) == number


def test_keep_and_window_bound_the_ensemble() -> None:
    few = built("OCCCO", settings=SearchSettings(seeds=20, keep=3))
    assert len(few.ensemble.energies) == 3
    assert few.dropped["beyond keep"]
    near = built("OCCCO", settings=SearchSettings(seeds=10, window=0.5))
    assert near.dropped["out of window"]
    assert near.ensemble.energies[-1] <= 0.5


def test_the_result_depends_on_seed_and_smiles_alone() -> None:
    first, again, other = (built("CCCO", seed=seed).ensemble for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.coords, again.coords)
    assert first.coords.shape != other.coords.shape or not np.array_equal(
        first.coords, other.coords
    )


def test_symmetric_molecules_and_few_heavy_atoms() -> None:
    for smiles in ("O", "C", "[H][H]", "CC(C)(C)C", "c1ccccc1", "FC(F)(F)C(F)(F)F"):
        found = built(smiles, level="etkdg" if smiles == "[H][H]" else "mmff")
        assert len(found.ensemble.coords) == 1


def test_strained_cages_are_embedded_without_the_volume_test() -> None:
    """ETKDG with its test of volumes finds none of this cage, whatever the seed."""
    smiles = "C[C@]12OC[C@H]3[C@@H]4[C@H]3[C@H]1[C@@H]42"
    found = built(smiles)
    assert "not embedded" not in found.dropped
    placed = with_conformers(molecule(smiles), found.ensemble.coords[:1])
    Chem.RemoveStereochemistry(placed)
    Chem.AssignStereochemistryFrom3D(placed)
    assert Chem.MolToSmiles(Chem.RemoveHs(placed)) == Chem.MolToSmiles(Chem.MolFromSmiles(smiles))


@pytest.mark.parametrize(
    ("smiles", "reason", "detail"),
    [
        ("C1CC", "unusable SMILES", "expected a SMILES"),
        ("not a molecule", "unusable SMILES", "expected a SMILES"),
        ("", "unusable SMILES", "expected a SMILES"),
        ("CCO.O", "unusable SMILES", "several fragments"),
        ("C[Pt]C", "unusable SMILES", "Pt"),
        ("*CC", "unusable SMILES", "expected elements"),
        ("CB(C)C", "no MMFF94s parameters", "MMFF94s"),
        ("C[C@@H]1[C@]2(C)C[C@@]12C", "not embedded", "none of 10 seeds with 10 tries"),
        ("C1[C@@H]2O[C@H]2[C@H]2O[C@@H]12", "no conformer left", "wrong configuration 10"),
    ],
)
def test_a_molecule_without_ensemble_is_no_exception(smiles: str, reason: str, detail: str) -> None:
    found = search(smiles, level="mmff", seed=0, settings=QUICK)
    assert isinstance(found, Failure)
    assert found.reason == reason
    assert detail in found.detail


def test_time_limit() -> None:
    settings = SearchSettings(max_seconds=1e-9)
    found = search("CCO", level="mmff", seed=0, settings=settings)
    assert isinstance(found, Failure)
    assert found.reason == "time limit"


def test_conformers_that_xtb_refuses_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    relax, calls = conformer_search.relax, 0

    def sometimes(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise NotConverged("no")
        return relax(*arguments, **options)

    pytest.importorskip("tblite")
    monkeypatch.setattr(conformer_search, "relax", sometimes)
    assert built("CCCC", level="xtb").dropped["not converged"] == 1

    def never(*_: object, **__: object) -> object:
        raise NotConverged("no")

    monkeypatch.setattr(conformer_search, "relax", never)
    found = search("CCCC", level="xtb", seed=0, settings=QUICK)
    assert isinstance(found, Failure)
    assert found.reason == "not converged"


def test_unknown_level() -> None:
    with pytest.raises(BadInput, match="expected level"):
        search("CCO", level="dft", seed=0)


def test_the_shipped_list() -> None:
    text = (files("orbitdiff") / "data" / "resources" / "demo_smiles.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert len({row["smiles"] for row in rows}) == len(rows) >= 240
    kinds: dict[str, int] = {}
    for row in rows:
        parsed = Chem.MolFromSmiles(row["smiles"])
        assert parsed.GetNumHeavyAtoms() <= 8
        assert {atom.GetSymbol() for atom in parsed.GetAtoms()} <= set("CHNOF")
        assert Chem.MolToSmiles(parsed) == row["smiles"]
        kinds[row["kind"]] = kinds.get(row["kind"], 0) + 1
    assert kinds["stereocentres"] >= 30
    assert kinds["double bond"] >= 30
    assert kinds["symmetric"] >= 20


def reference() -> dict[str, dict]:
    root = data_root()
    path = root / "geom_qm9" / "xtb_test.jsonl.gz" if root else None
    if path is None or not path.is_file():
        pytest.skip("no xtb_test.jsonl.gz below ORBITDIFF_DATA")
    with gzip.open(path, "rt") as file:
        return {row["smiles"]: row for row in map(json.loads, file)}


def test_shipped_molecules_are_no_test_molecules() -> None:
    root = data_root()
    path = root / "geom_qm9" / "test_smiles.csv" if root else None
    if path is None or not path.is_file():
        pytest.skip("no test_smiles.csv below ORBITDIFF_DATA")
    text = (files("orbitdiff") / "data" / "resources" / "demo_smiles.csv").read_text()
    shipped = {
        Chem.MolToSmiles(Chem.MolFromSmiles(row["smiles"]), isomericSmiles=False)
        for row in csv.DictReader(text.splitlines())
    }
    for row in csv.DictReader(path.read_text().splitlines()):
        for column in ("smiles", "corrected_smiles"):
            parsed = Chem.MolFromSmiles(row[column])
            if parsed is not None:
                assert Chem.MolToSmiles(parsed, isomericSmiles=False) not in shipped


def test_checks_pass_the_reference_ensembles() -> None:
    for smiles, row in list(reference().items())[:150]:
        coords = np.array(row["coords"])
        assert same_connectivity(molecule(smiles), coords).all(), smiles
        assert same_stereo(molecule(smiles), coords).all(), smiles
        kept = distinct(
            molecule(smiles),
            coords,
            np.array(row["energies_kcal"]),
            energy=0.04,
            rmsd=0.12,
            most=99,
        )
        assert len(kept) == len(coords), smiles


@pytest.mark.parametrize(
    "smiles",
    [
        "N#C[C@@H]1OC[C@@]1(O)C#N",
        "O=C1COC(=O)[C@H]1O",
        "NC(=O)[C@H]1CN1",
        "O[C@@]12CN3[C@H]4[C@@H]1N[C@@H]2[C@H]43",
        "CO[C@H]1C=CC[C@@]12CO2",
        "N#C[C@@]1(N)C=CCCC1",
    ],
)
def test_the_builder_makes_the_reference_ensembles(smiles: str) -> None:
    """Every conformer of the file, by absolute and relative GFN2 energy."""
    pytest.importorskip("tblite")
    row = reference()[smiles]
    ensemble = built(smiles, level="xtb", settings=SearchSettings()).ensemble
    theirs, ours = np.array(row["energies_kcal"]), ensemble.energies
    apart = np.abs(theirs[:, None] - ours)
    numbers = ensemble.atomic_numbers
    absolute = [
        single_point(numbers, np.array(coords[0]))[0] for coords in (row["coords"], ensemble.coords)
    ]
    assert abs(absolute[0] - absolute[1]) * HARTREE < 0.1
    pair = with_conformers(
        molecule(smiles), np.concatenate([ensemble.coords, np.array(row["coords"])])
    )
    heavy = Chem.RemoveHs(pair)
    for j in range(len(theirs)):
        rmsd = [GetBestRMS(Chem.Mol(heavy), heavy, i, len(ours) + j) for i in range(len(ours))]
        assert (np.array(rmsd) < 0.125)[apart[j] < 0.1].any(), (j, rmsd, apart[j])
