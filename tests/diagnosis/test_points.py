"""Files of a user: what is read, what is left out, and why."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from orbitdiff.diagnosis import read_structures
from orbitdiff.errors import BadInput

WATER = np.array([[0.0, 0.0, 0.1], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])


def frame(points: np.ndarray, symbols: str = "OHH") -> str:
    rows = [
        f"{s} {x:.6f} {y:.6f} {z:.6f} 0.5" for s, (x, y, z) in zip(symbols, points, strict=True)
    ]
    return f"{len(points)}\ncomment\n" + "\n".join(rows) + "\n"


def reasons(path: Path) -> dict[str, str]:
    return {found.name: found.reason for found in read_structures(path).skipped}


def test_xyz_frames_are_read_and_broken_ones_named(tmp_path: Path) -> None:
    file = tmp_path / "run.xyz"
    nan = frame(WATER).replace("0.760000", "nan")
    short = "3\n\nO 0 0\nH 0 0\nH 0 0\n"
    file.write_text(frame(WATER) + "\n" + nan + short + frame(2 * WATER) + "4\n\nC 0 0 0\n")
    found = read_structures(file)
    assert [structure.name for structure in found.structures] == [
        "run.xyz frame 1",
        "run.xyz frame 4",
    ]
    np.testing.assert_allclose(found.structures[1].points, 2 * WATER, atol=1e-6)
    assert [skipped.name[-1] for skipped in found.skipped] == ["2", "3", "5"]
    assert "no finite number" in found.skipped[0].reason
    assert "expected points (n, 3)" in found.skipped[1].reason
    assert "ends after 1" in found.skipped[2].reason


def test_xyz_may_be_packed_and_truncated_packs_are_named(tmp_path: Path) -> None:
    packed = gzip.compress(frame(WATER).encode() * 200, mtime=0)
    (tmp_path / "a.xyz.gz").write_bytes(packed)
    (tmp_path / "b.xyz.gz").write_bytes(packed[:-20])
    (tmp_path / "c.xyz").write_text("")
    found = read_structures(tmp_path)
    assert sum(s.name.startswith("a.xyz.gz") for s in found.structures) == 200
    assert {"b.xyz.gz", "c.xyz"} == {skipped.name for skipped in found.skipped}
    assert "holds no structure" in reasons(tmp_path)["c.xyz"]


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text(frame(WATER) * 5)
    found = read_structures(tmp_path / "a.xyz", most=3)
    assert len(found.structures) == 3
    assert not found.complete
    assert read_structures(tmp_path / "a.xyz", most=5).complete


def test_npz_forms(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dense, ragged = rng.normal(size=(4, 5, 3)), rng.normal(size=(9, 3)).astype(np.float32)
    mask = np.arange(5) < np.array([5, 2, 3, 1])[:, None]
    np.savez(tmp_path / "a.npz", anything=dense)
    np.savez(tmp_path / "b.npz", positions=dense, mask=mask, other=dense)
    np.savez(tmp_path / "c.npz", coords=ragged, offsets=np.array([0, 4, 9]), names=np.array(["x"]))
    residues = rng.normal(size=(6, 4, 3))
    np.savez(tmp_path / "d.npz", coords=residues, offsets=np.array([0, 2, 6]))
    np.savez(tmp_path / "e.npz", coords=ragged)
    read = {
        name: read_structures(tmp_path / f"{name}.npz").structures for name in ("a", "b", "c", "d")
    }
    np.testing.assert_array_equal(read["a"][2].points, dense[2])
    assert [len(s.points) for s in read["b"]] == [5, 2, 3, 1]
    assert [len(s.points) for s in read["c"]] == [4, 5]
    np.testing.assert_array_equal(read["d"][1].points, residues[2:].reshape(-1, 3))
    assert len(read_structures(tmp_path / "e.npz").structures[0].points) == 9


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"a": np.zeros((2, 3)), "b": np.zeros((2, 3))}, "expected one array"),
        ({"coords": np.zeros((2, 4, 3)), "mask": np.ones((2, 5))}, "expected a mask (2, 4)"),
        ({"coords": np.zeros((5, 3)), "offsets": np.array([0, 9])}, "expected offsets"),
        ({"coords": np.zeros((5, 3)), "offsets": np.array([0.0, 5.0])}, "expected offsets"),
        ({"coords": np.array([None])}, "numpy cannot read it"),
        ({"coords": np.zeros((2, 2, 2, 3))}, "expected (B, N, 3)"),
    ],
)
def test_bad_npz_is_named(tmp_path: Path, arrays: dict[str, np.ndarray], reason: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    (tmp_path / "good.xyz").write_text(frame(WATER))
    assert reason in reasons(tmp_path)["bad.npz"]


def test_a_file_that_is_no_npz_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"PK not a zip")
    (tmp_path / "good.xyz").write_text(frame(WATER))
    assert list(reasons(tmp_path)) == ["bad.npz"]


def test_sdf_keeps_hydrogens_and_names_what_rdkit_cannot_read(tmp_path: Path) -> None:
    chem = pytest.importorskip("rdkit.Chem")
    embed = pytest.importorskip("rdkit.Chem.AllChem").EmbedMolecule
    molecule = chem.AddHs(chem.MolFromSmiles("CCO"))
    embed(molecule, randomSeed=1)
    good = chem.MolToMolBlock(molecule)
    flat = chem.MolToMolBlock(chem.MolFromSmiles("CCO"))
    broken = good.replace(" C ", " Qq", 1)
    text = "".join(f"{block}$$$$\n" for block in (good, broken, flat, good))
    (tmp_path / "m.sdf").write_text(text)
    found = read_structures(tmp_path / "m.sdf")
    assert [s.name for s in found.structures] == ["m.sdf molecule 1", "m.sdf molecule 4"]
    assert len(found.structures[1].points) == 9
    assert found.structures[0].molecule.GetNumAtoms() == 9
    assert ["rdkit" in s.reason or "three dimensions" in s.reason for s in found.skipped] == [
        True,
        True,
    ]


def test_cif_folder_lists_bad_files(tmp_path: Path) -> None:
    core = pytest.importorskip("pymatgen.core")
    salt = core.Structure.from_spacegroup(
        "Fm-3m", core.Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    salt.to(filename=str(tmp_path / "salt.cif"))
    (tmp_path / "broken.cif").write_text("data_x\nnothing\n")
    (tmp_path / "notes.txt").write_text("notes")
    found = read_structures(tmp_path)
    assert found.periodic
    assert [s.points.shape for s in found.structures] == [(8, 3)]
    assert {s.name for s in found.skipped} == {"broken.cif", "notes.txt"}


def test_pdb_gives_ca_traces(tmp_path: Path) -> None:
    pytest.importorskip("biotite")
    atoms = [("N", 0.0), ("CA", 1.5), ("C", 2.5)]
    lines = [
        f"ATOM  {3 * i + j + 1:5d}  {name:<3s} ALA A{i + 1:4d}    "
        f"{x + 3.8 * i:8.3f}{0:8.3f}{0:8.3f}  1.00  0.00           {name[0]}"
        for i in range(4)
        for j, (name, x) in enumerate(atoms)
    ]
    (tmp_path / "p.pdb").write_text("\n".join(lines) + "\nEND\n")
    (structure,) = read_structures(tmp_path / "p.pdb").structures
    np.testing.assert_allclose(structure.points[:, 0], 1.5 + 3.8 * np.arange(4), atol=1e-4)


def test_empty_missing_unknown_mixed_and_unusable_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="found none"):
        read_structures(tmp_path)
    with pytest.raises(BadInput, match="found none"):
        read_structures(tmp_path / "nowhere")
    (tmp_path / "x.xyz").write_text("many\n")
    with pytest.raises(BadInput, match="no structure that can be used"):
        read_structures(tmp_path)
    (tmp_path / "y.cif").write_text("data_x\n")
    with pytest.raises(BadInput, match="a folder of its own"):
        read_structures(tmp_path)
