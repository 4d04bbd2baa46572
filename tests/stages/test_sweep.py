"""Sweeps without Ray: space, refusals, gradient noise, tables, advice, restarts, the record."""

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
import yaml

from orbitdiff.errors import BadInput, NonFiniteLoss, OrbitDiffError
from orbitdiff.groups.rotation import SO3
from orbitdiff.groups.torus import TorusTranslation
from orbitdiff.kernels import GaussianKernel, GeometricSigma, Parametrization, WrappedNormalKernel
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.orbit.registry import build_estimator
from pipelines.params import Params, load
from pipelines.stages import sweep as stage
from pipelines.stages.base import LocalExecutor, NullTracker
from pipelines.stages.sweeps import trial as trial_module
from pipelines.stages.sweeps.advice import advise, markdown
from pipelines.stages.sweeps.gradient import covariance_trace, task_losses
from pipelines.stages.sweeps.space import USES, Trial
from pipelines.stages.sweeps.table import point_rows
from pipelines.stages.sweeps.tuner import LocalTuner, Tuner
from pipelines.sweeps import SweepParams, change_section, check_sweep, select_sweep

ROOT = Path(__file__).parents[2]
CHANGED = {"num_samples": 5, "proposal": "wrapped_normal", "spread": 0.7, "include_true": False,
           "per_axis": True, "temperature": 3.0}  # fmt: skip
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


# space


def test_grid_has_every_point_and_seed_and_exact_has_rows_of_its_own(params: Params) -> None:
    found = names(toy(params))
    assert found[:2] == ["exact,seed=0", "exact,seed=1"]
    assert sorted(found[2:]) == sorted(
        f"num_samples={k},temperature={t},seed={s}"
        for k in (1, 4) for t in (1.0, 4.0) for s in (0, 1)
    )  # fmt: skip


def test_values_reach_the_estimator_and_identities_differ(params: Params) -> None:
    trials = stage.read_space(toy(params), None).trials
    assert len({trial.identity for trial in trials}) == len(trials)
    for trial in trials[2:]:
        assert trial.arm == EstimatorSpec(kind="importance", **trial.values)
        assert trial.settings.seeds == (trial.seed,)
        assert trial.reference is not None
        assert trial.reference.seed == trial.seed
        assert trial.reference.arm.kind == "finite"


def test_axes_of_the_preset_multiply_the_exact_rows_too(params: Params) -> None:
    over = {"num_samples": [2], "train.learning_rate": [1e-3, 2e-3]}
    space = stage.read_space(crystals(params, over=over), None)
    assert [point.values for point in space.exact] == [
        {"num_samples": None, "train.learning_rate": rate} for rate in (1e-3, 2e-3)
    ]
    for trial in space.points[1].trials:
        assert trial.reference is space.exact[1].trials[0]
        assert trial.settings.train.learning_rate == 2e-3
        assert trial.reference.settings.train.learning_rate == 2e-3


def test_an_axis_without_effect_makes_no_second_trial(params: Params) -> None:
    over = {"kind": ["importance", "isir", "torus"], "temperature": [1.0, 2.0]}
    space = stage.read_space(crystals(params, over=over), None)
    assert [point.values for point in space.points] == [
        {"kind": "importance", "temperature": 1.0},
        {"kind": "importance", "temperature": 2.0},
        {"kind": "isir", "temperature": None},
    ]
    # torus is the exact estimator, whose row exists
    assert space.place["torus", 2.0] is space.exact[0]
    assert space.place["isir", 1.0] is space.place["isir", 2.0] is space.points[2]


def test_the_axis_estimator_takes_arms_of_the_preset(params: Params) -> None:
    sweep = select_sweep(params, "crystals", "cpu", {
        "estimator": "isir", "seeds": [0],
        "over": {"estimator": ["plain", "orbdiff_wn", "exact"], "num_samples": [8]},
    })  # fmt: skip
    space = stage.read_space(sweep, None)
    assert [(p.values["estimator"], p.trials[0].arm.kind) for p in space.points] == [
        ("plain", "plain"), ("orbdiff_wn", "importance"),
    ]  # fmt: skip
    assert space.points[1].trials[0].arm.proposal == "wrapped_normal"


