"""The toy experiment: network, draws, stack against single runs, objective, metrics, stage."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from orbitdiff.batch import Batch
from orbitdiff.data.toy import half_and_half, orbit_points
from orbitdiff.errors import BadInput, NonFiniteLoss
from orbitdiff.kernels import Parametrization
from orbitdiff.metrics.distribution import mean_distance_to_orbit, wasserstein2_sorted
from orbitdiff.nn.mlp import OddMLP
from orbitdiff.objective import DiffusedField, Objective
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.tasks import toy as toy_module
from orbitdiff.tasks.toy import Toy, ToyConfig
from orbitdiff.tasks.toy_training import late_error, train_toy
from pipelines.params import RunParams
from pipelines.stages import toy as stage
from pipelines.stages.base import LocalExecutor, NullTracker

SMALL = ToyConfig(
    seeds=(0, 1),
    steps=60,
    batch_size=32,
    levels=20,
    select_every=25,
    num_select=40,
    num_samples=200,
)


def generators(count):
    return [torch.Generator().manual_seed(i) for i in range(count)]


def test_network_has_91_parameters_and_is_odd():
    network = OddMLP(generators(3))
    assert network.parameters_per_member == 91
    x, t = torch.randn(3, 7), torch.rand(3, 7)
    torch.testing.assert_close(network(x, t), -network(-x, t), rtol=1e-6, atol=1e-6)
    assert network(x, t).abs().max() > 0


def test_network_is_the_plain_perceptron_of_each_member():
    network = OddMLP(generators(3))
    x, t = torch.randn(3, 7), torch.rand(3, 7)
    for e in range(3):
        f = nn.Sequential(nn.Linear(2, 10), nn.Tanh(), nn.Linear(10, 5), nn.Tanh(), nn.Linear(5, 1))
        for layer, (weight, bias) in zip(
            (f[0], f[2], f[4]), zip(network.weights, network.biases, strict=True), strict=True
        ):
            layer.weight.data, layer.bias.data = weight[e].T, bias[e, 0]
        single = f(torch.stack([x[e], t[e]], 1)) - f(torch.stack([-x[e], t[e]], 1))
        assert torch.allclose(network(x, t)[e], single[:, 0], atol=1e-6)


def test_initial_weights_are_those_of_linear_layers():
    network = OddMLP(generators(400))
    for weight, inputs in zip(network.weights, (2, 10, 5), strict=True):
        assert weight.detach().abs().max() <= 1 / math.sqrt(inputs)
        assert weight.detach().var() == pytest.approx(1 / (3 * inputs), rel=0.1)


def test_arms_share_start_times_noise_and_differ_in_target():
    toy = Toy(SMALL)
    network, steps = toy.network(), toy.draw(0)
    index = {member: i for i, member in enumerate(SMALL.members)}
    plain, exact = index["plain", 1], index["exact", 1]
    augmented = index["augmentation", 1]
    assert torch.equal(network.weights[0][plain], network.weights[0][exact])
    assert not torch.equal(network.weights[0][plain], network.weights[0][index["plain", 0]])
    assert torch.equal(steps.t[:, plain], steps.t[:, exact])
    assert torch.equal(steps.t[:, plain], steps.t[:, augmented])
    assert torch.equal(steps.x_t[:, plain], steps.x_t[:, exact])
    assert not torch.equal(steps.x_t[:, plain], steps.x_t[:, index["plain", 0]])
    assert not torch.equal(steps.x_t[:, plain], toy.draw(1).x_t[:, plain])
    assert (steps.target[:, plain] == 1).all()
    signs = steps.target[:, augmented]
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    alpha, sigma = toy.kernel.schedule(steps.t)
    noise = (steps.x_t - alpha * steps.target) / sigma
    assert torch.allclose(noise[:, augmented], noise[:, plain], atol=1e-3)
    truth = torch.tanh((alpha.double() * steps.x_t.double() / sigma.double() ** 2)[:, exact])
    assert torch.allclose(steps.target[:, exact].double(), truth, atol=1e-5)
    grid = steps.t * (SMALL.levels - 1)
    assert torch.allclose(grid, grid.round(), atol=1e-4)
    assert grid.min() < 0.5
    assert grid.max() > SMALL.levels - 1.5


def test_the_loss_is_that_of_the_shared_objective():
    config = replace(SMALL, seeds=(0,), estimators={"exact": EstimatorSpec(kind="finite")},
                     augmented=())  # fmt: skip
    toy = Toy(config)
    network = toy.network()
    steps = toy.draw(0)
    t = steps.t.flatten()

    def scale(t):
        alpha, sigma = toy.kernel.schedule(t)
        return sigma / alpha

    def denoiser(x_t, t, cond, mask):
        value = network(x_t["x"].reshape(1, -1), t[None]).reshape(-1, 1, 1)
        return {"x": value / scale(t)[:, None, None]}

    size = len(t)
    batch = Batch(
        {"x": torch.ones(size, 1, 1)}, torch.ones(size, 1, dtype=torch.bool), {}, torch.arange(size)
    )
    field = DiffusedField(toy.kernel, toy.estimators["exact"], scale)
    assert field.estimator.parametrization is Parametrization.DATA
    loss = Objective({"x": field})(
        denoiser, batch, t, generator=toy_module.stream(0, "toy", "noise", 0)
    )
    error = (network(steps.x_t.reshape(1, -1), t[None])[0] - steps.target.flatten()) ** 2
    own = (steps.weight.flatten() * error).mean()
    assert own.item() == pytest.approx(loss.value.item(), rel=1e-4)


def test_a_member_of_the_stack_is_the_network_trained_alone():
    stacked = train_toy(SMALL)
    for arm, spec in SMALL.estimators.items():
        augmented = tuple({arm} & {"augmentation"})
        alone = train_toy(replace(SMALL, seeds=(1,), estimators={arm: spec}, augmented=augmented))
        index = SMALL.members.index((arm, 1))
        for name, value in alone.weights.items():
            assert torch.allclose(value[0], stacked.weights[name][index], atol=1e-4), name
        assert alone.members[0]["error"] == pytest.approx(stacked.members[index]["error"], rel=1e-3)


def test_the_best_checkpoint_is_kept_and_steps_that_do_not_divide_are_done():
    result = train_toy(SMALL)
    assert [row["step"] for row in result.history] == [25, 50, 60]
    for index, member in enumerate(result.members):
        errors = {row["step"]: row["error"][index] for row in result.history}
        assert member["best_step"] == min(errors, key=errors.get)
        assert member["late_error"] == errors[60]


def test_the_late_error_is_the_mean_of_the_last_tenth():
    history = [{"step": s, "error": [9.0, s]} for s in range(10, 210, 10)]
    assert late_error(history, 1) == pytest.approx(195)


def test_the_sampler_finds_the_point_that_the_true_denoiser_shows():
    toy = Toy(replace(SMALL, levels=100))
    starts = half_and_half(64, generator=torch.Generator().manual_seed(0)).expand(6, -1)

    def truth(x, t):
        alpha, sigma = toy.kernel.schedule(t)
        return torch.tanh(alpha * x / sigma**2)

    x = toy.sample(truth, starts)
    assert torch.equal(x, torch.sign(starts))


def test_starts_and_reference_are_balanced():
    starts = half_and_half(1000, generator=torch.Generator().manual_seed(0))
    assert (starts[:500] > 0).all()
    assert (starts[500:] < 0).all()
    assert orbit_points(10).sum() == 0
    with pytest.raises(BadInput, match="even"):
        half_and_half(3)


def test_w2_is_the_best_matching_of_all():
    from itertools import permutations

    x, y = torch.tensor([0.3, -2.0, 1.1, 0.2]), torch.tensor([1.0, 0.0, -1.0, 3.0])
    best = min(
        math.sqrt(sum((x[i] - y[j]).item() ** 2 for i, j in enumerate(order)) / 4)
        for order in permutations(range(4))
    )
    assert wasserstein2_sorted(x, y).item() == pytest.approx(best)
    assert mean_distance_to_orbit(torch.tensor([1.5, -0.8])).item() == pytest.approx(0.35)


def test_bad_settings_and_a_diverging_run_are_refused():
    with pytest.raises(BadInput, match="augmented"):
        ToyConfig(augmented=("nobody",))
    with pytest.raises(BadInput, match="positive"):
        ToyConfig(steps=0)
    with pytest.raises(NonFiniteLoss, match="step 25"):
        train_toy(replace(SMALL, learning_rate=float("inf")))


def test_the_stage_writes_its_files_and_a_failed_one_leaves_them(tmp_path):
    def params(config):
        return RunParams("toy", "test", "", "plain", 0, config)

    outputs = {"results": tmp_path / "toy"}
    stage.run(params(SMALL), {}, outputs, executor=LocalExecutor(), tracker=NullTracker())
    names = {"metrics.json", "per_run.csv", "table.md", "learning_curves.png"}
    assert {path.name for path in outputs["results"].iterdir()} == names
    before = (outputs["results"] / "metrics.json").read_text()
    metrics = json.loads(before)
    by_arm = {row["arm"]: row for row in metrics["arms"]}
    runs = {(run["arm"], run["seed"]): run for run in metrics["runs"]}
    gaps = [runs["exact", s]["error"] - runs["plain", s]["error"] for s in (0, 1)]
    assert by_arm["exact"]["error_minus_plain"]["mean"] == pytest.approx(sum(gaps) / 2)
    assert "9.05" in (outputs["results"] / "table.md").read_text()
    broken = replace(SMALL, learning_rate=float("inf"))
    with pytest.raises(RuntimeError, match="not finite"):
        stage.run(params(broken), {}, outputs, executor=LocalExecutor(), tracker=NullTracker())
    assert (outputs["results"] / "metrics.json").read_text() == before
