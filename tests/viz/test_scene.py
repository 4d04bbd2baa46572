import dataclasses

import numpy as np
import pytest
from PIL import Image

from orbitdiff.data.crystals import Crystal
from orbitdiff.errors import BadInput
from orbitdiff.viz import curves, learning_panels
from orbitdiff.viz.crystals import camera, draw_comparisons
from orbitdiff.viz.scene import Comparison, align, colour, make_scene, radius, symbol

SITES = [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


@pytest.fixture
def perovskite():
    lattice = np.array([[3.0, 0, 0], [0.2, 4.4, 0], [0.1, 0.3, 6.5]])
    return Crystal("a", np.array([56, 22, 8, 8, 8]), np.array(SITES, dtype=float), lattice)


def test_corner_and_face_atoms_are_repeated(perovskite):
    scene = make_scene(perovskite)
    counts = {z: int((scene.numbers == z).sum()) for z in (56, 22, 8)}
    assert counts == {56: 8, 22: 1, 8: 6}
    lengths = np.linalg.norm(scene.edges[:, 0] - scene.edges[:, 1], axis=1)
    expected = np.repeat(np.linalg.norm(perovskite.lattice, axis=1), 4)
    assert np.allclose(np.sort(lengths), np.sort(expected))
    assert np.allclose(scene.positions[scene.numbers == 22], 0)


def test_a_match_is_drawn_in_the_true_setting(perovskite):
    order = [3, 0, 4, 1, 2]
    axes = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    frac = (perovskite.frac[order] @ axes.T + [0.1, 0.3, 0.2]) % 1
    made = Crystal("g", perovskite.atom_types[order], frac, axes @ perovskite.lattice)
    shown = align(made, perovskite)
    for z in (56, 22):
        mine = shown.frac[shown.atom_types == z]
        theirs = perovskite.frac[perovskite.atom_types == z]
        gap = mine - theirs
        assert np.abs(gap - gap.round()).max() < 1e-3
    assert np.allclose(shown.lattice, perovskite.lattice, atol=1e-3)


def test_a_miss_is_only_shifted(perovskite):
    rng = np.random.default_rng(1)
    made = dataclasses.replace(perovskite, frac=rng.random((5, 3)), lattice=np.diag([2.0, 4, 20]))
    shown = align(made, perovskite)
    assert np.array_equal(shown.lattice, made.lattice)
    shift = shown.frac - made.frac
    assert np.abs((shift - shift[0]) - (shift - shift[0]).round()).max() < 1e-12


def test_camera_is_a_rotation():
    view = camera()
    assert np.allclose(view @ view.T, np.eye(3))
    assert np.linalg.det(view) == pytest.approx(1)


def test_elements_have_colours():
    assert symbol(8) == "O"
    assert colour(8) == "#ff0d0d" or colour(8).startswith("#f")
    assert len({colour(z) for z in (1, 6, 7, 8, 22, 56)}) == 6
    assert all(0.25 <= radius(z) <= 0.75 for z in range(1, 100))


def test_picture_of_one_pair(tmp_path, perovskite):
    path = draw_comparisons([Comparison("a", 0, perovskite, perovskite, 0.0)], tmp_path / "c.png")
    picture = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    red = (picture[:, 0] > 200) & (picture[:, 1] < 80) & (picture[:, 2] < 80)
    assert red.sum() > 100  # oxygen
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.png"]
    with pytest.raises(BadInput):
        draw_comparisons([], path)


def test_curves_bear_absent_arms(tmp_path):
    record = {"kind": "validation", "step": 5, "distance": {"0.1": 0.2}, "distance_mean": 0.2}
    arms = {"plain": [[], [{"kind": "train", "step": 1}]], "exact": [[record]]}
    for draw in (curves.learning_curves, curves.distance_by_level):
        assert draw(arms, tmp_path / "a.png").stat().st_size > 5000
        assert draw({"plain": [[]]}, tmp_path / "b.png").stat().st_size > 2000
    for draw in (curves.ess_by_level, curves.calls_curve):
        with pytest.raises(BadInput):
            draw({} if draw is curves.ess_by_level else [], tmp_path / "c.png")


def test_learning_panels_share_axes_and_bear_absent_runs(tmp_path, monkeypatch):
    def history(*values):
        return [{"kind": "validation", "step": n, "distance": {}, "distance_mean": value}
                for n, value in enumerate(values, 1)]  # fmt: skip

    figures = []

    def keep(figure, path):
        figures.append(figure)
        return path

    monkeypatch.setattr(learning_panels, "figure_file", keep)
    groups = {
        "no text": {"plain": [history(0.4, 0.2), history(0.6, 0.4)], "exact": [[]]},
        "long text": {"exact": [history(0.3, 0.1)]},
    }
    learning_panels.learning_panels(groups, tmp_path / "a.png")
    first, second = figures[0].axes
    assert (first.get_title(), second.get_title()) == ("no text", "long text")
    thick = [line for line in first.get_lines() if line.get_linewidth() > 2]
    assert [list(line.get_ydata()) for line in thick] == [[0.5, pytest.approx(0.3)]]
    assert first.get_ylim() == second.get_ylim()
    assert [one.get_text() for one in first.get_legend().get_texts()] == ["plain (2 seeds)"]
    monkeypatch.undo()
    path = learning_panels.learning_panels({"no text": {"plain": [[]]}}, tmp_path / "b.png")
    assert path.stat().st_size > 2000
