"""The settings of the paper (arXiv 2502.09890), as estimator specs.

Crystals: joint weights over the three axes, the true element first and weighed by its own
proposal density (uniform: 1; wrapped normal: WN(0; 2 sigma)), temperature 1, K = 1000.
Conformers: 200 rotations, isotropic weights, temperature min(1, 0.4 / t); automorphisms come
from the data. Backbones: 10,000 uniform rotations, the true one among them.
"""

from orbitdiff.orbit.base import EstimatorSpec

__all__ = ["PUBLISHED"]

PUBLISHED = {
    "orbdiff_u": EstimatorSpec("importance", num_samples=1000, proposal="uniform"),
    "orbdiff_wn": EstimatorSpec(
        "importance", num_samples=1000, proposal="wrapped_normal", spread=2.0
    ),
    "orbdiff_conformers": EstimatorSpec("published_conformers", num_samples=200),
    "orbdiff_backbones": EstimatorSpec("rotation_samples", num_samples=10_000),
}
"""OrbDiff_U and OrbDiff_WN of crystals, and the settings for conformers and backbones."""
