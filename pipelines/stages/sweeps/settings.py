"""Which settings of an estimator decide what it gives, by its kind."""

from orbitdiff.errors import BadInput
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.orbit.registry import KINDS
from pipelines.stages.sweeps.config import ESTIMATOR_AXES

__all__ = ["INEXACT", "USES", "check", "matters", "only_used", "used_settings"]

USES: dict[str, tuple[str, ...]] = {
    "importance": (
        "num_samples", "proposal", "spread", "include_true", "per_axis", "temperature",
    ),
    "isir": ("num_samples", "spread"),
    "rotation_samples": ("num_samples", "proposal", "include_true"),
    "tempered_rotation": ("temperature",),
    "published_conformers": ("num_samples",),
}  # fmt: skip
"""Settings that a kind of estimator reads; kinds that are not named read none."""
INEXACT = ("plain", "kabsch", *USES)


def check(spec: EstimatorSpec, arm: str) -> None:
    """Refuse settings that no estimator takes."""
    if spec.kind not in KINDS:
        raise BadInput(f"expected estimators.{arm}.kind among {list(KINDS)}, got {spec.kind!r}")
    if spec.num_samples < 1:
        raise BadInput(
            f"estimators.{arm}.num_samples (K) must be at least 1, got {spec.num_samples}"
        )
    if not spec.temperature > 0:
        raise BadInput(f"estimators.{arm}.temperature must be positive, got {spec.temperature}")


def used_settings(spec: EstimatorSpec) -> tuple[str, ...]:
    """Settings that decide what an estimator gives, its kind among them."""
    used = ("kind", *USES.get(spec.kind, ()))
    if spec.kind == "importance" and spec.proposal == "uniform":
        used = tuple(name for name in used if name != "spread")
    return used


def matters(axis: str, spec: EstimatorSpec) -> bool:
    """True where the value of an axis has an effect."""
    return axis not in ESTIMATOR_AXES or axis == "estimator" or axis in used_settings(spec)


def only_used(spec: EstimatorSpec) -> EstimatorSpec:
    """The same estimator with what it does not read at its defaults."""
    return EstimatorSpec(**{name: getattr(spec, name) for name in used_settings(spec)})
