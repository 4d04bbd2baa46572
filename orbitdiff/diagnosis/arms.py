"""The estimators that are compared, by the group that is averaged over."""

from abc import ABC, abstractmethod
from typing import final

from orbitdiff.groups.base import Group
from orbitdiff.groups.finite import Sign
from orbitdiff.groups.rotation import O3
from orbitdiff.groups.torus import TorusTranslation
from orbitdiff.kernels.base import NoiseKernel, Parametrization
from orbitdiff.orbit.automorphism_orbit import AutomorphismOrbit
from orbitdiff.orbit.base import OrbitEstimator
from orbitdiff.orbit.finite import FiniteOrbit
from orbitdiff.orbit.importance import ImportanceOrbit
from orbitdiff.orbit.proposals import AroundXt, Haar
from orbitdiff.orbit.rotation_orbit import RotationOrbit
from orbitdiff.orbit.rotation_samples import RotationSamples
from orbitdiff.orbit.torus import TorusOrbit

__all__ = [
    "MOST_PERMUTATIONS",
    "Arms",
    "AutomorphismArms",
    "ReflectionArms",
    "RotationArms",
    "SignArms",
    "TranslationArms",
]

MOST_PERMUTATIONS = 720
"""Automorphisms of a molecule that are averaged over; of a larger group a subgroup of these."""
COORDINATES = 2**17
"""Points of all samples together that an exact mean over rotations takes."""
NODES = 2**24
"""Numbers of the quadrature over one translation axis, all samples together."""


class Arms(ABC):
    """Estimators of one group.

    Attributes
    ----------
    group : str
        Name on the command line.
    elements : str
        What it consists of, in words.
    exact_kind : str
        Kind of the exact estimator in params.yaml.
    parametrization : Parametrization
        Target that is averaged.
    """

    group: str
    elements: str
    exact_kind: str
    parametrization: Parametrization = Parametrization.DATA

    @abstractmethod
    def exact(self, kernel: NoiseKernel) -> OrbitEstimator:
        """Return the exact mean."""

    @abstractmethod
    def sampled(self, kernel: NoiseKernel, num_samples: int) -> dict[str, OrbitEstimator]:
        """Return sampled means with K elements by name.

        `haar`: uniform elements and the true one; `haar_without_true`: uniform elements alone;
        `isir`: a proposal around the posterior, and the true element.
        """

    def partial(self, kernel: NoiseKernel) -> dict[str, OrbitEstimator]:
        """Return exact means over a part of the group by name."""
        return {}

    def work(self, num_points: int) -> int:
        """Cost of one sampled element, in units of the cheapest."""
        return num_points

    def most_rows(self, num_points: int) -> int:
        """Return the samples that the exact mean takes at once without much memory."""
        return max(1, COORDINATES // num_points)


def _haar(
    kernel: NoiseKernel, group: Group, parametrization: Parametrization, num_samples: int
) -> dict[str, OrbitEstimator]:
    return {
        name: ImportanceOrbit(
            kernel,
            group,
            Haar(group),
            parametrization=parametrization,
            num_samples=num_samples,
            include_true=include,
        )
        for name, include in (("haar", True), ("haar_without_true", False))
    }


@final
class RotationArms(Arms):
    """Rotations of points about their centre."""

    group = "rotation"
    elements = "rotations"
    exact_kind = "rotation"

    def exact(self, kernel: NoiseKernel) -> OrbitEstimator:
        """Matrix Fisher mean."""
        return RotationOrbit(kernel)

    def sampled(self, kernel: NoiseKernel, num_samples: int) -> dict[str, OrbitEstimator]:
        """Sampled means through the 3x3 statistic."""
        return _rotations(kernel, num_samples)

    def work(self, num_points: int) -> int:
        """One: no cloud is rotated."""
        return 1


def _rotations(kernel: NoiseKernel, num_samples: int) -> dict[str, OrbitEstimator]:
    settings = {
        "haar": ("haar", True),
        "haar_without_true": ("haar", False),
        "isir": ("laplace", True),
    }
    return {
        name: RotationSamples(
            kernel, num_samples=num_samples, include_true=include, proposal=proposal
        )
        for name, (proposal, include) in settings.items()
    }


@final
class ReflectionArms(Arms):
    """Rotations and reflections: O(3). There is no proposal around its posterior."""

    group = "rotation_reflection"
    elements = "rotations and reflections"
    exact_kind = "rotation"

    def exact(self, kernel: NoiseKernel) -> OrbitEstimator:
        """Matrix Fisher mean over both components."""
        return RotationOrbit(kernel, reflections=True)

    def sampled(self, kernel: NoiseKernel, num_samples: int) -> dict[str, OrbitEstimator]:
        """Sampled means that transform clouds."""
        return _haar(kernel, O3(), self.parametrization, num_samples)

    def work(self, num_points: int) -> int:
        """A quarter per point: a product with a matrix, cheaper than a wrapped normal."""
        return 1 + num_points // 4


@final
class AutomorphismArms(Arms):
    """Rotations x automorphisms of the molecular graph; sampled ones are of rotations alone."""

    group = "rotation_automorphisms"
    elements = "rotations and automorphisms"
    exact_kind = "automorphism"

    def exact(self, kernel: NoiseKernel) -> OrbitEstimator:
        """Mixture of matrix Fisher means over all automorphisms, or over a subgroup."""
        return AutomorphismOrbit(kernel, max_enumerated=MOST_PERMUTATIONS, moves=0)

    def partial(self, kernel: NoiseKernel) -> dict[str, OrbitEstimator]:
        """Exact mean over rotations alone, a part of the group: unbiased, with more variance."""
        return {"rotations_alone": RotationOrbit(kernel)}

    def sampled(self, kernel: NoiseKernel, num_samples: int) -> dict[str, OrbitEstimator]:
        """Sampled means over rotations alone."""
        return _rotations(kernel, num_samples)

    def work(self, num_points: int) -> int:
        """One: no cloud is rotated."""
        return 1


@final
class TranslationArms(Arms):
    """Translations of a periodic cell; the target is the score."""

    group = "translation"
    elements = "translations"
    exact_kind = "torus"
    parametrization = Parametrization.SCORE

    def exact(self, kernel: NoiseKernel) -> OrbitEstimator:
        """Sum over cuts, or quadrature."""
        return TorusOrbit(kernel, parametrization=self.parametrization)

    def sampled(self, kernel: NoiseKernel, num_samples: int) -> dict[str, OrbitEstimator]:
        """Uniform shifts weighed jointly; shifts around x_t weighed per axis."""
        group = TorusTranslation()
        smart = ImportanceOrbit(
            kernel,
            group,
            AroundXt(kernel, 2.0),
            parametrization=self.parametrization,
            num_samples=num_samples,
            per_axis=True,
        )
        return {**_haar(kernel, group, self.parametrization, num_samples), "isir": smart}

    def most_rows(self, num_points: int) -> int:
        """Return rows whose quadrature fits: at most 9.2 n nodes for n atoms, on three axes."""
        return max(1, NODES // (28 * num_points**2))


@final
class SignArms(Arms):
    """The two signs of the toy."""

    group = "sign"
    elements = "signs"
    exact_kind = "finite"

    def exact(self, kernel: NoiseKernel) -> OrbitEstimator:
        """Enumeration."""
        return FiniteOrbit(kernel, Sign(), parametrization=self.parametrization)

    def sampled(self, kernel: NoiseKernel, num_samples: int) -> dict[str, OrbitEstimator]:
        """Uniform signs."""
        return _haar(kernel, Sign(), self.parametrization, num_samples)
