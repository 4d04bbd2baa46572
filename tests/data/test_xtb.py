"""GFN2-xTB: known energies, gradients, the optimiser, the program in a temporary folder."""

import gzip
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tblite")
pytest.importorskip("rdkit")

from scipy.optimize import minimize

from orbitdiff.data import descent
from orbitdiff.data.descent import BOHR, NotConverged, minimise
from orbitdiff.data.sources import data_root
from orbitdiff.data.xtb import HARTREE, relax, single_point
from orbitdiff.errors import BadInput, MissingExtra

WATER = np.array([8, 1, 1])
WATER_START = np.array([[0.0, 0.0, 0.1173], [0.0, 0.7572, -0.4692], [0.0, -0.7572, -0.4692]])
WATER_ENERGY = -5.070544439828
"""`xtb 6.5.1 --gfn 2 --opt tight` from this start."""

METHANOL = np.array([6, 8, 1, 1, 1, 1])
METHANOL_START = np.array(
    [
        [-0.72, 0.02, 0.0],
        [0.70, -0.12, 0.05],
        [-1.13, -0.98, 0.0],
        [-1.07, 0.55, 0.89],
        [-1.05, 0.56, -0.91],
        [1.05, 0.78, -0.02],
    ]
)


def test_water_has_the_energy_of_the_program() -> None:
    found = relax(WATER, WATER_START)
    assert found.energy == pytest.approx(WATER_ENERGY, abs=2e-6)
    bonds = np.linalg.norm(found.coords[1:] - found.coords[0], axis=1)
    np.testing.assert_allclose(bonds, 0.9584, atol=1e-3)


def test_charge_and_spin_change_the_energy() -> None:
    hydroxide = single_point(np.array([8, 1]), np.array([[0, 0, 0], [0, 0, 0.97]]), charge=-1)[0]
    radical = single_point(np.array([8, 1]), np.array([[0, 0, 0], [0, 0, 0.97]]), unpaired=1)[0]
    assert abs(hydroxide - radical) > 0.05


def test_gradient_is_the_derivative() -> None:
    _, gradient = single_point(METHANOL, METHANOL_START)
    step = 1e-3
    for atom, axis in ((0, 0), (1, 1), (5, 2)):
        ends = []
        for sign in (1, -1):
            moved = METHANOL_START.copy()
            moved[atom, axis] += sign * step
            ends.append(single_point(METHANOL, moved)[0])
        slope = (ends[0] - ends[1]) / (2 * step / BOHR)
        assert gradient[atom, axis] == pytest.approx(slope, abs=2e-5)


def test_minimum_is_that_of_another_optimiser() -> None:
    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        energy, gradient = single_point(METHANOL, flat.reshape(-1, 3) * BOHR)
        return energy, gradient.ravel()

    start = (METHANOL_START / BOHR).ravel()
    other = minimize(value, start, jac=True, method="BFGS", options={"gtol": 5e-5})
    found = relax(METHANOL, METHANOL_START)
    assert found.energy * HARTREE == pytest.approx(other.fun * HARTREE, abs=5e-3)
    assert np.linalg.norm(single_point(METHANOL, found.coords)[1]) < 5e-4


def test_atoms_at_one_place() -> None:
    with pytest.raises(NotConverged):
        relax(WATER, np.zeros((3, 3)))


def test_minimise_finds_the_shape_of_springs() -> None:
    ends = np.array([[0, 1], [0, 2], [1, 2]])
    lengths = np.array([1.8, 1.8, 2.9])

    def surface(points: np.ndarray) -> tuple[float, np.ndarray]:
        arrows = points[ends[:, 0]] - points[ends[:, 1]]
        now = np.linalg.norm(arrows, axis=1)
        gradient = np.zeros_like(points)
        pull = (now - lengths)[:, None] * arrows / now[:, None]
        np.add.at(gradient, ends[:, 0], pull)
        np.add.at(gradient, ends[:, 1], -pull)
        return float(0.5 * ((now - lengths) ** 2).sum()), gradient

    points, energy = minimise(surface, WATER, WATER_START / BOHR)
    assert energy == pytest.approx(0, abs=1e-7)
    found = np.linalg.norm(points[ends[:, 0]] - points[ends[:, 1]], axis=1)
    np.testing.assert_allclose(found, lengths, atol=1e-3)


