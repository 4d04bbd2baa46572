"""Rows of a served model: defaults, limits, and the text of a refusal."""

import pytest

pd = pytest.importorskip("pandas")

from orbitdiff.errors import BadInput
from pipelines.tracking.generators.requests import Request, as_refusals, read_requests


def test_missing_numbers_have_defaults() -> None:
    table = pd.DataFrame({"formula": ["NaCl", "MgO"], "n": [3, None], "seed": [None, 7]})
    assert read_requests(table, "formula") == [Request("NaCl", 3, 0), Request("MgO", 1, 7)]
    assert read_requests(table[["formula"]], "formula")[1] == Request("MgO", 1, 0)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"formula": ["NaCl"] * 65}, "at most 64 rows"),
        ({"formula": ["C" * 1001]}, "at most 1000 characters"),
        ({"formula": ["NaCl", "MgO"], "n": [200, 57]}, "at most 256 samples"),
        ({"formula": [None]}, "expected text in column formula of row 0"),
        ({"formula": ["NaCl", "  "]}, "row 1"),
        ({"formula": [7]}, "got 7"),
        ({"smiles": ["CCO"]}, "column formula"),
    ],
)
def test_limits(columns: dict[str, list[object]], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        read_requests(pd.DataFrame(columns), "formula")


def test_a_negative_number_does_not_make_room() -> None:
    table = pd.DataFrame({"formula": ["NaCl", "MgO"], "n": [-100, 257]})
    with pytest.raises(BadInput, match="257"):
        read_requests(table, "formula")


def test_samples_are_counted_for_each_thing_that_a_row_means() -> None:
    def things(text: str) -> int:
        return len(text.split(","))

    table = pd.DataFrame({"lengths": ["80", "60,80,100"], "n": [1, 85]})
    assert [found.n for found in read_requests(table, "lengths", things=things)] == [1, 85]
    table["n"] = [2, 85]
    with pytest.raises(BadInput, match="at most 256 samples in a request, got 257"):
        read_requests(table, "lengths", things=things)


def test_refusals_keep_their_text_and_status() -> None:
    exceptions = pytest.importorskip("mlflow.exceptions")
    with (
        pytest.raises(exceptions.MlflowException, match="no such element") as caught,
        as_refusals(),
    ):
        raise BadInput("no such element")
    assert caught.value.get_http_status_code() == 400
    with pytest.raises(KeyError), as_refusals():
        raise KeyError("a fault of ours")
