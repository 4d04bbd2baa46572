"""Noise kernels: how x_0 becomes x_t."""

from orbitdiff.kernels.aligned import AlignedCoupling as AlignedCoupling
from orbitdiff.kernels.base import Density as Density
from orbitdiff.kernels.base import Noised as Noised
from orbitdiff.kernels.base import NoiseKernel as NoiseKernel
from orbitdiff.kernels.base import Parametrization as Parametrization
from orbitdiff.kernels.gaussian import GaussianKernel as GaussianKernel
from orbitdiff.kernels.harmonic import HarmonicKernel as HarmonicKernel
from orbitdiff.kernels.harmonic_prior import HarmonicPrior as HarmonicPrior
from orbitdiff.kernels.schedule import CosineVP as CosineVP
from orbitdiff.kernels.schedule import GeometricSigma as GeometricSigma
from orbitdiff.kernels.schedule import LinearSigma as LinearSigma
from orbitdiff.kernels.schedule import ScaledPath as ScaledPath
from orbitdiff.kernels.schedule import Schedule as Schedule
from orbitdiff.kernels.schedule import SmoothSchedule as SmoothSchedule
from orbitdiff.kernels.wrapped_normal import WrappedNormalKernel as WrappedNormalKernel
