"""A killed worker costs the steps since the last checkpoint, and no more."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")
pytest.importorskip("psutil")
pytest.importorskip("pymatgen")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from bench_ray import prepared
from bench_restart import killed_training

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]
EVERY = 100


@pytest.fixture
def ray_ends() -> Iterator[None]:
    yield
    ray.shutdown()


@pytest.mark.usefixtures("ray_ends")
def test_at_most_one_interval_is_done_again(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    early, late = killed_training(data, tmp_path / "run", every=EVERY, moments=(0.5, 0.8))
    for kill, moment, whole in ((early, 0.5, 2), (late, 0.8, 4)):
        assert kill["resumed_from"] == whole * EVERY
        assert moment * EVERY <= kill["steps_redone"] <= EVERY
