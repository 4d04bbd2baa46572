"""Structure files, written here by hand, to chains: what is kept and why the rest is not."""

import gzip
import io

import numpy as np
import pytest

pytest.importorskip("biotite")

from orbitdiff.data.protein_chain import Backbone, BackboneLimits, check_backbone, rg_ratio
from orbitdiff.data.protein_files import (
    fetch_entries,
    pdb_text,
    read_file,
    read_folder,
    read_trace,
    to_atom_array,
)
from orbitdiff.data.proteins import Rejected
from orbitdiff.errors import BadInput

NAMES = ["ALA", "GLY", "LEU", "LYS", "GLU", "SER", "VAL", "THR"]
LETTERS = "AGLKESVT"
ANY = BackboneLimits(min_length=1, max_length=300, max_rg_ratio=100.0)


def trace(length):
    """An ideal alpha helix."""
    turn = np.radians(100.0) * np.arange(length)
    points = np.stack([2.3 * np.cos(turn), 2.3 * np.sin(turn), 1.5 * np.arange(length)], 1)
    return points - points.mean(0)


def atom(serial, name, residue, chain, number, point, *, altloc=" ", insertion=" ", record="ATOM"):
    x, y, z = point
    return (
        f"{record:<6}{serial:5d}  {name:<3}{altloc}{residue:>3} {chain}{number:4d}{insertion}   "
        f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00 10.00          {name[0]:>2}"
    )


def lines(points, *, chain="A", names=None, first=1, atoms=("N", "CA", "C")):
    out = []
    for k, point in enumerate(points):
        residue = names[k] if names else NAMES[k % len(NAMES)]
        for shift, name in enumerate(atoms):
            place = point + np.array([0.5, 0, 0]) * (shift - atoms.index("CA"))
            out.append(atom(len(out) + 1, name, residue, chain, first + k, place))
    return out


def write(path, rows):
    path.write_text("\n".join([*rows, "END"]) + "\n")
    return path


def only(found):
    assert len(found) == 1
    return found[0]


def test_chains_of_one_file_in_order(tmp_path):
    a, b = trace(50), trace(44) + 40
    path = write(tmp_path / "two.pdb", lines(a, chain="B") + lines(b, chain="A", first=7))
    found = read_file(path, ANY)
    assert [chain.id for chain in found] == ["two_B", "two_A"]
    np.testing.assert_allclose(found[0].ca, a, atol=2e-3)
    np.testing.assert_allclose(found[1].ca, b - b.mean(0), atol=2e-3)
    assert found[0].sequence == (LETTERS * 7)[:50]
    assert found[0].ca.dtype == np.float32
    assert found[0].component != found[1].component
    again = read_file(write(tmp_path / "copy.pdb", lines(a @ np.diag([-1, -1, 1]))), ANY)
    assert again[0].component == found[0].component  # one sequence, one component


@pytest.mark.parametrize("suffix", [".cif", ".bcif", ".ent", ".cif.gz", ".pdb.gz", ".bcif.gz"])
def test_formats_agree(tmp_path, suffix):
    from biotite.structure.io import pdb, pdbx

    text = write(tmp_path / "x.pdb", lines(trace(45))).read_text()
    expected = only(read_file(tmp_path / "x.pdb", ANY))
    structure = pdb.PDBFile.read(io.StringIO(text)).get_structure(model=1)
    if suffix.startswith(".bcif"):
        file, stream = pdbx.BinaryCIFFile(), io.BytesIO()
        pdbx.set_structure(file, structure)
        file.write(stream)
        data = stream.getvalue()
    elif suffix.startswith(".cif"):
        file, stream = pdbx.CIFFile(), io.StringIO()
        pdbx.set_structure(file, structure)
        file.write(stream)
        data = stream.getvalue().encode()
    else:
        data = text.encode()
    path = tmp_path / f"x{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    found = only(read_file(path, ANY))
    assert (found.id, found.sequence) == (expected.id, expected.sequence)
    np.testing.assert_allclose(found.ca, expected.ca, atol=2e-3)


