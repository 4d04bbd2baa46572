"""Samplers against data laws whose score is known in closed form, and independence of batching."""

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch

from orbitdiff.batch import Batch
from orbitdiff.errors import BadInput, IncompatibleSampler
from orbitdiff.groups.torus import wrap
from orbitdiff.kernels import (
    CosineVP,
    GaussianKernel,
    GeometricSigma,
    LinearSigma,
    Parametrization,
    WrappedNormalKernel,
)
from orbitdiff.kernels.base import expand
from orbitdiff.kernels.wrapped_normal import wrapped_normal
from orbitdiff.samplers import PerSampleNoise, SamplerConfig, build_sampler

MEAN, STD = 1.5, 0.4
CENTRE, WIDTH = 0.95, 0.06
NOISE, SCORE, DATA = Parametrization.NOISE, Parametrization.SCORE, Parametrization.DATA
STOCHASTIC = [
    SamplerConfig("ancestral", 200),
    SamplerConfig("ancestral", 200, eta=0.5),
    SamplerConfig("predictor_corrector", 200, step_lr=1e-5),
]
DETERMINISTIC = [
    SamplerConfig("ancestral", 200, eta=0.0),
    SamplerConfig("ode", 200),
    SamplerConfig("ode", 30, order=2),
    SamplerConfig("multistep", 30),
    SamplerConfig("multistep", 60, knee=0.0),
]


def name_of(config: SamplerConfig) -> str:
    return f"{config.name}-{config.steps}-{config.order}-{config.eta}-{config.knee}"


@dataclass
class Field:
    """What a sampler reads of DiffusedField."""

    kernel: object
    parametrization: Parametrization
    scale: object = torch.ones_like
    masked: bool = False

    @property
    def estimator(self) -> SimpleNamespace:
        return SimpleNamespace(parametrization=self.parametrization)


def gaussian_score(kernel, x, t):
    alpha, sigma = (expand(part) for part in kernel.schedule(t))
    return (alpha * MEAN - x) / (alpha**2 * STD**2 + sigma**2)


def torus_score(kernel, x, t):
    sigma = torch.sqrt(expand(kernel.schedule(t).sigma) ** 2 + WIDTH**2).expand_as(x)
    return wrapped_normal(x - CENTRE, sigma)[1]


class Known:
    """Denoiser that answers with the true score in each field's parametrization and scale."""

    def __init__(self, fields):
        self.fields = fields
        self.calls = 0

    def __call__(self, x_t, t, cond, mask):
        self.calls += 1
        out = {}
        for name, field in self.fields.items():
            law = torus_score if isinstance(field.kernel, WrappedNormalKernel) else gaussian_score
            score = law(field.kernel, x_t[name], t)
            value = field.kernel.convert(score, SCORE, field.parametrization, x_t[name], t)
            out[name] = value / expand(field.scale(t))
        return out


def crystal_fields():
    return {
        "lattice": Field(GaussianKernel(CosineVP()), NOISE),
        "frac": Field(
            WrappedNormalKernel(GeometricSigma()), SCORE, scale=lambda t: 3 + 5 * t, masked=True
        ),
    }


def template(batch, count, dim=3, *, sizes=None, ids=None, dtype=torch.float32, names=None):
    sizes = torch.full((batch,), count) if sizes is None else torch.as_tensor(sizes)
    mask = torch.arange(count) < sizes[:, None]
    state = {"lattice": torch.zeros(batch, 3, 3, dtype=dtype)}
    state["frac"] = torch.full((batch, count, dim), math.nan, dtype=dtype)
    if names is not None:
        state = {name: torch.zeros(batch, count, dim, dtype=dtype) for name in names}
    ids = torch.arange(batch) if ids is None else torch.as_tensor(ids)
    return Batch(state=state, mask=mask, cond={}, ids=ids)


