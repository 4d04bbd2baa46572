import pytest
import torch

from orbitdiff.errors import BadInput, IncompatibleKernel
from orbitdiff.groups.rotation import O3, SO3
from orbitdiff.kernels import (
    CosineVP,
    GaussianKernel,
    GeometricSigma,
    Parametrization,
    WrappedNormalKernel,
)
from orbitdiff.kernels.aligned import AlignedCoupling
from orbitdiff.kernels.harmonic import HarmonicKernel
from orbitdiff.kernels.harmonic_prior import HarmonicPrior
from orbitdiff.orbit import (
    EstimatorSpec,
    OrbitContext,
    PlainTarget,
    build_estimator,
)
from orbitdiff.orbit.rotation import rotation_posterior
from orbitdiff.orbit.rotation_orbit import RotationOrbit
from orbitdiff.testing import EstimatorContract

DATA, SCORE = Parametrization.DATA, Parametrization.SCORE
VELOCITY, NOISE = Parametrization.VELOCITY, Parametrization.NOISE
CHAIN = torch.diag_embed(torch.ones(4), 1) + torch.diag_embed(torch.ones(4), -1) > 0


def draw(batch, count, sigma, seed=0):
    """x_t of rotated x_0, and x_0, centred."""
    generator = torch.Generator().manual_seed(seed)
    x_0 = 1.5 * torch.randn(batch, count, 3, generator=generator, dtype=torch.float64)
    x_0 = x_0 - x_0.mean(1, keepdim=True)
    noise = torch.randn(batch, count, 3, generator=generator, dtype=torch.float64)
    g = SO3().sample(batch, generator=generator)
    return SO3().act(g, x_0) + sigma * noise, x_0


class WithRotations(EstimatorContract):
    parametrization = DATA
    reflections = False

    def kernel(self):
        return GaussianKernel(GeometricSigma(0.05, 10.0))

    def group(self):
        return O3() if self.reflections else SO3()

    def estimator(self):
        return self.exact()

    def exact(self):
        kind = self.parametrization
        return RotationOrbit(self.kernel(), parametrization=kind, reflections=self.reflections)

    def points(self, num, generator):
        x = torch.randn(num, 5, 3, generator=generator, dtype=torch.float64)
        return x - x.mean(1, keepdim=True)

    def act_on_target(self, g, value):
        return SO3().act(g, value)


class TestRotationOrbit(WithRotations):
    pass


class TestScore(WithRotations):
    parametrization = SCORE


class TestWithReflections(WithRotations):
    reflections = True


class TestVariancePreserving(WithRotations):
    parametrization = NOISE

    def kernel(self):
        return GaussianKernel(CosineVP())


class TestPlainAgainstRotations(WithRotations):
    def estimator(self):
        return PlainTarget(self.kernel(), parametrization=DATA)


class TestHarmonic(WithRotations):
    parametrization = VELOCITY

    def kernel(self):
        return HarmonicKernel(HarmonicPrior.from_bonds(CHAIN), sigma=0.1)

    def test_padding_is_zero_and_changes_nothing(self):
        """The padding of this kernel is that of its prior."""
        x_t, x_0, t = self.problem(0.6)
        bonds, mask = torch.zeros(6, 6, dtype=torch.bool), torch.arange(6) < 5
        bonds[:5, :5] = CHAIN
        kernel = HarmonicKernel(HarmonicPrior.from_bonds(bonds, mask=mask), sigma=0.1)
        padded = RotationOrbit(
            kernel, parametrization=self.parametrization, reflections=self.reflections
        )
        wide = [torch.nn.functional.pad(part, (0, 0, 0, 1)) for part in (x_t, x_0)]
        found = padded(*wide, t, mask=mask.expand(len(t), -1)).value
        assert self.close(found[:, :-1], self.exact()(x_t, x_0, t).value)
        assert bool((found[:, -1] == 0).all())


class TestHarmonicScoreWithReflections(TestHarmonic):
    parametrization = SCORE
    reflections = True


class TestPlainAgainstHarmonic(TestHarmonic):
    def estimator(self):
        return PlainTarget(self.kernel(), parametrization=VELOCITY)


def test_context_reaches_the_posterior():
    kernel = GaussianKernel(GeometricSigma(0.05, 10.0))
    x_t, x_0 = draw(3, 4, 1.0)
    t = torch.full((3,), 0.6, dtype=torch.float64)
    lists = torch.tensor([[0, 1, 2, 3], [1, 0, 2, 3], [0, 1, 3, 2]]).expand(3, -1, -1)
    known = torch.tensor([[True, True, False]]).expand(3, -1)
    conformers = torch.stack([x_0, x_0.flip(1)], 1)
    prior = torch.tensor([[0.1, -2.0]], dtype=torch.float64).expand(3, -1)

    context = OrbitContext(
        permutations=lists, permutation_mask=known, conformers=conformers, log_prior=prior
    )
    found = RotationOrbit(kernel)(x_t, x_0, t, context=context)
    alpha, sigma = kernel.schedule(t)
    expected = rotation_posterior(
        x_t,
        conformers,
        alpha,
        sigma,
        log_prior=prior,
        permutations=lists,
        permutation_mask=known,
    )
    assert torch.equal(found.value, expected.mean_x0)
    assert torch.equal(found.info.log_evidence, expected.log_evidence)
    weights = expected.weights.flatten(1)
    assert torch.allclose(found.info.ess, 1 / (weights**2).sum(1))
    assert torch.allclose(found.info.max_weight, weights.amax(1))
    alone = RotationOrbit(kernel)(x_t, x_0, t)
    assert alone.info.ess is None


def test_other_kernels_are_refused():
    prior = HarmonicPrior.from_bonds(CHAIN)
    with pytest.raises(IncompatibleKernel, match="density"):
        RotationOrbit(AlignedCoupling(prior))
    with pytest.raises(IncompatibleKernel, match="invariant"):
        RotationOrbit(WrappedNormalKernel(GeometricSigma()))
    with pytest.raises(BadInput, match="noise"):
        RotationOrbit(HarmonicKernel(prior), parametrization=NOISE)


@pytest.mark.parametrize(("group", "reflections"), [(None, False), (SO3(), False), (O3(), True)])
def test_the_registry_builds_it_by_name(group, reflections):
    kernel = GaussianKernel(GeometricSigma(0.05, 10.0))
    built = build_estimator(EstimatorSpec("rotation"), kernel, parametrization=DATA, group=group)
    assert isinstance(built, RotationOrbit)
    assert built.reflections is reflections
