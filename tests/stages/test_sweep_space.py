"""The space of a sweep: points, replicates, exact rows, what is refused, options."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from orbitdiff.errors import BadInput
from orbitdiff.groups.rotation import SO3
from orbitdiff.groups.torus import TorusTranslation
from orbitdiff.kernels import GaussianKernel, GeometricSigma, Parametrization, WrappedNormalKernel
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.orbit.registry import build_estimator
from pipelines.params import Params, load
from pipelines.stages import sweep as stage
from pipelines.stages.sweeps.settings import USES
from pipelines.stages.sweeps.tuner import LocalTuner
from pipelines.sweeps import SweepParams, change_section, check_sweep, select_sweep

ROOT = Path(__file__).parents[2]
CHANGED = {"num_samples": 5, "proposal": "wrapped_normal", "spread": 0.7, "include_true": False,
           "per_axis": True, "temperature": 3.0}  # fmt: skip
TOY = {
    "estimator": "sampled",
    "over": {"num_samples": [1, 4], "temperature": [1.0, 4.0]},
    "seeds": [0, 1],
    "changes": [
        "estimators.sampled={kind: importance}",
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


def test_a_training_that_says_nothing_before_its_end_is_not_stopped(params: Params) -> None:
    with pytest.raises(BadInput, match="says nothing before its end"):
        check_sweep(toy(params, search={"scheduler": "asha"}), LocalTuner())


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


def test_the_listed_sweeps_are_valid() -> None:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    for task, presets in (raw.get("sweeps") or {}).items():
        for preset, section in presets.items():
            found = select_sweep(load(ROOT / "params.yaml"), task, preset, section)
            assert check_sweep(found, LocalTuner())
