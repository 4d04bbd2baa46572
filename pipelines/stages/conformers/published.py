"""Figures that others measured, with what they were measured on and where they are written."""

from typing import Any, NamedTuple

__all__ = ["MEASURED", "PUBLISHED", "Published"]

GEOM = "GEOM-QM9, 1,000 molecules"


class Published(NamedTuple):
    """One row: means over molecules, 0.5 and 0.1 angstrom; None where it is not given."""

    name: str
    data: str
    cov_r: tuple[float | None, float | None]
    cov_p: tuple[float | None, float | None]
    amr_r: float
    amr_p: float
    amr_medians: tuple[float | None, float | None]
    source: str

    def figures(self) -> dict[str, Any]:
        """Named as those of `aggregate`."""
        named = {
            "cov_r_0.5_mean": self.cov_r[0],
            "cov_r_0.1_mean": self.cov_r[1],
            "cov_p_0.5_mean": self.cov_p[0],
            "cov_p_0.1_mean": self.cov_p[1],
            "amr_r_mean": self.amr_r,
            "amr_p_mean": self.amr_p,
            "amr_r_median": self.amr_medians[0],
            "amr_p_median": self.amr_medians[1],
        }
        return {name: value for name, value in named.items() if value is not None}


MEASURED = {
    "geom_qm9": Published(
        "GeoMol, its published weights", "this test file, 500 molecules (1 failed)",
        (0.898, None), (0.838, None), 0.232, 0.287, (None, None),
        "measured, not trained again; README of the data",
    ),
}  # fmt: skip
"""Models that were run on the test file of a data set."""

ORBIT_DIFFUSION = "published: Orbit Diffusion, Tables 2 and 6"
PUBLISHED = {
    "geom_qm9": (
        Published("RDKit", GEOM, (0.851, None), (0.868, None), 0.235, 0.232, (0.199, 0.205),
                  "published: AvgFlow, Table 1"),
        Published("GeoMol", GEOM, (0.911, 0.284), (0.858, 0.207), 0.224, 0.271, (0.194, 0.243),
                  ORBIT_DIFFUSION),
        Published("ET-Flow, its own paper", GEOM, (0.9647, None), (0.9405, None), 0.073, 0.098,
                  (0.047, 0.039), "published: ET-Flow, Table 2"),
        Published("ET-Flow, trained for Orbit Diffusion", GEOM, (0.944, 0.814), (0.891, 0.746),
                  0.092, 0.145, (0.039, 0.064), ORBIT_DIFFUSION),
        Published("ET-Flow + OrbDiff", GEOM, (0.963, 0.854), (0.919, 0.802), 0.074, 0.113,
                  (0.027, 0.042), ORBIT_DIFFUSION),
    ),
}  # fmt: skip
"""Rows of papers, on other data than ours."""
