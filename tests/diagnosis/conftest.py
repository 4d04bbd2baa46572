"""Small problems, and few elements, so that a level takes milliseconds."""

import numpy as np
import pytest

from orbitdiff.diagnosis import Problem, Settings, measure, pose
from orbitdiff.diagnosis.structure import Collection, Structure


@pytest.fixture
def few_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    """K = 16 and 64 alone."""
    monkeypatch.setattr(measure, "COUNTS", (16, 64))


def clouds(*, num: int = 5, points: int = 6) -> Collection:
    rng = np.random.default_rng(0)
    return Collection(tuple(Structure(f"c{i}", rng.normal(size=(points, 3))) for i in range(num)))


def cells(*, num: int = 5, points: int = 4) -> Collection:
    rng = np.random.default_rng(1)
    return Collection(
        tuple(Structure(f"c{i}", rng.random((points, 3))) for i in range(num)), periodic=True
    )


def posed(collection: Collection, low: float, high: float, **settings) -> Problem:
    """A problem of two levels."""
    return pose(collection, Settings(sigma_min=low, sigma_max=high, levels=2, **settings))
