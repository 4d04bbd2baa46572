"""Sweeps without Ray: gradient noise, tables, advice, restarts, the record."""

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from orbitdiff.errors import BadInput, NonFiniteLoss, OrbitDiffError
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.tasks.base import build_task
from pipelines.params import Params, load
from pipelines.stages import sweep as stage
from pipelines.stages.base import LocalExecutor, NullTracker
from pipelines.stages.sweeps import trial as trial_module
from pipelines.stages.sweeps.advice import advise, markdown
from pipelines.stages.sweeps.gradient import covariance_trace, task_losses
from pipelines.stages.sweeps.space import Trial
from pipelines.stages.sweeps.table import point_rows, trial_row
from pipelines.stages.sweeps.tuner import LocalTuner, Tuner
from pipelines.sweeps import SweepParams, select_sweep

ROOT = Path(__file__).parents[2]
TOY = {
    "estimator": "sampled",
    "over": {"num_samples": [1, 4], "temperature": [1.0, 4.0]},
    "seeds": [0, 1],
    "changes": [
        "estimators.sampled={kind: importance}", "steps=20", "batch_size=64", "levels=10",
        "select_every=10", "num_select=10", "num_samples=20",
    ],
}  # fmt: skip
CRYSTALS = {
    "estimator": "sampled",
    "dataset": "own",
    "over": {"num_samples": [1, 16]},
    "seeds": [3],
    "changes": [
        "estimators.sampled={kind: importance}",
        "train={steps: 4, batch_size: 4, num_workers: 1, checkpoint_every: 2, validate_every: 2,"
        " log_every: 1}",
        "model={hidden: 8, layers: 1, frequencies: 2, time_dim: 8}",
        "validation={num: 2, sigmas: [0.1]}",
    ],
}


@pytest.fixture(scope="module")
def params() -> Params:
    return load(ROOT / "params.yaml")


def toy(params: Params, **changed: Any) -> SweepParams:
    return select_sweep(params, "toy", "demo", {**TOY, **changed})


def crystals(params: Params, **changed: Any) -> SweepParams:
    return select_sweep(params, "crystals", "demo", {**CRYSTALS, **changed})


def names(sweep: SweepParams) -> list[str]:
    return [trial.name for trial in stage.read_space(sweep, None).trials]


# gradient noise


def test_trace_of_the_covariance_of_a_linear_model() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 3, generator=generator), torch.randn(40, generator=generator)
    w = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    unused = torch.zeros(2, requires_grad=True)
    losses = 0.5 * (x @ w - y) ** 2
    gradients = ((x @ w - y)[:, None] * x).detach().double()
    expected = torch.cov(gradients.T).trace()
    assert covariance_trace(losses, [w, unused]) == pytest.approx(float(expected), rel=1e-5)


def test_one_sample_is_the_plain_target(params: Params, prepared: Path) -> None:
    # the true element alone: loss for loss what the plain target gives on the same noise
    one = stage.read_space(crystals(params), prepared).points[0].trials[0]
    settings = replace(
        one.settings, estimators={**one.settings.estimators, "sampled": EstimatorSpec("plain")}
    )
    plain = replace(one, settings=settings)
    generator = torch.Generator().manual_seed(0)
    task = build_task("crystals", one.settings, one.arm, prepared)
    weights = dict(task.build_denoiser(generator=generator).state_dict())
    torch.testing.assert_close(
        task_losses(one, weights)[1], task_losses(plain, weights)[1], rtol=1e-4, atol=1e-6
    )


# tables and advice


def fake_row(
    name: str, error: float, *, seconds: float = 0.01, status: str = "finished", **more: Any
) -> dict[str, Any]:
    row = {"trial": name, "status": status, "validation_error": error, "step_seconds": seconds}
    base = {"gradient_variance": 2.0, "ess": None, "kind": "importance", "num_samples": 1}
    return {**base, "temperature": None, "proposal": None, **row, **more}


def test_points_are_paired_with_exact_by_seed(params: Params) -> None:
    space = stage.read_space(toy(params, over={"num_samples": [1, 4]}), None)
    errors = {"exact,seed=0": 1.0, "exact,seed=1": 2.0, "num_samples=1,seed=0": 1.5,
              "num_samples=1,seed=1": 2.7, "num_samples=4,seed=0": 1.1}  # fmt: skip
    rows = {name: fake_row(name, error) for name, error in errors.items()}
    rows["num_samples=1,seed=0"]["gradient_variance"] = 6.0
    exact, one, four = point_rows([*space.exact, *space.points], rows)
    assert (exact["validation_error"]["mean"], exact["complete"]) == (1.5, True)
    assert "minus_exact" not in exact
    gap = one["minus_exact"]
    assert gap["mean"] == pytest.approx((0.5 + 0.7) / 2)
    assert gap["standard_error"] == pytest.approx(0.1)
    assert one["gradient_variance_ratio"] == pytest.approx((3 + 1) / 2)
    assert (four["complete"], four["seeds"]) == (False, [0])
    rows["num_samples=1,seed=1"]["status"] = "stopped"
    again = point_rows(space.points, rows)[0]
    assert again["minus_exact"]["mean"] == pytest.approx(0.5)
    assert not again["complete"]
    assert not point_rows(space.points, {})


