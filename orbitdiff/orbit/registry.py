"""Estimators by the names that params.yaml uses."""

from orbitdiff.errors import BadInput
from orbitdiff.groups.base import Group
from orbitdiff.groups.finite import FiniteGroup
from orbitdiff.groups.rotation import O3
from orbitdiff.kernels.base import NoiseKernel, Parametrization
from orbitdiff.orbit.base import EstimatorSpec, OrbitEstimator
from orbitdiff.orbit.finite import FiniteOrbit
from orbitdiff.orbit.importance import ImportanceOrbit
from orbitdiff.orbit.plain import PlainTarget
from orbitdiff.orbit.proposals import AroundTruth, AroundXt, Haar
from orbitdiff.orbit.rotation_orbit import RotationOrbit
from orbitdiff.orbit.torus import TorusOrbit

__all__ = ["build_estimator"]

KINDS = ("plain", "finite", "torus", "rotation", "importance", "isir")


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
    if spec.kind == "plain":
        return PlainTarget(kernel, parametrization=parametrization)
    if spec.kind == "torus":
        return TorusOrbit(kernel, parametrization=parametrization)
    if spec.kind == "rotation":
        reflections = isinstance(group, O3)
        return RotationOrbit(kernel, parametrization=parametrization, reflections=reflections)
    if group is None:
        raise BadInput(f"estimator {spec.kind} needs a group")
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
