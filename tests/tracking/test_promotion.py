"""Champion and challenger on a registry of bare versions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlflow")

from orbitdiff.errors import BadInput
from pipelines.environment import prepare_environment
from pipelines.tracking.promotion import promote

prepare_environment()

pytestmark = pytest.mark.integration
NAME = "orbitdiff-crystals"
Make = Callable[..., str]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def client(database: str) -> Any:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    found = MlflowClient(tracking_uri=database)
    for model in found.search_registered_models():
        found.delete_registered_model(model.name)
    found.create_registered_model(NAME)
    try:
        found.create_experiment("crystals")
    except MlflowException:
        for run in found.search_runs([found.get_experiment_by_name("crystals").experiment_id]):
            found.delete_run(run.info.run_id)
    return found


@pytest.fixture
def make(client: Any, tmp_path: Path) -> Make:
    """Register a version: its training's metrics, its evaluation's, and its tags."""
    from mlflow.entities import Metric

    experiment = client.get_experiment_by_name("crystals").experiment_id

    def run(metrics: dict[str, float], **tags: str) -> str:
        made = client.create_run(experiment, tags=tags).info.run_id
        client.log_batch(made, metrics=[Metric(k, v, 0, 0) for k, v in metrics.items()])
        client.set_terminated(made)
        return str(made)

    def version(
        trained: dict[str, float], evaluated: dict[str, float] | None = None, **tags: str
    ) -> str:
        about = {"dataset": "perov_5", "data_manifest_sha256": "a", "preset": "cpu",
                 "estimator_name": "exact", "seed": "0", **tags}  # fmt: skip
        made = run(trained, stage="train", **about)
        if evaluated is not None:
            run(evaluated, stage="evaluate", **about)
        found = client.create_model_version(NAME, str(tmp_path), run_id=made)
        client.set_registered_model_alias(NAME, "newest", found.version)
        return str(found.version)

    return version


def alias(client: Any, name: str) -> str:
    return str(client.get_model_version_by_alias(NAME, name).version)


def test_the_better_one_becomes_champion_and_the_former_is_kept(client: Any, make: Make) -> None:
    make({"distance_mean": 0.5})
    first = promote(client, NAME, "distance_mean", better="lower")
    assert (first.promoted, first.champion) == (True, "1")
    again = promote(client, NAME, "distance_mean", better="lower")
    assert (again.promoted, again.champion) == (False, "1")
    make({"distance_mean": 0.6})
    worse = promote(client, NAME, "distance_mean", better="lower")
    assert (worse.promoted, alias(client, "champion")) == (False, "1")
    assert "0.6 against 0.5 of version 1" in worse.text
    make({"distance_mean": 0.4})
    assert not promote(client, NAME, "distance_mean", better="lower", margin=0.2).promoted
    assert promote(client, NAME, "distance_mean", better="lower", margin=0.05).promoted
    assert (alias(client, "champion"), alias(client, "former-champion")) == ("3", "1")
    # the other direction, and a version that is no longer the newest
    back = promote(client, NAME, "distance_mean", better="higher", challenger="2")
    assert (back.promoted, alias(client, "champion")) == (True, "2")
    assert "promoted_by" in client.get_model_version(NAME, "2").tags


def test_equal_figures_change_nothing(client: Any, make: Make) -> None:
    make({"x": 1.0})
    promote(client, NAME, "x", better="higher")
    make({"x": 1.0})
    assert not promote(client, NAME, "x", better="higher").promoted


def test_figures_of_the_evaluation_of_the_same_run(client: Any, make: Make) -> None:
    make({}, {"match_rate_all": 0.6}, seed="0")
    make({}, {"match_rate_all": 0.7}, seed="1")
    make({}, None, seed="2")
    promote(client, NAME, "match_rate_all", better="higher", challenger="1")
    assert promote(client, NAME, "match_rate_all", better="higher", challenger="2").promoted
    with pytest.raises(BadInput, match="version 3 has no metric 'match_rate_all'"):
        promote(client, NAME, "match_rate_all", better="higher")
    # an evaluation from before this training says nothing about it
    make({"other": 1.0}, None, seed="1")
    with pytest.raises(BadInput, match="version 4 has no metric"):
        promote(client, NAME, "match_rate_all", better="higher")


def test_what_cannot_be_compared_is_refused(client: Any, make: Make) -> None:
    make({"x": 1.0})
    promote(client, NAME, "x", better="lower")
    make({"x": 0.5}, data_manifest_sha256="b")
    with pytest.raises(BadInput, match="different data"):
        promote(client, NAME, "x", better="lower")
    assert alias(client, "champion") == "1"
    with pytest.raises(BadInput, match=r"there are: \['orbitdiff-crystals'\]"):
        promote(client, "orbitdiff-nothing", "x", better="lower")
    with pytest.raises(BadInput, match="'best'"):
        promote(client, NAME, "x", better="lower", challenger="best")
    with pytest.raises(BadInput, match="margin"):
        promote(client, NAME, "x", better="lower", margin=-1.0)