def point(
    name: str,
    error: float,
    ms: float,
    *,
    exact: bool = False,
    gap: Any = None,
    complete: bool = True,
) -> dict[str, Any]:
    row = {
        "name": name, "values": {"num_samples": None if exact else int(name)}, "exact": exact,
        "seeds": [0, 1, 2], "statuses": {"0": "finished"}, "complete": complete, "ess": None,
        "gradient_variance": None, "step_seconds": {"mean": ms / 1e3, "std": None, "seeds": 3},
        "validation_error": {"mean": error, "std": 0.01, "seeds": 3},
    }  # fmt: skip
    if gap is not None:
        row["minus_exact"] = {"mean": gap[0], "standard_error": gap[1], "seeds": 3}
        row["step_seconds_ratio"] = ms / 10
    return row


@pytest.mark.parametrize(
    ("gap", "ms", "take", "words"),
    [
        ((0.1, 0.02), 12.0, "exact", "Take the exact estimator"),
        ((-0.1, 0.02), 12.0, "sampled", "Take the sampled one"),
        ((0.1, 0.06), 12.0, "either", "exact is cheaper: errors are level"),
        ((0.1, 0.06), 8.0, "either", "sampled is cheaper: errors are level"),
        ((0.1, 0.04), 12.0, "either", "errors are level"),  # 2.5 errors of 3 seeds
        ((0.004, 0.0001), 12.0, "either", "errors are level"),
        ((0.1, None), 12.0, "either", "one seed cannot tell"),
    ],
)
def test_advice_takes_the_cheapest_of_the_lowest_errors(
    gap: tuple[float, float | None], ms: float, take: str, words: str
) -> None:
    points = [
        point("exact", 1.0, 10.0, exact=True),
        point("4", 1.3, 5.0, gap=(0.3, 0.01)),
        point("16", 1.01, ms, gap=gap),
        point("20", 1.015, 0.97 * ms, gap=gap),
        point("64", 1.0, 40.0, gap=(0.0, 0.01)),
        point("256", 0.5, 100.0, gap=(-0.5, 0.01), complete=False),
    ]
    advice = advise(points)
    assert (advice["point"], advice["best"], advice["take"]) == ("16", "64", take)
    assert words in advice["text"]
    text = markdown(points, advice, title="t")
    assert text.index("**exact**") < text.index("| chosen | 16 |") < text.index("| lowest | 64 |")
    assert "0 of 1" not in text
    alone = advise(points[1:5])
    assert (alone["exact"], alone["take"]) == (None, None)
    assert advise(points[:1])["point"] is None


# the stage


class Record:
    """Keeps what a tracker gets."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []

    @contextmanager
    def run(
        self, name: str, *, experiment: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> Iterator[Any]:
        unfinished = [r for r in self.runs if r["name"] == name and not r["finished"]]
        if unfinished:
            run = unfinished[0]
        else:
            run = {"name": name, "params": params, "tags": tags, "metrics": {}, "finished": False}
            self.runs.append(run)
        yield Run(str(self.runs.index(run)), run)
        run["finished"] = True


class Run:
    def __init__(self, identifier: str, content: dict[str, Any]) -> None:
        self.id = self.record = identifier
        self.content = content

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        self.content["metrics"].update(values)

    def artifact(self, path: Path) -> None:
        self.content["artifact"] = sorted(file.name for file in path.iterdir())

    def model(self, folder: Path, *, name: str) -> None:
        raise AssertionError("no trial registers a model")


def sweep_in(
    folder: Path, sweep: SweepParams, *, tracker: Any = None, tuner: Tuner | None = None,
    data: Path | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    stage.run(
        sweep, {} if data is None else {"data": data},
        {"running": folder / "running", "results": folder / "results"},
        executor=LocalExecutor(), tracker=tracker or NullTracker(), tuner=tuner or LocalTuner(),
    )  # fmt: skip
    found: list[dict[str, Any]] = json.loads((folder / "results/trials.json").read_text())
    return found


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Seeds and settings of each toy training that was started."""
    started: list[Any] = []
    original = trial_module.train_toy

    def counted(config: Any) -> Any:
        started.append(config)
        return original(config)

    monkeypatch.setattr(trial_module, "train_toy", counted)
    return started


