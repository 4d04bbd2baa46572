import pytest
import torch

from orbitdiff.groups import Sign, TorusTranslation
from orbitdiff.kernels import (
    GaussianKernel,
    GeometricSigma,
    LinearSigma,
    Parametrization,
    WrappedNormalKernel,
)
from orbitdiff.orbit import (
    AroundTruth,
    AroundXt,
    FiniteOrbit,
    Haar,
    ImportanceOrbit,
    PlainTarget,
    TorusOrbit,
)
from orbitdiff.testing import EstimatorContract, SampledEstimatorContract

SCORE, DATA = Parametrization.SCORE, Parametrization.DATA


class OnTheTorus:
    def kernel(self):
        return WrappedNormalKernel(GeometricSigma())

    def group(self):
        return TorusTranslation()

    def exact(self):
        return TorusOrbit(self.kernel(), parametrization=SCORE)

    def points(self, num, generator):
        return torch.rand(num, 4, 3, generator=generator, dtype=torch.float64)

    def act_on_target(self, g, value):
        return value

    def importance(self, proposal, num_samples, **settings):
        return ImportanceOrbit(
            self.kernel(),
            self.group(),
            proposal,
            parametrization=SCORE,
            num_samples=num_samples,
            **settings,
        )


class WithSigns:
    times = (0.3, 0.6, 0.95)

    def kernel(self):
        return GaussianKernel(LinearSigma())

    def group(self):
        return Sign()

    def exact(self):
        return FiniteOrbit(self.kernel(), Sign(), parametrization=DATA)

    def points(self, num, generator):
        return torch.randn(num, 2, 1, generator=generator, dtype=torch.float64)

    def act_on_target(self, g, value):
        return Sign().act(g, value)


class TestTorusOrbit(OnTheTorus, EstimatorContract):
    def estimator(self):
        return self.exact()


class TestPlainOnTheTorus(OnTheTorus, EstimatorContract):
    def estimator(self):
        return PlainTarget(self.kernel(), parametrization=SCORE)


class TestFiniteOrbit(WithSigns, EstimatorContract):
    def estimator(self):
        return self.exact()


class TestPlainWithSigns(WithSigns, EstimatorContract):
    def estimator(self):
        return PlainTarget(self.kernel(), parametrization=DATA)


class TestISIR(OnTheTorus, SampledEstimatorContract):
    tolerance = 1e-7

    def build(self, num_samples):
        proposal = AroundXt(self.kernel(), 2.0)
        return self.importance(proposal, num_samples, per_axis=True)


class TestJointISIR(OnTheTorus, SampledEstimatorContract):
    tolerance = 1e-7

    def build(self, num_samples):
        return self.importance(AroundXt(self.kernel(), 2.0), num_samples)


class TestUniform(OnTheTorus, SampledEstimatorContract):
    def build(self, num_samples):
        return self.importance(Haar(self.group()), num_samples, per_axis=True)


class TestAroundTruth(OnTheTorus, SampledEstimatorContract):
    def build(self, num_samples):
        return self.importance(AroundTruth(self.kernel(), 2.0), num_samples, per_axis=True)


class TestUniformSigns(WithSigns, EstimatorContract):
    def estimator(self):
        return ImportanceOrbit(
            self.kernel(), Sign(), Haar(Sign()), parametrization=DATA, num_samples=3
        )


class Dishonest(ImportanceOrbit.__mro__[1]):
    """Claims to be unbiased, but leaves the true element out, or sharpens the weights."""

    group, densities, exact, unbiased = TorusTranslation, None, False, True

    def __init__(self, inner):
        self.inner, self.parametrization = inner, SCORE

    def __call__(self, *args, **more):
        return self.inner(*args, **more)


@pytest.mark.parametrize("settings", [{"include_true": False}, {"temperature": 0.5}])
def test_the_contract_finds_a_bias(settings):
    class Biased(OnTheTorus, EstimatorContract):
        def estimator(self):
            honest = self.importance(Haar(self.group()), 4, per_axis=True, **settings)
            assert not honest.unbiased
            return Dishonest(honest)

    with pytest.raises(AssertionError):
        Biased().test_unbiased_where_claimed()