def test_minimise_steps_back_from_a_place_without_energy() -> None:
    refused = 0

    def surface(points: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal refused
        if points[0, 0] < -0.3:
            refused += 1
            raise NotConverged("too far")
        flat = np.zeros_like(points)
        flat[0, 0] = 0.02 * points[0, 0]
        return 0.01 * float(points[0, 0] ** 2), flat

    start = WATER_START / BOHR + np.array([[0.8, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    points, energy = minimise(surface, WATER, start)
    assert energy == pytest.approx(0, abs=1e-5)
    assert abs(points[0, 0]) < 0.05
    assert refused


def test_minimise_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "ROUNDS", 2)
    monkeypatch.setattr(descent, "ROUND", 2)
    with pytest.raises(NotConverged, match="rounds"):
        relax(METHANOL, METHANOL_START * 1.15)


def test_energies_of_the_reference_file() -> None:
    root = data_root()
    path = root / "geom_qm9" / "xtb_test.jsonl.gz" if root else None
    if path is None or not path.is_file():
        pytest.skip("no xtb_test.jsonl.gz below ORBITDIFF_DATA")
    wanted = {"O=C1COC(=O)[C@H]1O", "N#C[C@@H]1OC[C@@]1(O)C#N", "NC(=O)[C@H]1CN1"}
    with gzip.open(path, "rt") as file:
        rows = [row for row in map(json.loads, file) if row["smiles"] in wanted]
    assert len(rows) == 3
    for row in rows:
        numbers = np.array(row["atomic_numbers"])
        found = [relax(numbers, np.array(coords)) for coords in row["coords"]]
        energies = np.array([minimum.energy for minimum in found]) * HARTREE
        np.testing.assert_allclose(energies - energies[0], row["energies_kcal"], atol=0.1)
        moved = [m.coords - np.array(c) for m, c in zip(found, row["coords"], strict=True)]
        assert np.abs(moved).max() < 0.05


def fake_program(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = folder / "bin" / "xtb"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")


def test_program_runs_in_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = (
        f'pwd > "{tmp_path}/where"; echo "$@" > "{tmp_path}/arguments"\n'
        "sed '2s/.*/ energy: -5.0705 gnorm: 0.0001 xtb: 6.5.1/' in.xyz > xtbopt.xyz"
    )
    fake_program(tmp_path, body, monkeypatch)
    monkeypatch.chdir(tmp_path)
    found = relax(WATER, WATER_START, charge=1, unpaired=2, engine="xtb")
    assert found.energy == -5.0705
    np.testing.assert_allclose(found.coords, WATER_START, atol=1e-9)
    assert "--gfn 2 --opt tight --chrg 1 --uhf 2" in (tmp_path / "arguments").read_text()
    assert not Path((tmp_path / "where").read_text().strip()).exists()
    assert sorted(os.listdir(tmp_path)) == ["arguments", "bin", "where"]


def test_program_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(tmp_path, "cp in.xyz xtbopt.xyz; echo no convergence >&2; exit 1", monkeypatch)
    with pytest.raises(NotConverged, match="no convergence"):
        relax(WATER, WATER_START, engine="xtb")


def test_missing_and_unknown_engines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="on the PATH"):
        relax(WATER, WATER_START, engine="xtb")
    with pytest.raises(BadInput, match="expected engine"):
        relax(WATER, WATER_START, engine="psi4")
    monkeypatch.setitem(sys.modules, "tblite.interface", None)
    with pytest.raises(MissingExtra, match="tblite"):
        relax(WATER, WATER_START)


@pytest.mark.skipif(shutil.which("xtb") is None, reason="the program xtb is not on the PATH")
def test_program_and_tblite_agree() -> None:
    by_program = relax(METHANOL, METHANOL_START, engine="xtb")
    by_tblite = relax(METHANOL, METHANOL_START)
    assert by_program.energy * HARTREE == pytest.approx(by_tblite.energy * HARTREE, abs=0.01)
