"""Pictures of chains: curves through the atoms, proper views, colours, standalone pages."""

import re

import numpy as np
import pytest

pytest.importorskip("biotite")

from PIL import Image

from orbitdiff.data.protein_chain import Backbone
from orbitdiff.errors import BadInput
from orbitdiff.metrics.backbones import ca_dihedrals
from orbitdiff.viz.backbones import (
    backbones_fragment,
    draw_dihedrals,
    draw_traces,
    facing,
    smooth,
    write_backbones,
)


def helix(length):
    turn = np.radians(100.0) * np.arange(length)
    return np.stack([2.3 * np.cos(turn), 2.3 * np.sin(turn), 1.5 * np.arange(length)], 1)


def chain(ca, name="x"):
    return Backbone(name, np.asarray(ca, dtype=np.float32), "G" * len(ca), name, name)


def test_curve_goes_through_the_atoms_and_is_exact_for_a_parabola():
    ca = helix(12)
    curve = smooth(ca, pieces=5)
    assert len(curve) == 11 * 5 + 1
    np.testing.assert_allclose(curve[::5], ca, atol=1e-12)
    k = np.arange(9.0)
    parabola = np.stack([k, k**2, 0 * k], 1)
    u = np.arange(8 * 4 + 1) / 4
    inner = slice(4, -4)  # the ends have no neighbour to take the slope from
    expected = np.stack([u, u**2, 0 * u], 1)
    np.testing.assert_allclose(smooth(parabola, pieces=4)[inner], expected[inner], atol=1e-12)
    assert smooth(ca[:1]).shape == (1, 3)


def test_views_are_proper_rotations_with_the_widest_axis_across():
    rng = np.random.default_rng(0)
    for _ in range(8):
        axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        ca = helix(30) @ axes.T * np.sign(np.linalg.det(axes)) + 7
        turned = facing(ca)
        np.testing.assert_allclose(ca_dihedrals(turned), ca_dihedrals(ca), atol=1e-6)
        np.testing.assert_allclose(turned.mean(0), 0, atol=1e-9)
        spread = turned.std(0)
        assert spread[0] >= spread[1] >= spread[2]


def test_traces_run_from_blue_to_red(tmp_path):
    path = draw_traces([chain(helix(40)), chain(helix(1))], tmp_path / "t.png", labels=["a", "b"])
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    red = (picture[..., 0] > picture[..., 2] + 80) & (picture[..., 0] > picture[..., 1] + 80)
    blue = (picture[..., 2] > picture[..., 0] + 40) & (picture[..., 2] > picture[..., 1] + 20)
    assert min(red.sum(), blue.sum()) > 100
    left, right = np.flatnonzero(red.any(0)).mean(), np.flatnonzero(blue.any(0)).mean()
    assert abs(left - right) > 50  # at either end of the rod
    assert [item.name for item in tmp_path.iterdir()] == ["t.png"]
    for backbones, labels in (([], None), ([chain(helix(5))], ["a", "b"])):
        with pytest.raises(BadInput, match="label"):
            draw_traces(backbones, path, labels=labels)


def test_dihedrals_of_sets_beside_natural_ones(tmp_path):
    rng = np.random.default_rng(0)
    noised = [chain(helix(40) + rng.normal(size=(40, 3)))]
    path = draw_dihedrals({"noised": noised}, [chain(helix(60))], tmp_path / "d.png")
    assert path.stat().st_size > 10_000
    with pytest.raises(BadInput, match="four residues"):
        draw_dihedrals({"short": [chain(helix(3))]}, [chain(helix(60))], path)


def test_the_page_needs_no_network_and_lists_every_chain(tmp_path):
    chains = [chain(helix(20), "first<1>"), chain(helix(30), "second")]
    path = write_backbones(chains, tmp_path / "b.html", title="two & more")
    text = path.read_text()
    assert "<title>two &amp; more</title>" in text
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)\s*=", text)
    assert "second (30 residues)" in text
    assert "G20" in text
    assert "G30" in text
    assert "my label" in backbones_fragment(chains, labels=["my label", "b"])
    with pytest.raises(BadInput, match="at least one chain"):
        backbones_fragment([])