def test_first_alternate_location_and_first_model(tmp_path):
    points = trace(42)
    rows = lines(points, atoms=("CA",))
    where = points[10]
    rows[10:11] = [
        atom(11, "CA", "ALA", "A", 11, where, altloc="A"),
        atom(12, "CA", "ALA", "A", 11, where + np.array([0, 0, 0.4]), altloc="B"),
    ]
    other = lines(points + 5, atoms=("CA",))
    path = tmp_path / "m.pdb"
    write(path, ["MODEL        1", *rows, "ENDMDL", "MODEL        2", *other, "ENDMDL"])
    found = only(read_file(path, ANY))
    np.testing.assert_allclose(found.ca, points, atol=2e-3)


def test_two_residue_types_at_one_place_count_once(tmp_path):
    points = trace(42)
    rows = lines(points, atoms=("CA",))
    rows.insert(6, atom(99, "CA", "TRP", "A", 6, points[5] + 0.2, altloc="B"))
    found = only(read_file(write(tmp_path / "h.pdb", rows), ANY))
    assert len(found) == 42
    assert found.sequence[5] == LETTERS[5]


def test_water_ligands_calcium_and_nucleotides_are_no_residues(tmp_path):
    rows = lines(trace(41))
    far = np.array([30.0, 30, 30])
    rows += [
        atom(900, "O", "HOH", "A", 201, far, record="HETATM"),
        atom(901, "CA", " CA", "A", 202, far, record="HETATM"),
        atom(902, "P", " DA", "C", 1, far),
    ]
    found = only(read_file(write(tmp_path / "w.pdb", rows), ANY))
    assert len(found) == 41


def test_selenomethionine_is_methionine_other_residues_are_x(tmp_path):
    names = [NAMES[k % 8] for k in range(44)]
    names[3], names[5], names[9] = "MSE", "SEP", "DAL"
    path = write(tmp_path / "s.pdb", lines(trace(44), names=names))
    found = only(read_file(path, ANY))
    assert found.sequence[3] + found.sequence[5] + found.sequence[9] == "MXX"
    names[20] = "SEP"
    path = write(tmp_path / "s.pdb", lines(trace(44), names=names))
    refused = only(read_file(path, ANY))
    assert isinstance(refused, Rejected)
    assert refused.reason == "non-standard residues"


def test_the_longest_stretch_is_kept_if_it_is_most_of_the_chain(tmp_path):
    points = trace(60)
    tail = points.copy()
    tail[56:] += [30, 0, 0]
    found = only(read_file(write(tmp_path / "t.pdb", lines(tail)), ANY))
    assert len(found) == 56
    assert found.sequence == (LETTERS * 8)[:56]
    middle = points.copy()
    middle[30:] += [0, 0, 9]
    refused = only(read_file(write(tmp_path / "b.pdb", lines(middle)), ANY))
    assert (refused.id, refused.reason) == ("b_A", "chain break")
    assert "30 of 60" in refused.detail


def test_missing_atoms(tmp_path):
    points = trace(60)
    rows = [row for row in lines(points) if not (" CA " in row and int(row[22:26]) == 30)]
    refused = only(read_file(write(tmp_path / "m.pdb", rows), ANY))
    assert refused.reason == "missing atoms"
    assert "1 residues without CA" in refused.detail
    rows = [row for row in lines(points) if " CA " not in row]
    assert only(read_file(write(tmp_path / "n.pdb", rows), ANY)).reason == "missing atoms"
    # a residue without CA at the very end costs only itself
    rows = [row for row in lines(points) if not (" CA " in row and int(row[22:26]) == 60)]
    assert len(only(read_file(write(tmp_path / "e.pdb", rows), ANY))) == 59


@pytest.mark.parametrize(
    ("length", "reason"), [(1, "too short"), (39, "too short"), (257, "too long")]
)
def test_length_limits(tmp_path, length, reason):
    path = write(tmp_path / "l.pdb", lines(trace(length), atoms=("CA",)))
    assert only(read_file(path)).reason == reason
    assert len(only(read_file(path, ANY))) == length