def test_toy_sweep_writes_tables_maps_and_advice(params: Params, tmp_path: Path) -> None:
    record = Record()
    rows = sweep_in(tmp_path, toy(params), tracker=record)
    assert [row["trial"] for row in rows] == names(toy(params))
    for row in rows:
        assert row["status"] == "finished"
        assert row["step"] == 20
        assert row["validation_error"] > 0
        assert row["gradient_variance"] > 0
    # one element is the plain target, whatever the temperature
    one = {(r["num_samples"], r["temperature"], r["seed"]): r for r in rows if not r["exact"]}
    for seed in (0, 1):
        assert one[1, 1.0, seed]["ess"] == pytest.approx(1.0)
        for key in ("validation_error", "gradient_variance", "loss"):
            assert one[1, 1.0, seed][key] == pytest.approx(one[1, 4.0, seed][key], rel=1e-6)
    results = tmp_path / "results"
    assert {path.name for path in results.iterdir()} == {
        "trials.parquet", "trials.csv", "trials.json", "sweep.json", "advice.md", "maps.png",
    }  # fmt: skip
    assert pq.read_table(results / "trials.parquet").to_pylist() == rows
    with (results / "trials.csv").open() as file:
        assert [row["trial"] for row in csv.DictReader(file)] == [row["trial"] for row in rows]
    found = json.loads((results / "sweep.json").read_text())
    assert found["advice"]["point"] in {point["name"] for point in found["points"]}
    assert [point["exact"] for point in found["points"]] == [True] + [False] * 4

    parent, *children = record.runs
    assert len(children) == len(rows)
    assert all(run["finished"] for run in record.runs)
    assert {child["tags"]["mlflow.parentRunId"] for child in children} == {"0"}
    assert parent["metrics"]["trials_ended"] == len(rows)
    assert "maps.png" in parent["artifact"]
    by_name = {child["name"]: child for child in children}
    for row in rows:
        child = by_name[f"{row['trial']} 0"]
        assert child["metrics"]["final.validation_error"] == row["validation_error"]
        assert child["params"]["seed"] == row["seed"]


def test_the_same_command_again_trains_nothing(
    params: Params, tmp_path: Path, trained: list[Any]
) -> None:
    first = sweep_in(tmp_path, toy(params))
    assert len(trained) == len(first)
    assert sweep_in(tmp_path, toy(params)) == first
    assert len(trained) == len(first)
    # another sweep of the same preset repeats nothing of it either
    more = sweep_in(tmp_path, toy(params, over={"num_samples": [4, 6], "temperature": [1.0]}))
    assert len(trained) == len(first) + 2
    assert [config.estimators["sampled"].num_samples for config in trained[-2:]] == [6, 6]
    known = {row["trial"]: row for row in first}
    assert [known[row["trial"]] for row in more if row["trial"] in known] == [
        row for row in more if row["trial"] in known
    ]
    # another number of steps is another trial
    sweep_in(tmp_path, toy(params, changes=[*TOY["changes"], "steps=30"]))
    assert len(trained) == 2 * len(first) + 2


