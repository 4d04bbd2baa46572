import torch

from orbitdiff.groups import O3, SO3, Sign, TorusTranslation
from orbitdiff.kernels import (
    CosineVP,
    GaussianKernel,
    GeometricSigma,
    LinearSigma,
    Parametrization,
    WrappedNormalKernel,
)
from orbitdiff.testing import KernelContract


class TestWrappedNormal(KernelContract):
    def kernel(self):
        return WrappedNormalKernel(GeometricSigma())

    def groups(self):
        return (TorusTranslation(),)

    def points(self, generator):
        return torch.rand(6, 4, 3, generator=generator, dtype=torch.float64)

    def support(self, t):
        return 0.0, 1.0


class TestLinearSigmaGaussian(KernelContract):
    conversions = (Parametrization.DATA, Parametrization.NOISE, Parametrization.SCORE)

    def kernel(self):
        return GaussianKernel(LinearSigma())

    def groups(self):
        return Sign(), SO3(), O3()

    def points(self, generator):
        return torch.randn(6, 4, 3, generator=generator, dtype=torch.float64)

    def support(self, t):
        alpha, sigma = self.kernel().schedule(torch.tensor(t, dtype=torch.float64))
        centre, reach = float(0.3 * alpha), float(7 * sigma)
        return centre - reach, centre + reach


class TestCosineGaussian(TestLinearSigmaGaussian):
    def kernel(self):
        return GaussianKernel(CosineVP())


class TestVarianceExplodingGaussian(TestLinearSigmaGaussian):
    def kernel(self):
        return GaussianKernel(GeometricSigma(0.01, 50.0))