def test_two_thousand_residues(tmp_path):
    """Laid out as a boustrophedon in a box: no clash, no break."""
    step, side = 3.8, 45
    walk, place, heading = [], np.zeros(3), 1.0
    for k in range(2000):
        walk.append(place.copy())
        turn = k % side == side - 1
        layer = k % (side * side) == side * side - 1
        place = place + (
            [0, 0, step] if layer else [0, step, 0] if turn else [heading * step, 0, 0]
        )
        heading = -heading if turn else heading
    path = write(tmp_path / "g.pdb", lines(np.array(walk), atoms=("CA",)))
    refused = only(read_file(path))
    assert refused.reason == "too long"
    assert "2000 residues" in refused.detail
    accepted = only(read_file(path, BackboneLimits(max_length=2000, max_rg_ratio=100.0)))
    assert len(accepted) == 2000


def test_clash_extended_chain_and_nan():
    def judge(ca, limits=ANY):
        return check_backbone(Backbone("x", ca.astype(np.float32), "A" * len(ca), "", ""), limits)

    folded = np.array([[0, 0, 0], [3.8, 0, 0], [3.8, 3.8, 0], [1.5, 3.8 - 3.0, 0]], dtype=float)
    assert judge(folded).reason == "clash"
    rod = np.arange(100)[:, None] * np.array([3.6, 0, 0])
    assert rg_ratio(rod) == pytest.approx(3.6 * np.sqrt((100**2 - 1) / 12) / (2.2 * 100**0.38))
    assert judge(rod, BackboneLimits()).reason == "extended chain"
    broken = trace(50)
    broken[4, 1] = np.nan
    assert judge(broken).reason == "NaN coordinates"


def test_unreadable_files_are_quarantined_one_by_one(tmp_path):
    write(tmp_path / "a_good.pdb", lines(trace(45)))
    (tmp_path / "b_empty.pdb").write_text("")
    (tmp_path / "c_noise.bcif").write_bytes(b"\x00\x01 no messagepack")
    (tmp_path / "d_cut.cif.gz").write_bytes(gzip.compress(b"data_x")[:10])
    (tmp_path / "e_text.cif").write_text("data_x\n_cell.length_a 3\n")
    write(tmp_path / "f_water.pdb", [atom(1, "O", "HOH", "A", 1, (0, 0, 0), record="HETATM")])
    (tmp_path / "notes.txt").write_text("not a structure")
    deep = tmp_path / "deep"
    deep.mkdir()
    write(deep / "a_good.pdb", lines(trace(46)))
    found = list(read_folder(tmp_path, ANY))
    kinds = {item.id: getattr(item, "reason", "accepted") for item in found}
    assert kinds == {
        "a_good_A": "accepted",
        "b_empty": kinds["b_empty"],
        "c_noise": "broken file",
        "d_cut": "broken file",
        "e_text": "broken file",
        "f_water": "no protein",
        "deep/a_good_A": "accepted",
    }
    assert kinds["b_empty"] in ("broken file", "no protein")
    with pytest.raises(BadInput, match="found none"):
        list(read_folder(tmp_path / "nowhere"))
    with pytest.raises(BadInput, match="b_empty"):
        read_trace(tmp_path / "b_empty.pdb")


def test_written_pdb_is_read_back(tmp_path):
    points = trace(64).astype(np.float32)
    sequence = (LETTERS * 8)[:63] + "X"
    path = tmp_path / "made.pdb"
    path.write_text(pdb_text(points, sequence))
    np.testing.assert_allclose(read_trace(path), points, atol=6e-4)
    assert only(read_file(path, ANY)).sequence == sequence
    atoms = to_atom_array(points, sequence)
    assert atoms.res_id.tolist() == list(range(1, 65))
    with pytest.raises(BadInput, match="one letter per residue"):
        to_atom_array(points, "AAA")


def test_fetching_asks_for_entries_and_reports_the_rest(tmp_path, monkeypatch):
    from biotite.database import rcsb

    asked = []

    def fetch(entry, kind, target_path):
        asked.append((entry, kind, target_path))
        if entry == "9zzz":
            raise OSError("no such entry")
        return f"{target_path}/{entry}.{kind}"

    monkeypatch.setattr(rcsb, "fetch", fetch)
    paths, rejected = fetch_entries(["1UBQ", "1ubq ", "9zzz", "../x"], tmp_path)
    assert paths == [tmp_path / "1ubq.bcif"]
    assert [item.reason for item in rejected] == ["not fetched", "no PDB entry"]
    assert [call[0] for call in asked] == ["1ubq", "9zzz"]
