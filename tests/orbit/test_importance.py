import pytest
import torch

from orbitdiff.errors import BadInput, IncompatibleKernel
from orbitdiff.groups import Sign, TorusTranslation
from orbitdiff.kernels import (
    GaussianKernel,
    GeometricSigma,
    LinearSigma,
    Parametrization,
    WrappedNormalKernel,
)
from orbitdiff.orbit import EstimatorSpec, Haar, ImportanceOrbit, build_estimator

KERNEL = WrappedNormalKernel(GeometricSigma())


def build(**settings):
    return build_estimator(
        EstimatorSpec(**settings),
        KERNEL,
        parametrization=Parametrization.SCORE,
        group=TorusTranslation(),
    )


def problem(t, batch=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x_0 = torch.rand(batch, 4, 3, generator=generator, dtype=torch.float64)
    times = torch.full((batch,), t, dtype=torch.float64)
    return KERNEL.sample(x_0, times, generator=generator).x_t, x_0, times


@pytest.mark.parametrize("settings", [{"kind": "isir"}, {"kind": "importance"}])
def test_one_sample_is_the_plain_target(settings):
    x_t, x_0, t = problem(0.7)
    plain = build(kind="plain")(x_t, x_0, t).value
    one = build(num_samples=1, **settings)(x_t, x_0, t, generator=torch.Generator()).value
    assert torch.allclose(one, plain, atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "isir"},
        {"kind": "importance", "per_axis": True},
        {"kind": "importance", "proposal": "uniform", "per_axis": True},
    ],
)
def test_error_to_the_exact_mean_falls_as_one_over_root_k(settings):
    x_t, x_0, t = problem(0.8)
    exact = build(kind="torus")(x_t, x_0, t).value
    errors = []
    for num in (16, 256):
        found = build(num_samples=num, **settings)
        generator = torch.Generator().manual_seed(1)
        value = found(x_t, x_0, t, generator=generator).value
        errors.append(float((value - exact).square().mean().sqrt()))
    assert 2.0 < errors[0] / errors[1] < 8.0


@pytest.mark.parametrize(
    "settings",
    [{"kind": "isir"}, {"kind": "importance", "proposal": "uniform"}],
    ids=["isir", "uniform with the true element"],
)
@pytest.mark.parametrize("num_samples", [2, 8])
def test_unbiased_given_x_t(settings, num_samples):
    """For fixed x_t, with the true element drawn from its posterior, the mean is exact."""
    draws = 20_000
    generator = torch.Generator().manual_seed(3)
    x_t, x_0, t = (part.expand(draws, *part.shape[1:]) for part in problem(0.75, batch=1, seed=5))
    exact = build(kind="torus")(x_t[:1], x_0[:1], t[:1]).value
    nodes = torch.arange(400, dtype=torch.float64) / 400
    shifts = []
    for axis in range(3):
        images = (x_0[:1, None, :, axis : axis + 1] + nodes[:, None, None]) % 1.0
        logits = KERNEL.log_prob(x_t[:1, None, :, axis : axis + 1], images, t[:1, None])[0]
        chosen = torch.multinomial(torch.softmax(logits, 0), draws, True, generator=generator)
        shifts.append(nodes[chosen])
    true = (x_0 + torch.stack(shifts, -1)[:, None]) % 1.0
    estimator = build(num_samples=num_samples, **settings)
    assert estimator.unbiased
    value = estimator(x_t, true, t, generator=generator).value
    z = (value.mean(0) - exact[0]) / (value.std(0) / draws**0.5)
    assert z.abs().max() < 4.0


def test_without_the_true_element_it_is_worse_than_plain_at_small_noise():
    x_t, x_0, t = problem(0.3)
    exact = build(kind="torus")(x_t, x_0, t).value
    blind = build(kind="importance", proposal="uniform", include_true=False, num_samples=64)
    assert not blind.unbiased
    generator = torch.Generator().manual_seed(0)
    error = (blind(x_t, x_0, t, generator=generator).value - exact).square().mean()
    plain = (build(kind="plain")(x_t, x_0, t).value - exact).square().mean()
    assert error > 10 * plain


class Recorder:
    """Haar proposal that records how many elements are drawn at once."""

    independent = True

    def __init__(self):
        self.inner, self.sizes = Haar(TorusTranslation()), []

    def draw(self, num, *args, generator):
        self.sizes.append(num)
        return self.inner.draw(num, *args, generator=generator)

    def log_density_of_identity(self, *args):
        return self.inner.log_density_of_identity(*args)


def test_chunks_are_bounded_and_streaming_equals_one_pass():
    """Chunks of whole-torus draws continue one random stream, so the result is the same."""
    x_t, x_0, t = problem(0.8, batch=1)
    found, sizes = [], []
    for chunk in (10**9, 7 * x_0.numel(), 1):
        proposal = Recorder()
        estimator = ImportanceOrbit(
            KERNEL, TorusTranslation(), proposal, parametrization=Parametrization.SCORE,
            num_samples=64, per_axis=True, chunk=chunk,
        )  # fmt: skip
        found.append(estimator(x_t, x_0, t, generator=torch.Generator().manual_seed(0)))
        sizes.append(max(proposal.sizes))
    assert sizes == [63, 7, 1]
    for parts in found[1:]:
        assert torch.allclose(parts.value, found[0].value, rtol=1e-9, atol=1e-9)
        for one, other in zip(parts.info, found[0].info, strict=True):
            assert torch.allclose(one, other, rtol=1e-9)


def test_log_evidence_agrees_with_the_exact_one():
    x_t, x_0, t = problem(0.8)
    exact = build(kind="torus")(x_t, x_0, t).info.log_evidence
    generator = torch.Generator().manual_seed(0)
    found = build(kind="isir", num_samples=2048)(x_t, x_0, t, generator=generator)
    assert (found.info.log_evidence - exact).abs().max() < 0.2


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "isir", "num_samples": 0},
        {"kind": "isir", "spread": 0.0},
        {"kind": "importance", "temperature": 0.0},
        {"kind": "importance", "proposal": "laplace"},
        {"kind": "nothing"},
    ],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(BadInput):
        build(**settings)


def test_a_kernel_must_be_invariant_under_the_group():
    with pytest.raises(IncompatibleKernel, match="Sign"):
        build_estimator(
            EstimatorSpec(kind="finite"), KERNEL, parametrization=Parametrization.SCORE,
            group=Sign(),
        )  # fmt: skip


def test_finite_orbit_is_the_hyperbolic_tangent():
    kernel = GaussianKernel(LinearSigma())
    found = build_estimator(
        EstimatorSpec(kind="finite"), kernel, parametrization=Parametrization.DATA, group=Sign()
    )
    x_0 = torch.ones(50, 1, 1)
    t = torch.linspace(0, 1, 50)
    x_t = kernel.sample(x_0, t, generator=torch.Generator().manual_seed(0)).x_t
    alpha, sigma = kernel.schedule(t)
    expected = torch.tanh(alpha * x_t[:, 0, 0] / sigma**2)
    assert torch.allclose(found(x_t, x_0, t).value[:, 0, 0], expected, atol=1e-5)
