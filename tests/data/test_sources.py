"""Registry, checksums, tables and split rules."""

import gzip
import urllib.error
import urllib.request
from hashlib import sha256
from pathlib import Path

import pytest

from orbitdiff.data.sources import SOURCES, Source, data_root, read_source
from orbitdiff.data.splits import RULES, hash_split
from orbitdiff.data.tables import read_cif_rows
from orbitdiff.errors import BadInput

CONTENT = b'material_id,cif\n1,"two\nlines"\n2,b\n'


def source(url: str | None = None) -> Source:
    return Source("t.csv", "crystals/t.csv.gz", sha256(CONTENT).hexdigest(), "MIT", "here", url)


def stored(root: Path, content: bytes) -> Path:
    path = root / "crystals" / "t.csv.gz"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return root


def test_row_numbers_do_not_change_the_checksum(tmp_path: Path) -> None:
    numbered = b'index,material_id,cif\n7,1,"two\nlines"\n9,2,b\n'
    unnamed = numbered.replace(b"index", b"")
    for content in (CONTENT, numbered, unnamed, unnamed.replace(b"b\n", b"b\r\n")):
        assert read_source(source(), stored(tmp_path, gzip.compress(content))) == CONTENT


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected sha256"):
        read_source(source(), stored(tmp_path, gzip.compress(CONTENT.replace(b"b", b"c"))))
    with pytest.raises(BadInput, match="truncated"):
        read_source(source(), stored(tmp_path, gzip.compress(CONTENT)[:-9]))


def test_offline_says_how_to_set_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> object:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(BadInput, match=r"offline.*ORBITDIFF_DATA"):
        read_source(source("https://example.invalid/t.csv"), None)
    with pytest.raises(BadInput, match=r"not published.*ORBITDIFF_DATA"):
        read_source(source(), None)


def test_variable_that_names_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ORBITDIFF_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(BadInput, match="ORBITDIFF_DATA"):
        data_root()
    monkeypatch.setenv("ORBITDIFF_DATA", str(tmp_path))
    assert data_root() == tmp_path


def test_rules_name_registered_files() -> None:
    for dataset, rule in RULES.items():
        used = {part.file for parts in rule.parts.values() for part in parts}
        assert used == {found.name for found in SOURCES[dataset]}
        assert all(found.licence and len(found.sha256) == 64 for found in SOURCES[dataset])


def test_real_splits_do_not_share_rows() -> None:
    root = data_root()
    if root is None:
        pytest.skip("needs ORBITDIFF_DATA")
    rule = RULES["perov_5"]
    rows: dict[str, list[str]] = {}
    for split, parts in rule.parts.items():
        rows[split] = []
        for part in parts:
            found = next(one for one in SOURCES["perov_5"] if one.name == part.file)
            text = gzip.decompress((root / found.path).read_bytes()).decode()
            column = text.splitlines()[0].split(",").index("material_id")
            ids = [
                line.split(",")[column] for line in text.splitlines()[1:] if "# generated" in line
            ]
            rows[split] += ids[part.start : part.stop]
    assert {split: len(ids) for split, ids in rows.items()} == rule.rows
    assert len({id for ids in rows.values() for id in ids}) == 3811 + 1000 + 3785


def test_hash_split_shares_and_determinism() -> None:
    ids = [f"crystal-{index}" for index in range(4000)]
    splits = [hash_split(id) for id in ids]
    assert splits == [hash_split(id) for id in ids]
    for split, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert abs(splits.count(split) / 4000 - share) < 0.03
    assert splits != [hash_split(id, seed=1) for id in ids]
    with pytest.raises(BadInput):
        hash_split("a", seed=-1)


def test_tables(tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    table.write_bytes(CONTENT)
    rows = [("1", "two\nlines"), ("2", "b")]
    assert read_cif_rows(table) == rows
    packed = tmp_path / "own.csv.gz"
    packed.write_bytes(gzip.compress(CONTENT))
    assert read_cif_rows(packed) == rows
    table.write_text("cif,other\na,1\nb,2\n")
    assert read_cif_rows(table) == [("row-1", "a"), ("row-2", "b")]
    folder = tmp_path / "cifs"
    folder.mkdir()
    with pytest.raises(BadInput, match=r"\*\.cif"):
        read_cif_rows(folder)
    (folder / "b.cif").write_text("B")
    (folder / "a.CIF").write_text("A")
    assert read_cif_rows(folder) == [("a", "A"), ("b", "B")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"id,text\n1,2\n", "column 'cif'"),
        ("a.csv", b"", "column 'cif'"),
        ("a.csv", b"id,cif\n", "empty data set"),
        ("a.csv.gz", gzip.compress(CONTENT * 9, mtime=0)[:-12], "truncated"),
        ("a.csv.gz", CONTENT, "no gzip"),
        ("a.csv", b"id,cif\n1,\xff\xfe\n", "no readable csv"),
    ],
)
def test_bad_tables(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadInput, match=message):
        read_cif_rows(path)


def test_missing_table(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="found none"):
        read_cif_rows(tmp_path / "none.csv")