def test_arms_with_a_coupling_are_swept_by_their_target(params: Params) -> None:
    sweep = select_sweep(params, "conformers", "cpu", {
        "estimator": "independent", "exact": "independent_exact", "seeds": [0],
        "over": {"kind": ["rotation_samples"], "num_samples": [8, 32]},
    })  # fmt: skip
    space = stage.read_space(sweep, None)
    assert [p.trials[0].arm.target.num_samples for p in space.points] == [8, 32]
    assert space.exact[0].trials[0].arm.target.kind == "automorphism"


def spec_output(kind: str, **changed: Any) -> torch.Tensor:
    """What an estimator gives on fixed points, elements drawn from a fixed stream."""
    spec = EstimatorSpec(kind=kind, **{"num_samples": 4, **changed})
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.rand(3, 4, 3, generator=generator)
    t = torch.full((3,), 0.6)
    if kind in ("importance", "isir"):
        kernel, group = WrappedNormalKernel(GeometricSigma()), TorusTranslation()
        parametrization = Parametrization.SCORE
    else:
        kernel, group = GaussianKernel(GeometricSigma(0.1, 10.0)), SO3()
        parametrization = Parametrization.DATA
    x_t = kernel.sample(x_0, t, generator=generator).x_t
    estimator = build_estimator(spec, kernel, parametrization=parametrization, group=group)
    return estimator(x_t, x_0, t, generator=torch.Generator().manual_seed(1)).value


@pytest.mark.parametrize("kind", ["importance", "isir", "rotation_samples", "tempered_rotation"])
@pytest.mark.parametrize("name", CHANGED)
def test_named_settings_are_those_that_change_the_target(kind: str, name: str) -> None:
    base = {"proposal": "wrapped_normal"} if name == "spread" else {}
    changed = {**base, name: CHANGED[name]}
    equal = torch.equal(spec_output(kind, **base), spec_output(kind, **changed))
    assert equal == (name not in USES[kind])


