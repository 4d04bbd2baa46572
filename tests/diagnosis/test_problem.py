"""Which kernel, group and data go together, and which structures are left out."""

import numpy as np
import pytest

from orbitdiff.diagnosis import Settings, pose
from orbitdiff.diagnosis.structure import Collection, Skipped, Structure
from orbitdiff.errors import BadInput

from .conftest import cells, clouds, posed


def test_defaults_by_the_data():
    points = pose(clouds(), Settings())
    assert (points.kernel, points.arms.group) == ("gaussian", "rotation")
    assert points.noise.label == "noise level σ (Å)"
    torus = pose(cells(), Settings())
    assert (torus.kernel, torus.arms.group) == ("wrapped_normal", "translation")
    assert (torus.levels[0].noise, torus.levels[-1].noise) == pytest.approx((0.005, 0.5))
    assert len(points.x_0) == 256


@pytest.mark.parametrize(
    ("collection", "settings", "message"),
    [
        (cells(), {"kernel": "gaussian"}, "need a kernel among"),
        (clouds(), {"kernel": "wrapped_normal"}, "need a kernel among"),
        (clouds(), {"group": "translation"}, "not invariant under translation"),
        (cells(), {"group": "rotation"}, "not invariant under rotation"),
        (clouds(), {"kernel": "harmonic"}, "bonds are needed for kernel harmonic"),
        (clouds(), {"group": "rotation_automorphisms"}, "bonds are needed"),
        (clouds(), {"kernel": "laplace"}, "expected a kernel among"),
        (clouds(), {"group": "scaling"}, "expected a group among"),
        (clouds(), {"sigma_min": 2.0, "sigma_max": 1.0}, "sigma_min < sigma_max"),
        (clouds(), {"kernel": "flow", "sigma_min": 2.0, "sigma_max": 1.0}, "sigma-min < sigma-max"),
        (cells(), {"sigma_max": 0.9}, "at most 0.53"),
        (clouds(), {"levels": 1}, "at least 2"),
        (clouds(), {"kernel": "flow", "scale": 0.0}, "positive, finite scale"),
    ],
)
def test_what_does_not_go_together_is_refused(collection, settings, message):
    with pytest.raises(BadInput, match=message):
        pose(collection, Settings(**settings))


def test_no_samples_are_refused():
    with pytest.raises(BadInput, match="at least 1 sample"):
        Settings(samples=0)


def test_structures_that_cannot_be_used_are_listed():
    good = clouds().structures
    one = Structure("one", np.zeros((1, 3)))
    stacked = Structure("stacked", np.ones((4, 3)))
    problem = posed(Collection((*good, one, stacked), (Skipped("x", "why"),)), 0.1, 1.0)
    assert [found.name for found in problem.skipped] == ["x", "one", "stacked"]
    assert problem.num_structures == len(good)
    with pytest.raises(BadInput, match="2 left out, one: all points in one place"):
        posed(Collection((one, stacked)), 0.1, 1.0)


def test_fragments_have_no_harmonic_prior():
    chem = pytest.importorskip("rdkit.Chem")
    points = np.random.default_rng(0).normal(size=(2, 3))
    salt = Structure("salt", points, chem.MolFromSmiles("[Na+].[Cl-]"))
    ethane = Structure("ethane", points, chem.MolFromSmiles("CC"))
    problem = posed(Collection((salt, ethane)), 0.1, 1.0, kernel="harmonic")
    assert [found.reason for found in problem.skipped] == [
        "2 fragments, a harmonic prior needs one"
    ]


def test_samples_are_centred_and_every_structure_takes_part():
    problem = posed(clouds(num=5), 0.1, 1.0, samples=12)
    assert float(problem.x_0.mean(1).abs().max()) < 1e-6
    powers = problem.x_0.square().sum((1, 2)).tolist()
    assert len({round(power, 3) for power in powers}) == 5
