"""The flow sampler against Gaussian data, for which velocity and all marginals are known."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from orbitdiff.batch import Batch
from orbitdiff.errors import BadInput
from orbitdiff.kernels import HarmonicKernel, HarmonicPrior, Parametrization
from orbitdiff.samplers.flow import FlowConfig, FlowSampler, isotropic, renewed

DATA_STD, PRIOR_STD = 0.6, 2.0


class KnownVelocity:
    """E[y - x_0 | x_t] for x_0 ~ N(0, s^2), y ~ N(0, p^2): a multiple of x_t."""

    def __init__(self, scale=1.0):
        self.calls, self.scale, self.seen = 0, scale, []

    def __call__(self, x_t, t, cond, mask):
        self.calls += 1
        self.seen.append(cond.get("self_condition"))
        return {"positions": gain(t)[:, None, None] * x_t["positions"] / self.scale}


def gain(t):
    s, p = DATA_STD**2, PRIOR_STD**2
    return (t * p - (1 - t) * s) / ((1 - t) ** 2 * s + t**2 * p)


def template(sizes, *, width=None, ids=None, dtype=torch.float64):
    sizes = torch.as_tensor(sizes)
    mask = torch.arange(width or int(sizes.max())) < sizes[:, None]
    ids = torch.arange(len(sizes)) if ids is None else torch.as_tensor(ids)
    state = {"positions": torch.full((*mask.shape, 3), math.nan, dtype=dtype)}
    return Batch(state, mask, {}, ids)


def spread(x):
    """Standard deviation of centred points, n - 1 degrees of freedom per axis."""
    count = x.shape[1]
    return float((x.square().sum() / (x.shape[0] * (count - 1) * 3)).sqrt())


@pytest.mark.parametrize(
    ("config", "tolerance"),
    [
        (FlowConfig(400), 0.01),
        (FlowConfig(100, grid="log"), 0.02),
        (FlowConfig(12, order=2), 0.02),
        (FlowConfig(500, grid="log", noise_scale=1.0), 0.02),
        (FlowConfig(500, noise_scale=1.0), 0.02),
    ],
    ids=str,
)
def test_gaussian_data_are_recovered(config, tolerance):
    batch = template([250] * 24)
    drawn = FlowSampler(config).sample(KnownVelocity(), batch, seed=1, draw=isotropic(PRIOR_STD))[
        "positions"
    ]
    error = 1 / math.sqrt(2 * 24 * 249 * 3)
    assert spread(drawn) == pytest.approx(DATA_STD, rel=tolerance + 3 * error)
    assert drawn.mean(1).abs().max() < 1e-12


def test_heun_is_of_second_and_euler_of_first_order():
    """For a linear velocity the last x is x_1 times a number: DATA_STD / PRIOR_STD exactly."""
    batch = template([40])

    def error(steps, order):
        start = []
        sampler = FlowSampler(FlowConfig(steps, order=order))

        def draw(normal):
            start.append(PRIOR_STD * normal)
            return start[-1]

        drawn = sampler.sample(KnownVelocity(), batch, seed=0, draw=draw)["positions"]
        first = start[0] - start[0].mean(1, keepdim=True)
        factor = (drawn * first).sum() / first.square().sum()
        assert torch.allclose(drawn, factor * first, atol=1e-10)
        return abs(float(factor) - DATA_STD / PRIOR_STD)

    assert error(80, 1) / error(160, 1) == pytest.approx(2, rel=0.15)
    assert error(40, 2) / error(80, 2) > 3.2


@pytest.mark.parametrize("temperature", [0.45, 1.0])
def test_sde_follows_the_published_equation(temperature):
    """Variance of the linear SDE dx = (v + g score) dtau + sqrt(2 g gamma) dw, tau = 1 - t.

    g = p^2 (1 - tau) / tau and the score written as in the paper, from v in its own time.
    """
    s, p = DATA_STD**2, PRIOR_STD**2

    def slope(tau, variance):
        t = 1 - tau
        v = -float(gain(torch.tensor(t, dtype=torch.float64)))
        score = (tau * v - 1) / (p * (1 - tau))
        g = p * (1 - tau) / tau
        return 2 * (v + g * score) * variance + 2 * g * temperature

    expected = solve_ivp(
        slope, (1e-4, 0.9999), [p * temperature], method="LSODA", rtol=1e-9, atol=1e-12
    ).y[0, -1]
    if temperature == 1.0:
        assert expected == pytest.approx(s, rel=2e-3)
    batch = template([250] * 24)
    drawn = FlowSampler(FlowConfig(800, grid="log", noise_scale=temperature)).sample(
        KnownVelocity(), batch, seed=3, draw=isotropic(PRIOR_STD)
    )["positions"]
    assert spread(drawn) == pytest.approx(math.sqrt(expected), rel=0.015)


def test_one_sde_step_is_the_exact_process_of_frozen_data():
    """Against many tiny Euler-Maruyama steps of dY = -Y g / t^2 dtau + noise, D constant."""
    t, s, temperature, substeps = 0.7, 0.5, 0.6, 4000

    def rate(time):
        return 1 / ((1 - time) * time)

    mean, variance = 1.0, 0.0
    width = (t - s) / substeps
    for k in range(substeps):
        at = t - (k + 0.5) * width
        mean *= 1 - rate(at) * width
        variance = variance * (1 - rate(at) * width) ** 2 + 2 * rate(at) * temperature * width
    data, prior = torch.tensor([[[0.3]]]), torch.tensor([[[-1.7]]])
    x_t = (1 - t) * data + t * prior
    still = renewed(x_t, prior - data, torch.zeros(1, 1, 1), t, s, noise_scale=temperature)
    assert float(still) == pytest.approx((1 - s) * 0.3 + s * mean * -1.7, rel=1e-3)
    moved = renewed(x_t, prior - data, torch.ones(1, 1, 1), t, s, noise_scale=temperature)
    assert float(moved - still) == pytest.approx(s * math.sqrt(variance), rel=1e-3)


@pytest.mark.parametrize("noise_scale", [0.0, 1.0])
def test_a_harmonic_prior_gives_back_isotropic_data(noise_scale):
    """Data N(0, s^2) on centred points, prior with a covariance over atoms (a chain)."""
    count, rows = 5, 3000
    bonds = torch.zeros(count, count, dtype=torch.bool)
    for k in range(count - 1):
        bonds[k, k + 1] = bonds[k + 1, k] = True
    prior = HarmonicPrior.from_bonds(bonds)
    kernel = HarmonicKernel(prior)

    def velocity(x_t, t, cond, mask):
        x, time = x_t["positions"], float(t[0])
        variance = (1 - time) ** 2 * DATA_STD**2 + time**2 * prior.variances
        scale = (1 - time) * DATA_STD**2 / torch.where(prior.bound, variance, 1.0)
        data = prior.scaled(x, scale.expand(len(x), -1))
        if time == 1.0:
            return {"positions": x - data}
        change = kernel.convert(data, Parametrization.DATA, Parametrization.VELOCITY, x, t)
        return {"positions": change}

    def draw(normal):
        return prior.scaled(normal, prior.variances.sqrt().expand(len(normal), -1))

    config = FlowConfig(200, grid="log", noise_scale=noise_scale)
    drawn = FlowSampler(config).sample(velocity, template([count] * rows), seed=0, draw=draw)
    x = drawn["positions"]
    found = torch.einsum("bnd,bmd->nm", x, x) / (3 * rows)
    centring = torch.eye(count) - 1 / count
    assert (found - DATA_STD**2 * centring).abs().max() < 0.035


@pytest.mark.parametrize(
    "config", [FlowConfig(70, noise_scale=0.5, grid="log"), FlowConfig(5, order=2)], ids=str
)
def test_a_sample_depends_on_seed_and_id_alone(config):
    sampler, draw = FlowSampler(config), isotropic(PRIOR_STD)
    sizes, ids = [5, 2, 4], [7, 3, 11]
    whole = sampler.sample(KnownVelocity(), template(sizes, width=9, ids=ids), seed=5, draw=draw)
    for row, (size, number) in enumerate(zip(sizes, ids, strict=True)):
        alone = sampler.sample(KnownVelocity(), template([size], ids=[number]), seed=5, draw=draw)
        other = sampler.sample(KnownVelocity(), template([size], ids=[number]), seed=6, draw=draw)
        torch.testing.assert_close(whole["positions"][row, :size], alone["positions"][0])
        assert (other["positions"] - alone["positions"]).abs().max() > 1e-3
        assert (whole["positions"][row, size:] == 0).all()
        assert whole["positions"][row].sum(0).abs().max() < 1e-12


@pytest.mark.parametrize("config", [FlowConfig(7), FlowConfig(7, order=2)], ids=str)
def test_calls_callback_and_the_last_step(config):
    sampler, network, seen = FlowSampler(config, scale=lambda t: 2 + t * 0), KnownVelocity(2.0), []
    states = []

    def callback(step, total, state):
        seen.append((step, total))
        states.append(state["positions"])

    drawn = sampler.sample(
        network, template([6]), seed=0, draw=isotropic(PRIOR_STD), callback=callback
    )["positions"]
    assert network.calls == sampler.calls
    assert seen == [(k, 7) for k in range(1, 8)]
    t = float(sampler.grid()[-2])
    data = states[-2] * (1 - t * float(gain(torch.tensor(t, dtype=torch.float64))))
    torch.testing.assert_close(drawn, data)


def test_self_conditioning_hands_on_the_last_data_prediction():
    network = KnownVelocity()
    sampler = FlowSampler(FlowConfig(3, self_condition=True))
    batch = template([4])
    kept = dict(batch.cond)
    states = []
    sampler.sample(
        network, batch, seed=0, draw=isotropic(1.0),
        callback=lambda step, total, state: states.append(state["positions"]),
    )  # fmt: skip
    assert network.seen[0] is None
    t = float(sampler.grid()[1])
    expected = states[0] * (1 - t * float(gain(torch.tensor(t, dtype=torch.float64))))
    torch.testing.assert_close(network.seen[2], expected)
    assert batch.cond == kept
    plain = KnownVelocity()
    FlowSampler(FlowConfig(3)).sample(plain, batch, seed=0, draw=isotropic(1.0))
    assert plain.seen == [None] * 3


def test_grids():
    log = FlowSampler(FlowConfig(4, grid="log")).grid().numpy()
    published = 1.0 - np.logspace(-2.0, 0, num=5)[::-1]
    published = (published - published.min()) / (published.max() - published.min())
    np.testing.assert_allclose(log, 1 - published, atol=1e-12)
    np.testing.assert_allclose(
        FlowSampler(FlowConfig(4)).grid().numpy(), [1, 0.75, 0.5, 0.25, 0], atol=1e-12
    )


def test_wrong_settings_are_refused():
    for settings, match in [
        ({"steps": 0}, "steps"),
        ({"steps": 1, "order": 3}, "order"),
        ({"steps": 1, "grid": "cosine"}, "grid"),
        ({"steps": 1, "noise_scale": -0.1}, "noise_scale"),
        ({"steps": 1, "noise_scale": 0.5, "order": 2}, "order 2"),
    ]:
        with pytest.raises(BadInput, match=match):
            FlowConfig(**settings)
    with pytest.raises(BadInput, match="prior scale"):
        isotropic(0.0)
    batch = template([3])
    with pytest.raises(BadInput, match="coordinates"):
        FlowSampler(FlowConfig(2), field="coordinates").sample(
            KnownVelocity(), batch, seed=0, draw=isotropic(1.0)
        )
