"""Estimators by the names that params.yaml uses."""

from collections.abc import Callable

from orbitdiff.errors import BadInput
from orbitdiff.groups.base import Group
from orbitdiff.groups.finite import FiniteGroup
from orbitdiff.groups.rotation import O3
from orbitdiff.kernels.base import NoiseKernel, Parametrization
from orbitdiff.orbit.aligned import AlignedPermutationOrbit
from orbitdiff.orbit.automorphism_orbit import AutomorphismOrbit
from orbitdiff.orbit.base import EstimatorSpec, OrbitEstimator
from orbitdiff.orbit.finite import FiniteOrbit
from orbitdiff.orbit.importance import ImportanceOrbit
from orbitdiff.orbit.kept_prior import KeptPriorOrbit
from orbitdiff.orbit.plain import PlainTarget
from orbitdiff.orbit.proposals import AroundTruth, AroundXt, Haar
from orbitdiff.orbit.published_conformers import PublishedConformerOrbit
from orbitdiff.orbit.rotation_orbit import RotationOrbit
from orbitdiff.orbit.rotation_samples import RotationSamples
from orbitdiff.orbit.temperature import ConstantTemperature
from orbitdiff.orbit.tempered import KabschOrbit, TemperedRotationOrbit
from orbitdiff.orbit.torus import TorusOrbit
from orbitdiff.orbit.torus_permutation import TorusPermutationOrbit

__all__ = ["KINDS", "build_estimator"]

WITHOUT_SETTINGS: dict[str, type[OrbitEstimator]] = {
    "plain": PlainTarget,
    "torus": TorusOrbit,
    "torus_permutation": TorusPermutationOrbit,
    "aligned_permutation": AlignedPermutationOrbit,
    "automorphism": AutomorphismOrbit,
    "kept_prior": KeptPriorOrbit,
    "kabsch": KabschOrbit,
}
WITH_GROUP = ("finite", "importance", "isir")
KINDS = (
    *WITHOUT_SETTINGS,
    *WITH_GROUP,
    "rotation",
    "rotation_samples",
    "tempered_rotation",
    "published_conformers",
)


def build_estimator(
    spec: EstimatorSpec,
    kernel: NoiseKernel,
    *,
    parametrization: Parametrization,
    group: Group | None = None,
) -> OrbitEstimator:
    """Build the estimator that a spec names.

    Parameters
    ----------
    spec : EstimatorSpec
    kernel : NoiseKernel
    parametrization : Parametrization
    group : Group, optional
        Needed by finite, importance and isir; O3 makes rotation average over reflections too.

    Raises
    ------
    BadInput
        Unknown kind or proposal, K below 1, temperature not positive, missing group.
    IncompatibleKernel
        The kernel is not invariant under the group, or its density is not covered.
    """
    if spec.kind not in KINDS:
        raise BadInput(f"expected an estimator kind among {KINDS}, got {spec.kind!r}")
    if spec.kind in WITHOUT_SETTINGS:
        # every estimator is built from its kernel; the base class has no constructor
        make: Callable[..., OrbitEstimator] = WITHOUT_SETTINGS[spec.kind]
        return make(kernel, parametrization=parametrization)
    if spec.kind in WITH_GROUP:
        if group is None:
            raise BadInput(f"estimator {spec.kind} needs a group")
        return _over_group(spec, kernel, parametrization, group)
    if spec.kind == "rotation":
        reflections = isinstance(group, O3)
        return RotationOrbit(kernel, parametrization=parametrization, reflections=reflections)
    if spec.kind == "rotation_samples":
        return RotationSamples(
            kernel,
            parametrization=parametrization,
            num_samples=spec.num_samples,
            include_true=spec.include_true,
            proposal="haar" if spec.proposal == "uniform" else spec.proposal,
        )
    if spec.kind == "tempered_rotation":
        return TemperedRotationOrbit(
            kernel, ConstantTemperature(spec.temperature), parametrization=parametrization
        )
    return PublishedConformerOrbit(
        kernel, parametrization=parametrization, num_samples=spec.num_samples
    )


def _over_group(
    spec: EstimatorSpec, kernel: NoiseKernel, parametrization: Parametrization, group: Group
) -> OrbitEstimator:
    """Estimators that take any group."""
    if spec.kind == "finite":
        if not isinstance(group, FiniteGroup):
            raise BadInput(f"estimator finite enumerates; {type(group).__name__} is not finite")
        return FiniteOrbit(kernel, group, parametrization=parametrization)
    if spec.kind == "isir":
        return ImportanceOrbit(
            kernel,
            group,
            AroundXt(kernel, spec.spread),
            parametrization=parametrization,
            num_samples=spec.num_samples,
            per_axis=True,
        )
    if spec.proposal not in ("uniform", "wrapped_normal"):
        raise BadInput(f"expected proposal uniform or wrapped_normal, got {spec.proposal!r}")
    uniform = spec.proposal == "uniform"
    return ImportanceOrbit(
        kernel,
        group,
        Haar(group) if uniform else AroundTruth(kernel, spec.spread),
        parametrization=parametrization,
        num_samples=spec.num_samples,
        include_true=spec.include_true,
        per_axis=spec.per_axis,
        temperature=spec.temperature,
    )
