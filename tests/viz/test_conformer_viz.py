"""Pictures of conformers: superposition against enumeration, what is drawn, standalone pages."""

import itertools
import re

import numpy as np
import pytest

pytest.importorskip("rdkit")
pytest.importorskip("matplotlib")

from PIL import Image
from scipy.spatial.transform import Rotation

from orbitdiff.data.conformer_rows import parsed_smiles
from orbitdiff.errors import BadInput
from orbitdiff.metrics.rmsd import heavy_atoms
from orbitdiff.viz import conformer_curves as curves
from orbitdiff.viz.conformer_view import overlay_fragment, sticks
from orbitdiff.viz.conformers import draw_overlays
from orbitdiff.viz.interactive import write_view
from orbitdiff.viz.molecule_scene import colour, overlay, radius, superpose, symbol

SYMMETRIC = "CC(C)(C)O"
ALIKE = (0, 2, 3)
"""Atoms of SYMMETRIC that are images of each other."""
CHIRAL = "C[C@H](N)O"


def points(smiles, *, seed=0, num=1):
    size = parsed_smiles(smiles).GetNumAtoms()
    return 2 * np.random.default_rng(seed).normal(size=(num, size, 3))


def moved(x, *, seed=0):
    turn = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    return x @ turn.T + np.array([3.0, -1.0, 2.0])


def volume(x):
    return np.linalg.det(x[1:4] - x[0])


def test_superposition_finds_the_symmetry_and_turns_all_atoms():
    atoms = heavy_atoms(parsed_smiles(SYMMETRIC))
    truth = points(SYMMETRIC)[0]
    order = np.arange(len(truth))
    order[list(ALIKE)] = [2, 3, 0]
    placed = superpose(moved(truth[order]), truth, atoms)
    np.testing.assert_allclose(placed, truth[order], atol=1e-6)


def test_superposition_is_the_best_of_all_enumerated_ones():
    atoms = heavy_atoms(parsed_smiles(SYMMETRIC))
    truth, probe = points(SYMMETRIC)[0], points(SYMMETRIC, seed=1)[0]
    placed = superpose(probe, truth, atoms)[atoms.indices]
    images, best = [], np.inf
    x = probe[atoms.indices] - probe[atoms.indices].mean(0)
    for image in itertools.permutations(ALIKE):
        order = atoms.indices.copy()
        order[list(ALIKE)] = image
        y = truth[order] - truth[atoms.indices].mean(0)
        turn, _ = Rotation.align_vectors(y, x)
        best = min(best, float(np.square(turn.apply(x) - y).sum()))
        images.append(float(np.square(placed - truth[order]).sum()))
    assert min(images) == pytest.approx(best, rel=1e-6)


def test_a_mirror_image_stays_one():
    atoms = heavy_atoms(parsed_smiles(CHIRAL))
    truth = points(CHIRAL)[0]
    placed = superpose(truth * np.array([1, 1, -1.0]), truth, atoms)
    assert volume(placed) == pytest.approx(-volume(truth), rel=1e-6)
    assert np.abs(placed - truth).max() > 0.1


def test_the_typical_conformer_on_its_nearest_reference():
    reference = points(CHIRAL, num=3)
    heavy = heavy_atoms(parsed_smiles(CHIRAL)).indices
    wobble = np.random.default_rng(5).normal(size=reference[0].shape)
    scales = [0.4, 0.02, 0.1, 0.01]  # the lower median is 0.02
    made = np.stack([moved(reference[2] + s * wobble, seed=i) for i, s in enumerate(scales)])
    shown = overlay(CHIRAL, made, reference, note="best")
    gap = np.square(shown.generated - shown.reference)[heavy].sum(1).mean()
    assert shown.rmsd == pytest.approx(np.sqrt(gap), rel=1e-6)
    assert shown.rmsd < 0.02 * np.sqrt(np.square(wobble[heavy]).sum(1).mean())
    assert shown.rmsd > 0.01 * np.sqrt(np.square(wobble[heavy]).sum(1).mean())
    assert volume(shown.reference) == pytest.approx(volume(reference[2]), rel=1e-9)
    spread = np.cov(shown.reference.T)
    assert np.allclose(spread, np.diag(np.diag(spread)), atol=1e-9)
    assert np.all(np.diff(np.diag(spread)) <= 0)
    assert shown.verdict == f"RMSD {shown.rmsd:.3f} Å"
    with pytest.raises(BadInput, match="0 generated"):
        overlay(CHIRAL, made[:0], reference)


def test_elements_look_different():
    assert [symbol(z) for z in (1, 6, 17)] == ["H", "C", "Cl"]
    assert len({colour(z) for z in (1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53, 92)}) == 13
    assert radius(1) < radius(6) < radius(53)


@pytest.fixture(scope="module")
def overlays():
    return [
        overlay(smiles, points(smiles, seed=1, num=2), points(smiles, num=2), note="worst")
        for smiles in (CHIRAL, SYMMETRIC)
    ]


def test_both_conformers_are_in_the_picture(tmp_path, overlays):
    path = draw_overlays(overlays[:1], tmp_path / "m.png")
    picture = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).astype(int)
    red, green, blue = picture.T
    assert ((red > 200) & (green < 110) & (blue < 110)).sum() > 100  # oxygen
    assert ((blue - red > 60) & (green > 150)).sum() > 500  # the reference
    assert [p.name for p in tmp_path.iterdir()] == ["m.png"]
    with pytest.raises(BadInput):
        draw_overlays([], path)