@pytest.mark.parametrize("config", STOCHASTIC + DETERMINISTIC, ids=name_of)
def test_known_gaussian_and_torus_laws_are_recovered(config):
    fields = crystal_fields()
    gaussian = {"lattice": replace(fields["lattice"])}
    batch = template(4, 1200, names=["lattice"])
    drawn = build_sampler(config, gaussian).sample(Known(gaussian), batch, seed=1)["lattice"]
    count = drawn.numel()
    assert drawn.mean() == pytest.approx(MEAN, abs=4 * STD / math.sqrt(count) + 0.01)
    assert drawn.std() == pytest.approx(STD, rel=4 / math.sqrt(2 * count) + 0.015)

    torus = {"frac": fields["frac"]}
    batch = template(4, 1200)
    frac = build_sampler(config, torus).sample(Known(torus), batch, seed=2)["frac"]
    assert frac.min() >= 0
    assert frac.max() < 1
    offset = wrap(frac - CENTRE)
    assert offset.mean() == pytest.approx(0, abs=4 * WIDTH / math.sqrt(count) + 0.002)
    assert offset.std() == pytest.approx(WIDTH, rel=4 / math.sqrt(2 * count) + 0.02)
    beyond = (offset.abs() > 2 * WIDTH).double().mean()
    assert beyond == pytest.approx(0.0455, abs=0.01)


@pytest.mark.parametrize("name", ["ode", "multistep"])
def test_second_order_beats_first_with_the_same_number_of_steps(name):
    fields = {"lattice": crystal_fields()["lattice"]}
    batch = template(1, 200, names=["lattice"], dtype=torch.float64)

    def drawn(config):
        sampler = build_sampler(config, fields)
        denoiser = Known(fields)
        out = sampler.sample(denoiser, batch, seed=0)["lattice"]
        assert denoiser.calls == sampler.calls
        return out

    truth = drawn(SamplerConfig("ode", 600, order=2))
    first = drawn(SamplerConfig("ode", 40))
    second = drawn(SamplerConfig(name, 40, order=2, knee=0.0))
    assert (second - truth).abs().mean() < 0.5 * (first - truth).abs().mean()


