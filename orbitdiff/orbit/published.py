"""The settings of the paper (arXiv 2502.09890, DiffCSP folder), as estimator specs.

Joint weights over the three axes, the true element first and weighed by its own proposal
density (uniform: 1; wrapped normal: WN(0; 2 sigma)), temperature 1, K = 1000.
"""

from orbitdiff.orbit.base import EstimatorSpec

__all__ = ["PUBLISHED"]

PUBLISHED = {
    "orbdiff_u": EstimatorSpec("importance", num_samples=1000, proposal="uniform"),
    "orbdiff_wn": EstimatorSpec(
        "importance", num_samples=1000, proposal="wrapped_normal", spread=2.0
    ),
}
"""OrbDiff_U and OrbDiff_WN as published: joint weights, the true element first, K = 1000."""
