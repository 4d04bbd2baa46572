"""Orbit estimators: the conditional mean of the training target over the orbit of x_0."""

from orbitdiff.orbit.aligned import AlignedPermutationOrbit as AlignedPermutationOrbit
from orbitdiff.orbit.automorphism_orbit import AutomorphismOrbit as AutomorphismOrbit
from orbitdiff.orbit.base import EstimatorSpec as EstimatorSpec
from orbitdiff.orbit.base import OrbitContext as OrbitContext
from orbitdiff.orbit.base import OrbitEstimator as OrbitEstimator
from orbitdiff.orbit.base import OrbitInfo as OrbitInfo
from orbitdiff.orbit.base import OrbitTarget as OrbitTarget
from orbitdiff.orbit.finite import FiniteOrbit as FiniteOrbit
from orbitdiff.orbit.importance import ImportanceOrbit as ImportanceOrbit
from orbitdiff.orbit.kept_prior import KeptPriorOrbit as KeptPriorOrbit
from orbitdiff.orbit.plain import PlainTarget as PlainTarget
from orbitdiff.orbit.proposals import AroundTruth as AroundTruth
from orbitdiff.orbit.proposals import AroundXt as AroundXt
from orbitdiff.orbit.proposals import Haar as Haar
from orbitdiff.orbit.proposals import Proposal as Proposal
from orbitdiff.orbit.published import PUBLISHED as PUBLISHED
from orbitdiff.orbit.published_conformers import (
    PublishedConformerOrbit as PublishedConformerOrbit,
)
from orbitdiff.orbit.registry import build_estimator as build_estimator
from orbitdiff.orbit.rotation import RotationPosterior as RotationPosterior
from orbitdiff.orbit.rotation import rotation_posterior as rotation_posterior
from orbitdiff.orbit.rotation_orbit import RotationOrbit as RotationOrbit
from orbitdiff.orbit.rotation_samples import RotationSamples as RotationSamples
from orbitdiff.orbit.temperature import ConstantTemperature as ConstantTemperature
from orbitdiff.orbit.temperature import PublishedTemperature as PublishedTemperature
from orbitdiff.orbit.tempered import KabschOrbit as KabschOrbit
from orbitdiff.orbit.tempered import TemperedRotationOrbit as TemperedRotationOrbit
from orbitdiff.orbit.torus import TorusOrbit as TorusOrbit
from orbitdiff.orbit.torus import TorusPosterior as TorusPosterior
from orbitdiff.orbit.torus import torus_posterior as torus_posterior
from orbitdiff.orbit.torus_permutation import TorusPermutationOrbit as TorusPermutationOrbit