@pytest.mark.parametrize("config", [STOCHASTIC[0], STOCHASTIC[2], DETERMINISTIC[3]], ids=name_of)
def test_a_sample_depends_on_seed_and_id_alone(config):
    config = replace(config, steps=66)  # more than one block of noise
    fields = crystal_fields()
    sampler, denoiser = build_sampler(config, fields), Known(fields)
    sizes, ids = [5, 2, 4], [7, 3, 11]
    whole = sampler.sample(denoiser, template(3, 5, sizes=sizes, ids=ids), seed=5)
    order = [2, 0, 1]
    turned = sampler.sample(
        denoiser,
        template(3, 8, sizes=[sizes[k] for k in order], ids=[ids[k] for k in order]),
        seed=5,
    )
    for row, (size, number) in enumerate(zip(sizes, ids, strict=True)):
        alone = sampler.sample(denoiser, template(1, size, ids=[number]), seed=5)
        other = sampler.sample(denoiser, template(1, size, ids=[number]), seed=6)
        place = order.index(row)
        for name, width in (("lattice", 3), ("frac", size)):
            one = alone[name][0]
            torch.testing.assert_close(whole[name][row, :width], one, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(turned[name][place, :width], one, atol=1e-5, rtol=1e-5)
            assert (other[name][0] - one).abs().max() > 1e-3
        assert (whole["frac"][row, size:] == 0).all()
    assert (whole["lattice"][0] - whole["lattice"][1]).abs().max() > 1e-3


def test_the_toys_deterministic_sampler():
    kernel = GaussianKernel(LinearSigma())
    fields = {"x": Field(kernel, DATA)}
    batch = template(2000, 1, 1, names=["x"])
    config = SamplerConfig("ode", 100)
    drawn = build_sampler(config, fields).sample(Known(fields), batch, seed=0)["x"]
    assert drawn.shape == (2000, 1, 1)
    # sigma(1) = 0.999: the start lacks alpha(1) MEAN = 0.067, which the law's slope carries over
    assert drawn.mean() == pytest.approx(MEAN, abs=0.08)
    assert drawn.std() == pytest.approx(STD, rel=0.1)


def test_callback_and_clip():
    fields = {"lattice": crystal_fields()["lattice"]}
    seen = []
    sampler = build_sampler(SamplerConfig("ode", 7, clip=1.0), fields)
    drawn = sampler.sample(
        Known(fields),
        template(2, 3, names=["lattice"]),
        seed=0,
        callback=lambda step, total, state: seen.append((step, total, sorted(state))),
    )
    assert seen == [(k, 7, ["lattice"]) for k in range(1, 8)]
    assert drawn["lattice"].max() <= 1.0


def test_predictor_corrector_is_the_published_update():
    """One run against DiffCSP's loop, written with its own variables and signs."""
    steps, step_lr = 20, 1e-4
    kernel = WrappedNormalKernel(GeometricSigma())
    fields = {"frac": Field(kernel, SCORE)}
    batch = template(2, 4, dtype=torch.float64)
    config = SamplerConfig("predictor_corrector", steps, step_lr=step_lr)
    drawn = build_sampler(config, fields).sample(Known(fields), batch, seed=3)["frac"]

    noise = PerSampleNoise("frac", batch.state["frac"], batch.ids, seed=3)
    f = noise.prior(kernel)
    sigmas = [0.0, *torch.linspace(math.log(0.005), math.log(0.5), steps).double().exp().tolist()]
    for k in range(steps, 0, -1):
        t = torch.full((2,), (k - 1) / (steps - 1), dtype=torch.float64)
        sigma, before = sigmas[k], sigmas[k - 1]
        size = step_lr * (sigma / sigmas[1]) ** 2
        z = noise.normal() if k > 1 else torch.zeros_like(f)
        f = (f - size * -torus_score(kernel, f, t) + math.sqrt(2 * size) * z) % 1
        z = noise.normal() if k > 1 else torch.zeros_like(f)
        spread = math.sqrt(before**2 * (sigma**2 - before**2) / sigma**2)
        f = (f - (sigma**2 - before**2) * -torus_score(kernel, f, t) + spread * z) % 1
    assert wrap(drawn - f).abs().max() < 1e-5


def test_ancestral_is_ddpm():
    kernel = GaussianKernel(CosineVP())
    fields = {"lattice": Field(kernel, NOISE)}
    batch = template(2, 4, names=["lattice"], dtype=torch.float64)
    config = SamplerConfig("ancestral", 15)
    drawn = build_sampler(config, fields).sample(Known(fields), batch, seed=3)["lattice"]

    noise = PerSampleNoise("lattice", batch.state["lattice"], batch.ids, seed=3)
    x = noise.prior(kernel)
    grid = torch.linspace(1, 0, 15, dtype=torch.float64)
    bars = [float(kernel.schedule(t).alpha) ** 2 for t in grid] + [1.0]
    for k, t in enumerate(grid):
        bar, bar_next = bars[k], bars[k + 1]
        alpha = bar / bar_next
        sigma = math.sqrt(max(1 - bar, 1e-10))
        eps = -sigma * gaussian_score(kernel, x, t.expand(2))
        beta = (1 - alpha) * max(1 - bar_next, 0) / sigma**2
        x = (x - (1 - alpha) / sigma * eps) / math.sqrt(alpha) + math.sqrt(beta) * noise.normal()
    torch.testing.assert_close(drawn, x, atol=1e-4, rtol=1e-4)


def test_noise_is_standard_normal_and_fields_differ():
    like = torch.empty(6, 50, 3)
    noise = PerSampleNoise("frac", like, torch.arange(6), seed=0)
    drawn = torch.stack([noise.normal() for _ in range(130)])
    assert drawn.mean() == pytest.approx(0, abs=0.015)
    assert drawn.std() == pytest.approx(1, abs=0.01)
    assert (drawn[0] * drawn[64]).mean().abs() < 0.15
    again = PerSampleNoise("lattice", like, torch.arange(6), seed=0).normal()
    assert (drawn[0] * again).mean().abs() < 0.15


def test_wrong_settings_are_refused():
    fields = crystal_fields()
    with pytest.raises(BadInput, match="predictor_corrector"):
        SamplerConfig("euler", 10)
    with pytest.raises(BadInput, match="steps"):
        build_sampler(SamplerConfig("ode", 0), fields)
    with pytest.raises(BadInput, match="step_lr"):
        build_sampler(SamplerConfig("predictor_corrector", 5, step_lr=0.0), fields)
    with pytest.raises(BadInput, match="order"):
        build_sampler(SamplerConfig("ode", 5, order=3), fields)
    sampler = build_sampler(SamplerConfig("ode", 5), fields)
    with pytest.raises(BadInput, match="lacks"):
        sampler.sample(Known(fields), template(1, 2, names=["frac"]), seed=0)
    with pytest.raises(BadInput, match="at least 0"):
        PerSampleNoise("frac", torch.empty(1, 2, 3), torch.tensor([-1]), seed=0)
    kernel = SimpleNamespace(density=None)
    with pytest.raises(IncompatibleSampler, match="frac"):
        build_sampler(SamplerConfig("ode", 5), {"frac": Field(kernel, SCORE)})
