"""Maps of a sweep: every value stands in its cell, exact in a column of its own."""

from pathlib import Path
from typing import Any

import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle
from PIL import Image

from orbitdiff.errors import BadInput
from orbitdiff.viz.sweep import (
    PANELS,
    axes_of,
    draw_map,
    facets_of,
    levels,
    scale,
    sweep_maps,
    with_estimator_axis,
    written,
)

ERROR = PANELS[0]


def point(values: dict[str, Any], value: float | None, *, exact: bool = False) -> dict[str, Any]:
    figure = None if value is None else {"mean": value, "std": None, "seeds": 1}
    row = {"values": values, "exact": exact, "complete": value is not None}
    return {**row, **{panel.key: figure for panel in PANELS}}


def grid() -> list[dict[str, Any]]:
    made = [
        point({"num_samples": k, "temperature": t}, k + t / 10)
        for t in (4.0, 1.0)
        for k in (64, 4, 16)
    ]
    return [point({"num_samples": None, "temperature": None}, 3.0, exact=True), *made]


def drawn(points: list[dict[str, Any]], **changed: Any) -> Any:
    points = with_estimator_axis(points)
    across, up, _ = axes_of(points)
    _, axes = plt.subplots()
    norm = scale([1.0, 100.0])
    draw_map(axes, points, ERROR, norm, across, up, levels(points, across), levels(points, up))
    return axes


def cells(axes: Any) -> dict[tuple[str, str], str]:
    """What is written, by the labels of column and row."""
    columns = dict(
        zip(axes.get_xticks(), [t.get_text() for t in axes.get_xticklabels()], strict=True)
    )
    rows = dict(zip(axes.get_yticks(), [t.get_text() for t in axes.get_yticklabels()], strict=True))
    found = {}
    for text in axes.texts:
        x, y = text.get_position()
        column = next(label for place, label in columns.items() if abs(place - x) < 1e-9)
        found[column, rows.get(y, "between")] = text.get_text()
    return found


def test_every_value_stands_in_its_cell() -> None:
    found = cells(drawn(grid()))
    for k in (4, 16, 64):
        for t in (1.0, 4.0):
            assert float(found[str(k), str(t)]) == pytest.approx(k + t / 10, rel=5e-3)
    assert found["exact", "between"] == "3.00"
    assert len(found) == 7
    plt.close("all")


def test_numbers_are_in_order_and_words_as_they_came() -> None:
    points = grid()
    assert levels(points, "num_samples") == [4, 16, 64]
    words = [point({"kind": word}, 1.0) for word in ("uniform", "around")]
    assert levels(words, "kind") == ["uniform", "around"]
    assert levels(words, "nothing") == [None]


def test_the_lowest_error_has_a_frame_and_what_is_missing_is_hatched() -> None:
    points = grid()
    points[1] = point(points[1]["values"], None)
    axes = drawn(points)
    frames = [p for p in axes.patches if isinstance(p, Rectangle) and p.get_linewidth() == 2]
    assert len(frames) == 1
    middle = frames[0].get_x() + frames[0].get_width() / 2
    assert (round(middle), round(frames[0].get_y() + 0.44)) == (0, 0)
    hatched = [p for p in axes.patches if p.get_hatch()]
    assert [(round(p.get_x() + 0.5), round(p.get_y() + 0.5)) for p in hatched] == [(2, 1)]
    assert cells(axes)["64", "4.0"] == "–"
    plt.close("all")


def test_an_axis_without_effect_fills_its_direction() -> None:
    points = [
        point({"kind": "importance", "temperature": 1.0}, 1.0),
        point({"kind": "importance", "temperature": 2.0}, 2.0),
        point({"kind": "isir", "temperature": None}, 7.0),
        point({"kind": None, "temperature": None}, 3.0, exact=True),
    ]
    assert axes_of(points) == ("temperature", "kind", [])
    found = cells(drawn(points))
    assert found["1.0", "isir"] == found["2.0", "isir"] == "7.00"
    plt.close("all")


def test_axes_of_every_estimator_give_exact_a_value_in_each_row() -> None:
    points = [
        point({"train.learning_rate": rate}, 10 * rate, exact=exact)
        for rate in (0.1, 0.2)
        for exact in (True, False)
    ]
    found = cells(drawn(points))
    assert found == {
        ("sampled", "0.1"): "1.00", ("sampled", "0.2"): "2.00",
        ("exact", "0.1"): "1.00", ("exact", "0.2"): "2.00",
    }  # fmt: skip
    plt.close("all")


def test_further_axes_have_rows_of_maps() -> None:
    points = [point({"num_samples": None, "temperature": None, "proposal": None}, 1.0, exact=True)]
    points += [
        point({"num_samples": k, "temperature": 1.0, "proposal": p}, 2.0)
        for k in (4, 16)
        for p in ("uniform", "wrapped_normal")
    ]
    facets = facets_of(points, axes_of(points)[2])
    assert [name for name, _ in facets] == ["proposal uniform", "proposal wrapped_normal"]
    for name, mine in facets:
        assert {row["values"]["proposal"] for row in mine} == {None, name.split()[1]}


def test_colours_are_logarithmic_over_wide_ranges_alone() -> None:
    assert isinstance(scale([1.0, 10.0]), LogNorm)
    assert not isinstance(scale([1.0, 2.0]), LogNorm)
    assert not isinstance(scale([0.0, 10.0]), LogNorm)
    assert scale([2.0, 2.0])(2.0) == 0.0
    assert scale([]).vmin == 0.0
    assert [written(v) for v in (None, 0.0, 0.01234, 123.4, 1e-5, 123456.0)] == [
        "–", "0", "0.0123", "123", "1.0e-05", "1.2e+05",
    ]  # fmt: skip


def test_file_is_a_picture_of_four_maps(tmp_path: Path) -> None:
    path = sweep_maps(grid(), tmp_path / "maps.png", title="a sweep")
    with Image.open(path) as image:
        width, height = image.size
        assert width > 3 * height
        assert len(set(image.convert("L").getdata())) > 20
    assert [file.name for file in tmp_path.iterdir()] == ["maps.png"]
    with pytest.raises(BadInput, match="at least one point"):
        sweep_maps([], tmp_path / "none.png", title="")
