"""Geometry optimisation: L-BFGS in coordinates scaled by the stiffness of a spring network."""

from collections.abc import Callable
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from orbitdiff.data.conformer_checks import bonded
from orbitdiff.errors import OrbitDiffError

__all__ = ["BOHR", "NotConverged", "minimise"]

BOHR = 0.529177210903
"""Angstrom."""

SPRINGS = (0.4, 0.1, 0.01)
"""Hartree/bohr^2 between atoms one, two and three bonds apart, for the first guess of curvature."""

FLOOR = 0.01
"""Curvature added in every direction, Hartree/bohr^2."""

MEMORY = 30
ROUND, ROUNDS = 60, 10
"""Geometries after which the springs are placed anew (turned groups make them stale), and how
often."""

ENERGY_CHANGE = 1e-7
"""Hartree. With GRADIENT_NORM stricter than xtb's `tight` (1e-6, 8e-4), whose steps are longer."""

GRADIENT_NORM = 2e-4
"""Hartree/bohr, over all atoms."""

LOOSEST = 8e-4
"""Hartree/bohr; what passes, as `tight`, after the last round."""

Surface = Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]
"""Points (n, 3) in bohr to energy in Hartree and gradient (n, 3); raises NotConverged."""


class NotConverged(OrbitDiffError):
    """The electronic structure or the optimisation of one geometry did not converge."""


def minimise(
    surface: Surface, atomic_numbers: NDArray[np.int64], points: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Go down to a minimum.

    Takes about half the calls of L-BFGS in plain Cartesian coordinates and ends nearer to the
    minimum.

    Parameters
    ----------
    surface : callable
        Points in bohr to energy (Hartree) and gradient.
    atomic_numbers : (n,)
    points : (n, 3)
        Bohr; bonds are found by distance.

    Returns
    -------
    points : (n, 3)
    energy : float

    Raises
    ------
    NotConverged
        At the first point, or no minimum within 600.
    """
    from scipy.optimize import minimize

    options = {"maxcor": MEMORY, "maxfun": ROUND, "maxiter": ROUND, "ftol": 0, "gtol": 1e-9}
    for _ in range(ROUNDS):
        descent = _Descent(surface, atomic_numbers, points)
        found = minimize(
            descent.value,
            np.zeros(points.size),
            jac=True,
            method="L-BFGS-B",
            callback=descent.watch,
            options=options,
        )
        descent.value(found.x)
        points = descent.points(found.x)
        if descent.arrived:
            return points, descent.energy
    norm = float(np.linalg.norm(descent.gradient))
    if norm < LOOSEST:
        return points, descent.energy
    raise NotConverged(
        f"expected a gradient below {LOOSEST:g} Hartree/bohr, got {norm:.2g} after {ROUNDS} rounds "
        f"of {ROUND} geometries"
    )


@final
class _Descent:
    """The surface over scaled displacements from a start, and when to stop on it.

    scipy's first step has length one: the scale makes it the Newton step of the springs.
    """

    def __init__(
        self, surface: Surface, atomic_numbers: NDArray[np.int64], start: NDArray[np.float64]
    ) -> None:
        self._surface, self._start = surface, start
        self._place = np.zeros(start.size)
        self.energy, self.gradient = surface(start)
        self._scale = spring_scale(atomic_numbers, start)
        self._scale *= max(float(np.linalg.norm(self._scale @ self.gradient.ravel())), 1e-6)
        self._before = np.inf
        self.arrived = False

    def points(self, step: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (n, 3) in bohr."""
        moved: NDArray[np.float64] = self._start + (self._scale @ step).reshape(self._start.shape)
        return moved

    def value(self, step: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Energy and its gradient with respect to the scaled displacement."""
        if not np.array_equal(step, self._place):
            try:
                self.energy, self.gradient = self._surface(self.points(step))
            except NotConverged:
                # the step was too long: a wall that sends the line search back
                away = step - self._place
                return self.energy + 1 + 0.5 * float(away @ away), away
            self._place = step.copy()
        return self.energy, self._scale @ self.gradient.ravel()

    def watch(self, intermediate_result: Any) -> None:
        """Stop where the energy stands still and the gradient is small."""
        change, self._before = self._before - intermediate_result.fun, intermediate_result.fun
        flat = float(np.linalg.norm(self.gradient)) < GRADIENT_NORM
        self.arrived = flat and abs(change) < ENERGY_CHANGE
        if self.arrived:
            raise StopIteration


def spring_scale(
    atomic_numbers: NDArray[np.int64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Inverse root of a spring network's curvature, (3n, 3n), at points (n, 3) in bohr."""
    size = len(points)
    near = bonded(atomic_numbers, points[None] * BOHR)[0].astype(int)
    free = np.eye(size, dtype=bool)
    stiffness = np.zeros((size, size))
    reached, paths = free, near
    for spring in SPRINGS:
        new = (paths > 0) & ~reached
        stiffness[new] = spring
        reached, paths = reached | new, paths @ near
    apart = points[:, None] - points
    apart = apart / (np.linalg.norm(apart, axis=-1) + free)[..., None]
    blocks = -stiffness[..., None, None] * apart[..., :, None] * apart[..., None, :]
    blocks[free] = -blocks.sum(1)
    curvature = blocks.transpose(0, 2, 1, 3).reshape(3 * size, 3 * size)
    values, vectors = np.linalg.eigh(curvature + FLOOR * np.eye(3 * size))
    found: NDArray[np.float64] = (vectors / np.sqrt(values)) @ vectors.T
    return found
