import dataclasses

import pytest
import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups import Sign, TorusTranslation
from orbitdiff.groups.rotation import O3
from orbitdiff.kernels import (
    AlignedCoupling,
    GaussianKernel,
    GeometricSigma,
    HarmonicKernel,
    Parametrization,
    WrappedNormalKernel,
)
from orbitdiff.kernels.harmonic_prior import HarmonicPrior
from orbitdiff.orbit import PUBLISHED, EstimatorSpec, build_estimator
from orbitdiff.orbit.registry import KINDS

CHAIN = torch.diag_embed(torch.ones(4), 1) + torch.diag_embed(torch.ones(4), -1) > 0
GAUSSIAN = GaussianKernel(GeometricSigma(0.05, 10.0))
TORUS = WrappedNormalKernel(GeometricSigma())
DATA, SCORE = Parametrization.DATA, Parametrization.SCORE
PARTS = {
    "plain": (GAUSSIAN, DATA, None),
    "torus": (TORUS, SCORE, None),
    "torus_permutation": (TORUS, SCORE, None),
    "aligned_permutation": (AlignedCoupling(HarmonicPrior.from_bonds(CHAIN)), DATA, None),
    "automorphism": (GAUSSIAN, DATA, None),
    "kept_prior": (
        HarmonicKernel(HarmonicPrior.from_bonds(CHAIN)),
        Parametrization.VELOCITY,
        None,
    ),
    "kabsch": (GAUSSIAN, DATA, None),
    "finite": (GAUSSIAN, DATA, Sign()),
    "importance": (TORUS, SCORE, TorusTranslation()),
    "isir": (TORUS, SCORE, TorusTranslation()),
    "rotation": (GAUSSIAN, DATA, O3()),
    "rotation_samples": (GAUSSIAN, DATA, None),
    "tempered_rotation": (GAUSSIAN, DATA, None),
    "published_conformers": (HarmonicKernel(HarmonicPrior.from_bonds(CHAIN)), DATA, None),
}


def test_every_kind_has_a_case():
    assert sorted(PARTS) == sorted(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_built(kind):
    kernel, parametrization, group = PARTS[kind]
    built = build_estimator(
        EstimatorSpec(kind), kernel, parametrization=parametrization, group=group
    )
    assert built.parametrization is parametrization


def test_settings_reach_the_estimator():
    spec = EstimatorSpec("rotation_samples", num_samples=7, proposal="laplace", include_true=False)
    built = build_estimator(spec, GAUSSIAN, parametrization=DATA)
    assert (built.num_samples, built.include_true, built.unbiased) == (7, False, False)
    assert type(built.proposal).__name__ == "LaplaceRotations"
    tempered = build_estimator(
        EstimatorSpec("tempered_rotation", temperature=2.0), GAUSSIAN, parametrization=DATA
    )
    assert float(tempered.temperature(torch.zeros(1))) == 2.0
    both = build_estimator(EstimatorSpec("rotation"), GAUSSIAN, parametrization=DATA, group=O3())
    assert both.reflections


def test_the_published_settings_are_built():
    for name, spec in PUBLISHED.items():
        kernel, parametrization, group = PARTS[spec.kind]
        built = build_estimator(spec, kernel, parametrization=parametrization, group=group)
        assert built.num_samples == spec.num_samples, name
        assert not built.exact
    counts = {name: spec.num_samples for name, spec in PUBLISHED.items()}
    assert counts == {
        "orbdiff_u": 1000,
        "orbdiff_wn": 1000,
        "orbdiff_conformers": 200,
        "orbdiff_backbones": 10_000,
    }


def test_refusals():
    for kind in ("finite", "importance", "isir"):
        with pytest.raises(BadInput, match="needs a group"):
            build_estimator(EstimatorSpec(kind), TORUS, parametrization=SCORE)
    with pytest.raises(BadInput, match="kind among"):
        build_estimator(EstimatorSpec("magic"), TORUS, parametrization=SCORE)
    with pytest.raises(BadInput, match="not finite"):
        build_estimator(
            EstimatorSpec("finite"), TORUS, parametrization=SCORE, group=TorusTranslation()
        )
    spec = EstimatorSpec("importance", proposal="cube")
    for wrong, kernel, group in (
        (spec, TORUS, TorusTranslation()),
        (dataclasses.replace(spec, kind="rotation_samples"), GAUSSIAN, None),
    ):
        with pytest.raises(BadInput, match="proposal"):
            build_estimator(wrong, kernel, parametrization=SCORE, group=group)