# refusals


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"over": {"num_samples": [0, 4]}}, r"num_samples \(K\) must be at least 1, got 0"),
        ({"over": {"temperature": [-1.0]}}, r"temperature must be positive, got -1"),
        ({"over": {"temperature": [0]}}, r"temperature must be positive, got 0"),
        ({"over": {"nosuch": [1]}}, r"no key 'nosuch'; expected among .*'train'"),
        ({"over": {"train.nosuch": [1]}}, r"nosuch.*expected among .*'steps'"),
        ({"over": {"num_samples": ["many"]}}, r"num_samples.*integer.*'many'"),
        ({"over": {"kind": ["best"]}}, r"kind among .*got 'best'"),
        ({"over": {"train.steps": [0]}}, r"train\.steps must be at least 1"),
        ({"over": {"estimator": ["nobody"]}}, r"among .*'sampled'.*got 'nobody'"),
        ({"over": {}}, r"at least one axis"),
        ({"over": {"num_samples": []}}, r"values of axis num_samples"),
        ({"over": {"num_samples": [2, 2]}}, r"names a value twice"),
        ({"estimator": "exact"}, r"num_samples.*no effect on estimators of kind"),
        ({"estimator": "nobody"}, r"among .*'plain'.*got 'nobody'"),
        ({"exact": "plain"}, r"expected an exact estimator .*'plain'"),
        ({"seeds": [1, 1]}, r"different seeds"),
        ({"seeds": []}, r"different seeds"),
        ({"search": {"kind": "random"}}, r"among \('grid', 'optuna'\)"),
        ({"search": {"scheduler": "hope"}}, r"among \('none', 'asha', 'median'\)"),
        ({"search": {"nosuch": 1}}, r"sweeps\.crystals\.demo\.search\.nosuch"),
        ({"nosuch": 1}, r"sweeps\.crystals\.demo\.nosuch"),
        ({"seeds": ["x"]}, r"sweeps\.crystals\.demo\.seeds"),
        ({"dataset": "unknown"}, r"a data set among .*got 'unknown'"),
        ({"dataset": ""}, r"prepared data: give --dataset"),
        ({"over": {"data.max_atoms": [4]}}, r"would mix data sets"),
        ({"over": {"train.num_workers": [4]}}, r"num_workers = 1 without Ray, got 4"),
    ],
)  # fmt: skip
def test_what_could_not_train_is_refused(
    params: Params, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        check_sweep(crystals(params, **{"dataset": "perov_5", **changed}), LocalTuner())


def test_optuna_with_replicates_takes_no_scheduler(params: Params) -> None:
    search = {"kind": "optuna", "scheduler": "asha"}
    with pytest.raises(BadInput, match="mean over its seeds"):
        toy(params, search=search)
    assert toy(params, search=search, seeds=[0]).config.search.scheduler == "asha"


def test_workers_are_counted_before_ray_starts(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    from pipelines.distributed.tune import RayTuner

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    over = {"train.num_workers": [1, 3]}
    with pytest.raises(BadInput, match="num_workers = 3 but Ray has 2 CPUs"):
        check_sweep(crystals(params, dataset="perov_5", over=over), RayTuner(num_cpus=2))
    assert not ray.is_initialized()


def test_options_change_a_section() -> None:
    own = {"estimator": "a", "over": {"num_samples": [1, 2], "temperature": [1.0]}, "seeds": [0, 1]}
    assert change_section(own) == own
    assert change_section(own, over="num_samples,temperature") == own
    assert change_section(own, over="temperature")["over"] == {"temperature": [1.0]}
    changed = change_section(
        own, over="num_samples,proposal", values=["proposal=uniform,x", "num_samples=8"],
        changes=["steps=3"], search={"scheduler": "asha"}, seeds=[5], estimator="",
    )  # fmt: skip
    assert changed == {
        "estimator": "a", "over": {"num_samples": [8], "proposal": ["uniform", "x"]},
        "seeds": [5], "changes": ["steps=3"], "search": {"scheduler": "asha"},
    }  # fmt: skip
    assert change_section(own, values=["spread=1.5"])["over"]["spread"] == [1.5]
    for options, message in [
        ({"over": "proposal"}, r"no values for \['proposal'\]"),
        ({"over": "num_samples", "values": ["spread=1"]}, r"--values names \['spread'\]"),
        ({"values": ["spread"]}, r"expected --values axis=a,b,c"),
        ({"values": ["spread=]"]}, r"no list of YAML values"),
    ]:
        with pytest.raises(BadInput, match=message):
            change_section(own, **options)  # type: ignore[arg-type]


def test_a_sweep_that_is_not_listed_names_those_that_are(params: Params) -> None:
    with pytest.raises(BadInput, match=r"no sweeps\.toy\.paper"):
        select_sweep(params, "toy", "paper", {})


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


def test_one_sample_is_the_plain_target_and_the_ess_is_one(params: Params, prepared: Path) -> None:
    # the true element alone: loss for loss what the plain target gives on the same noise
    origin = replace(stage.read_space(crystals(params), prepared).exact[0].trials[0].origin)
    one = stage.read_space(crystals(params), prepared).points[0].trials[0]
    settings = replace(
        one.settings, estimators={**one.settings.estimators, "sampled": EstimatorSpec("plain")}
    )
    plain = replace(one, settings=settings)
    assert origin.data == prepared
    generator = torch.Generator().manual_seed(0)
    from orbitdiff.tasks.base import build_task

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
        point("64", 1.0, 40.0, gap=(0.0, 0.01)),
        point("256", 0.5, 100.0, gap=(-0.5, 0.01), complete=False),
    ]
    advice = advise(points)
    assert (advice["point"], advice["best"], advice["take"]) == ("16", "64", take)
    assert words in advice["text"]
    text = markdown(points, advice, title="t")
    assert text.index("**exact**") < text.index("| chosen | 16 |") < text.index("| lowest | 64 |")
    assert "0 of 1" not in text
    alone = advise(points[1:4])
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
        self.id = identifier
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


def test_trials_that_break_off_fail_the_stage_after_its_tables(
    params: Params, tmp_path: Path
) -> None:
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

    with pytest.raises(OrbitDiffError, match=r"5 of 10 trials broke off .*Run the same command"):
        sweep_in(tmp_path, toy(params), tuner=Breaking())
    rows = json.loads((tmp_path / "results/trials.json").read_text())
    assert {row["status"] for row in rows if row["seed"] == 1} == {"failed"}
    assert len(sweep_in(tmp_path, toy(params))) == 10


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


def test_the_listed_sweeps_are_valid() -> None:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    for task, presets in (raw.get("sweeps") or {}).items():
        for preset, section in presets.items():
            found = select_sweep(load(ROOT / "params.yaml"), task, preset, section)
            assert check_sweep(found, LocalTuner())
