"""Files are written whole or not at all."""

import csv
from pathlib import Path

import pytest

from orbitdiff.export import write_csv


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [{"id": "a,b", "rmse": 0.1}, {"id": 'say "x"', "valid": True}]
    write_csv(rows, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert found == [
        {"id": "a,b", "rmse": "0.1", "valid": ""},
        {"id": 'say "x"', "rmse": "", "valid": "True"},
    ]


def test_named_columns_stand_there_without_a_row(tmp_path: Path) -> None:
    write_csv([], tmp_path / "rows.csv", columns=["id", "k"])
    assert (tmp_path / "rows.csv").read_bytes() == b"id,k\n"


def test_rows_that_cannot_be_written_leave_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id\na\n")
    with pytest.raises(ValueError, match="strange"):
        write_csv([{"id": "b"}, {"strange": 1}], path, columns=["id"])
    assert path.read_text() == "id\na\n"
    assert list(tmp_path.iterdir()) == [path]