def test_the_view_holds_all_molecules_and_loads_nothing(tmp_path, overlays):
    fragment = overlay_fragment(overlays)
    page = write_view(fragment, tmp_path / "m.html", title="two").read_text()
    assert "Plotly.newPlot" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    drawn = fragment[fragment.rindex("Plotly.newPlot") :]
    for side in ("reference", "generated"):
        assert drawn.count(f'"legendgroup":"{side}"') == 2 * len(overlays)
    for shown in overlays:
        assert f"{shown.smiles}  ({shown.verdict.split(' Å')[0]}" in drawn
    with pytest.raises(BadInput):
        overlay_fragment([])


def test_half_bonds_meet_in_the_middle(overlays):
    shown = overlays[0]
    x, y, z, tones = sticks(shown, shown.generated, "generated")
    assert len(x) == len(y) == len(z) == len(tones) == 6 * len(shown.bonds)
    places = np.array([x, y, z], dtype=float).T.reshape(len(shown.bonds), 2, 3, 3)
    assert np.isnan(places[:, :, 2]).all()
    ends = shown.generated[shown.bonds]
    np.testing.assert_allclose(places[:, :, 0], ends, atol=6e-4)
    np.testing.assert_allclose(places[:, :, 1], ends.mean(1, keepdims=True).repeat(2, 1), atol=6e-4)
    assert set(sticks(shown, shown.reference, "reference")[3]).isdisjoint(tones)


@pytest.fixture
def drawn(monkeypatch):
    """The figure that a function would have written."""
    kept = []
    monkeypatch.setattr(curves, "figure_file", lambda figure, path: kept.append(figure) or path)
    return kept


def test_every_seed_and_line_of_amr_is_drawn(tmp_path, drawn):
    blocks = [
        {"et_flow": {"amr_r_mean": [0.2, 0.3, 0.25], "amr_p_mean": []}},
        {"tuned": {"amr_r_mean": [0.1], "amr_p_mean": [0.15]}},
    ]
    curves.amr_by_arm(
        blocks, tmp_path / "a.png", lines={"RDKit": {"amr_r_mean": 0.22, "amr_p_mean": 0.24}}
    )
    left, right = drawn[0].axes[:2]
    dots = [line.get_xdata() for line in left.lines if line.get_marker() == "o"]
    assert [list(x) for x in dots] == [[0.2, 0.3, 0.25], [0.1]]
    assert [list(x.get_xdata()) for x in right.lines if x.get_marker() == "o"] == [[0.15]]
    assert [list(x.get_xdata()) for x in left.lines if x.get_label() == "RDKit"] == [[0.22, 0.22]]
    assert [label.get_text() for label in left.get_yticklabels()] == [
        "ET-Flow",
        "fine-tuned, plain",
    ]
    assert {text.get_text() for text in left.texts} == {"0.250", "0.100"}
    ticks = left.get_yticks()
    assert ticks[1] - ticks[0] > 1  # a gap between the blocks
    low, high = left.get_xlim()
    assert low < 0.1
    assert high > 0.3
    with pytest.raises(BadInput):
        curves.amr_by_arm([{}], tmp_path / "a.png", lines={})


def test_calls_are_averaged_over_seeds(tmp_path, drawn):
    def point(sampler, calls, value):
        return {"sampler": sampler, "calls": calls, "amr_r_mean": value, "amr_p_mean": 2 * value}

    arms = {
        "et_flow": [
            [point("Euler", 10, 0.2), point("Euler", 5, 0.4), point("Heun", 9, 0.1)],
            [point("Euler", 10, 0.4), point("Euler", 5, 0.6)],
        ],
        "unheard_of": [[{**point("Euler", 5, 0.3), "amr_p_mean": None}]],
    }
    curves.amr_by_calls(arms, tmp_path / "c.png")
    left, right = drawn[0].axes[:2]
    lines = {line.get_label(): line for line in left.lines}
    assert set(lines) == {"ET-Flow, Euler", "ET-Flow, Heun", "unheard_of, Euler"}
    assert list(lines["ET-Flow, Euler"].get_xdata()) == [5, 10]
    np.testing.assert_allclose(lines["ET-Flow, Euler"].get_ydata(), [0.5, 0.3])
    assert lines["ET-Flow, Euler"].get_linestyle() != lines["ET-Flow, Heun"].get_linestyle()
    assert "unheard_of, Euler" not in {line.get_label() for line in right.lines}
    with pytest.raises(BadInput):
        curves.amr_by_calls({}, tmp_path / "c.png")


def test_a_panel_per_coupling(tmp_path, drawn):
    def history(level):
        record = {"distance": {"0.1": level, "0.9": 2 * level}, "distance_mean": 1.5 * level}
        return [
            {"kind": "train", "step": 5, "loss": 3 * level},
            {"kind": "train", "step": 10, "loss": level},
            {"kind": "validation", "step": 10, **record},
        ]

    panels = {
        "independent": {"independent": [history(0.2), history(0.4)], "independent_exact": [[]]},
        "aligned": {"et_flow": [[]]},
    }
    curves.training_by_coupling(panels, tmp_path / "t.png")
    curves.distance_by_time(panels, tmp_path / "d.png")
    training, times = drawn
    loss, nothing, distance, _ = training.axes
    assert [axes.get_title(loc="left") for axes in (loss, nothing)] == ["independent", "aligned"]
    assert "no record" in {text.get_text() for text in nothing.texts}
    np.testing.assert_allclose(loss.lines[-1].get_ydata(), [0.9, 0.3])
    np.testing.assert_allclose(distance.lines[-1].get_ydata(), [0.45])
    middle = times.axes[0].containers[0].lines[0]
    np.testing.assert_allclose(middle.get_ydata(), [0.3, 0.6])
    np.testing.assert_allclose(middle.get_xdata(), [0.1, 0.9])
    for draw in (curves.training_by_coupling, curves.distance_by_time):
        with pytest.raises(BadInput):
            draw({}, tmp_path / "t.png")