def test_an_interrupted_sweep_goes_on_with_one_record(
    params: Params, tmp_path: Path, trained: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = sweep_in(tmp_path / "quiet", toy(params))
    trained.clear()
    record, original = Record(), trial_module.train_toy

    def interrupted(config: Any) -> Any:
        if len(trained) == 4:
            raise KeyboardInterrupt
        return original(config)

    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "train_toy", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sweep_in(tmp_path, toy(params), tracker=record)
    assert len(trained) == 4
    rows = sweep_in(tmp_path, toy(params), tracker=record)
    assert len(trained) == len(rows) == len(quiet)
    times = ("step_seconds", "train_seconds")
    for row, other in zip(rows, quiet, strict=True):
        assert {k: v for k, v in row.items() if k not in times} == {
            k: v for k, v in other.items() if k not in times
        }
    assert len(record.runs) == 1 + len(rows)
    assert len({run["name"] for run in record.runs}) == 1 + len(rows)


def test_a_trial_that_diverges_is_a_row_and_the_sweep_goes_on(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = trial_module.train_toy

    def diverging(config: Any) -> Any:
        spec = next(iter(config.estimators.values()))
        if spec.kind == "importance" and spec.temperature == 4.0:
            raise NonFiniteLoss("loss is not finite at step 7")
        return original(config)

    monkeypatch.setattr(trial_module, "train_toy", diverging)
    rows = sweep_in(tmp_path, toy(params))
    bad = [row for row in rows if row["temperature"] == 4.0]
    assert {row["status"] for row in bad} == {"diverged"}
    assert {row["reason"] for row in bad} == {"loss is not finite at step 7"}
    assert all(row["status"] == "finished" for row in rows if row not in bad)
    found = json.loads((tmp_path / "results/sweep.json").read_text())
    assert "temperature=1.0" in found["advice"]["point"]


class Breaking:
    """Leaves the trials of a seed out."""

    def check(self, trials: Any) -> None:
        pass

    def run(self, plan: Any, root: Path, *, on_end: Any) -> dict[str, list[str]]:
        points = [replace(p, trials=p.trials[:1]) for p in plan.points]
        LocalTuner().run(replace(plan, points=points), root, on_end=on_end)
        every: list[Trial] = [trial for point in plan.points for trial in point.trials]
        return {"tried": [trial.name for trial in every],
                "failed": [trial.name for trial in every if trial.seed == 1]}  # fmt: skip


def test_trials_that_break_off_fail_the_stage_after_its_tables(
    params: Params, tmp_path: Path
) -> None:
    with pytest.raises(OrbitDiffError, match=r"5 of 10 trials broke off .*Run the same command"):
        sweep_in(tmp_path, toy(params), tuner=Breaking())
    rows = json.loads((tmp_path / "results/trials.json").read_text())
    assert {row["status"] for row in rows if row["seed"] == 1} == {"failed"}
    assert len(sweep_in(tmp_path, toy(params))) == 10


def test_a_sweep_whose_trials_broke_off_goes_on_in_its_record(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    from pipelines.tracking.mlflow_tracker import MLflowTracker

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")

    def runs() -> dict[str, Any]:
        client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
        experiments = [found.experiment_id for found in client.search_experiments()]
        found = client.search_runs(experiments)
        assert len({run.info.run_name for run in found}) == len(found) == 11
        return {run.info.run_id: run for run in found}

    with pytest.raises(OrbitDiffError, match="5 of 10 trials broke off"):
        sweep_in(tmp_path, toy(params), tuner=Breaking(), tracker=MLflowTracker())
    broken = runs()
    assert sorted(run.info.status for run in broken.values()) == ["FAILED"] * 6 + ["FINISHED"] * 5
    sweep_in(tmp_path, toy(params), tracker=MLflowTracker())
    whole = runs()
    assert whole.keys() == broken.keys()
    assert {run.info.status for run in whole.values()} == {"FINISHED"}
    trials = [run for run in whole.values() if run.data.tags["stage"] == "trial"]
    assert [run.data.tags["status"] for run in trials] == ["finished"] * 10
    assert all(run.data.metrics["final.step"] > 0 for run in trials)


def test_crystals_sweep_trains_each_point(params: Params, tmp_path: Path, prepared: Path) -> None:
    rows = sweep_in(tmp_path, crystals(params), data=prepared)
    assert [row["trial"] for row in rows] == [
        "exact,seed=3",
        "num_samples=1,seed=3",
        "num_samples=16,seed=3",
    ]
    exact, one, many = rows
    assert (exact["ess"], one["ess"]) == (None, pytest.approx(1.0))
    assert 1.0 <= many["ess"] <= 16.0
    assert all(row["gradient_variance"] > 0 and row["step"] == 4 for row in rows)
    assert not list((tmp_path / "running").glob("trials/*/ray")), "checkpoints of ended trials"


def test_a_trial_that_is_asked_to_stop_goes_on_later(
    params: Params, tmp_path: Path, prepared: Path
) -> None:
    trial = stage.read_space(crystals(params), prepared).points[1].trials[0]
    stop, folder = tmp_path / "stop", trial.folder(tmp_path)
    stop.touch()
    trial_module.run_trial(trial, tmp_path, LocalExecutor(), stop=stop)
    assert trial_module.outcome(folder) is None
    assert trial_module.figures(trial, tmp_path)["step"] == 1
    row = trial_row(trial, tmp_path)
    assert (row["status"], row["step"]) == ("stopped", 1)
    # another sweep takes it to its end
    trial_module.run_trial(trial, tmp_path, LocalExecutor())
    assert trial_row(trial, tmp_path)["status"] == "finished"


def test_two_runs_of_a_sweep_at_once_are_refused(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orbitdiff.training.lock import only_writer

    monkeypatch.setattr(stage, "PATIENCE", 0.0)
    with (
        only_writer(tmp_path / "running"),
        pytest.raises(OrbitDiffError, match="another process"),
    ):
        sweep_in(tmp_path, toy(params))


def test_data_that_are_not_prepared_are_asked_for(params: Params, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="run prepare"):
        sweep_in(tmp_path, crystals(params), data=tmp_path / "nothing")
