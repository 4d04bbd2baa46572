"""Mean over rotations x automorphisms of a molecule, for groups of any size.

Small groups are listed, which is exact. For large ones a Metropolis chain over automorphisms,
from the true element and with rotations (and conformers) integrated out, gives an unbiased mean.
"""

from collections.abc import Sequence
from typing import NamedTuple, final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.automorphism import GraphAutomorphisms
from orbitdiff.groups.base import Group
from orbitdiff.groups.permutation import LARGEST_TABLE, padded_lists
from orbitdiff.groups.rotation import SO3
from orbitdiff.kernels.base import Density, NoiseKernel, Parametrization
from orbitdiff.orbit.base import OrbitContext, OrbitEstimator, OrbitInfo, OrbitTarget
from orbitdiff.orbit.gaussian_form import GaussianForm
from orbitdiff.orbit.rotation import RotationPosterior, rotation_posterior
from orbitdiff.typing import Mask, PerSample, Points, Tensor

__all__ = ["AutomorphismOrbit"]

COMPONENTS = 2**14
"""Listed components (permutation, conformer) of a chunk of molecules."""


class _Problem(NamedTuple):
    """What `rotation_posterior` needs, all in float64 and over the same rows."""

    x_t: Tensor
    points: Tensor
    alpha: Tensor
    sigma: Tensor | None
    precision: Tensor | None
    mask: Tensor | None
    log_prior: Tensor | None

    def rows(self, index: Tensor) -> "_Problem":
        """Return some samples."""

        def some(part: Tensor | None) -> Tensor | None:
            return None if part is None else part[index]

        return _Problem(
            self.x_t[index],
            self.points[index],
            self.alpha[index],
            some(self.sigma),
            some(self.precision),
            some(self.mask),
            some(self.log_prior),
        )

    def permuted(self, permutation: Tensor) -> "_Problem":
        """Put the image under one permutation (B, N) of each sample in place of the points."""
        index = permutation[:, None, :, None].expand_as(self.points)
        return self._replace(points=self.points.gather(2, index))

    def posterior(
        self, permutations: Tensor | None = None, permutation_mask: Tensor | None = None
    ) -> RotationPosterior:
        """Integrate rotations, conformers and the given lists of permutations."""
        return rotation_posterior(
            self.x_t,
            self.points,
            self.alpha,
            self.sigma,
            precision=self.precision,
            mask=self.mask,
            log_prior=self.log_prior,
            permutations=permutations,
            permutation_mask=permutation_mask,
        )


@final
class AutomorphismOrbit(OrbitEstimator):
    """E[target | x_t] over rotations x automorphisms, exact or unbiased molecule by molecule.

    The rule: list the group where it has at most `max_enumerated` elements; otherwise take
    `moves` Metropolis moves, each of which costs as much as one listed element.

    Parameters
    ----------
    kernel : NoiseKernel
        Gaussian, isotropic or with a covariance over atoms.
    parametrization : Parametrization
    max_enumerated : int
        Largest group that is listed, at most 5040.
    moves : int
        Length of a chain; 0 is the mean over rotations (and conformers) alone.

    Notes
    -----
    `context.automorphisms` is required; conformers of the context are averaged over as well.
    A move proposes g or its inverse for a generator g and is accepted with probability
    a = min(1, p(x_t | pi g) / p(x_t | pi)), rotations integrated out; (1 - a) E[. | pi] +
    a E[. | pi g] enters the mean, so that a rejected proposal still counts. The chain starts at
    the element that made x_t, a draw from the posterior, hence is stationary and unbiased for
    every length. `exact` is false because large groups are sampled.
    """

    group: type[Group] | None = SO3
    densities = (Density.ISOTROPIC_GAUSSIAN, Density.ATOM_COVARIANCE_GAUSSIAN)
    exact = False
    unbiased = True

    def __init__(
        self,
        kernel: NoiseKernel,
        *,
        parametrization: Parametrization = Parametrization.DATA,
        max_enumerated: int = 720,
        moves: int = 32,
    ) -> None:
        self.check(kernel)
        if not 1 <= max_enumerated <= LARGEST_TABLE:
            raise BadInput(
                f"expected max_enumerated from 1 to {LARGEST_TABLE}, got {max_enumerated}"
            )
        if moves < 0:
            raise BadInput(f"expected moves >= 0, got {moves}")
        self.kernel = kernel
        self.parametrization = parametrization
        self.max_enumerated = max_enumerated
        self.moves = moves

    @torch.no_grad()
    def __call__(
        self,
        x_t: Points,
        x_0: Points,
        t: PerSample,
        *,
        context: OrbitContext | None = None,
        noise: Points | None = None,
        mask: Mask | None = None,
        generator: torch.Generator | None = None,
    ) -> OrbitTarget:
        """Return the mean target; evidence, ESS and largest weight where all are listed."""
        around = context or OrbitContext()
        groups = _groups(around, x_0)
        time = t.double()
        form = GaussianForm.of(self.kernel, time)
        points = x_0[:, None] if around.conformers is None else around.conformers
        problem = _Problem(x_t.double(), points.double(), *form, mask, around.log_prior)
        mean = torch.zeros_like(problem.x_t)
        evidence, ess, largest = (torch.zeros_like(time) for _ in range(3))
        listed, sampled = self.plan(groups, points.shape[1])
        for part in listed:
            rows = torch.tensor(part, device=x_t.device)
            lists, real = padded_lists([groups[r].elements() for r in part], x_0.shape[1])
            found = problem.rows(rows).posterior(
                permutations=lists.to(x_t.device), permutation_mask=real.to(x_t.device)
            )
            weights = found.weights.flatten(1)
            mean[rows], evidence[rows] = found.mean_x0, found.log_evidence
            ess[rows], largest[rows] = 1 / weights.square().sum(1), weights.amax(1)
        info = OrbitInfo(ess=ess, log_evidence=evidence, max_weight=largest)
        if sampled:
            rows = torch.tensor(sampled, device=x_t.device)
            chosen = [groups[row] for row in sampled]
            mean[rows] = _chain_mean(problem.rows(rows), chosen, self.moves, generator)
            info = OrbitInfo()
        data = Parametrization.DATA
        value = self.kernel.convert(mean, data, self.parametrization, problem.x_t, time)
        if mask is not None:
            value = value * mask[..., None]
        return OrbitTarget(value.to(x_0.dtype), info)

    def plan(
        self, groups: Sequence[GraphAutomorphisms], conformers: int = 1
    ) -> tuple[list[list[int]], list[int]]:
        """Share the rows out: chunks of rows to list, by ascending order, and rows to sample."""
        orders = sorted((group.order, row) for row, group in enumerate(groups))
        chunks: list[list[int]] = []
        for order, row in orders:
            if order > self.max_enumerated:
                break
            if not chunks or (len(chunks[-1]) + 1) * order * conformers > COMPONENTS:
                chunks.append([])
            chunks[-1].append(row)
        return chunks, sorted(row for order, row in orders if order > self.max_enumerated)


def _groups(context: OrbitContext, x_0: Tensor) -> tuple[GraphAutomorphisms, ...]:
    """Automorphisms of the context, checked."""
    groups = context.automorphisms
    if groups is None:
        raise BadInput(
            "AutomorphismOrbit needs the groups: pass context=OrbitContext(automorphisms=...)"
        )
    if len(groups) != len(x_0):
        raise BadInput(f"expected automorphisms of {len(x_0)} molecules, got {len(groups)}")
    if any(group.num_points > x_0.shape[1] for group in groups):
        raise BadInput(f"automorphisms act on more points than the {x_0.shape[1]} of the batch")
    return groups


def _chain_mean(
    problem: _Problem,
    groups: Sequence[GraphAutomorphisms],
    moves: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Mean of E[x_0 | x_t, pi] along a Metropolis chain from the identity, (B, N, 3)."""
    batch, width, _ = problem.x_t.shape
    device = problem.x_t.device
    known = problem.posterior()
    value, log_p = known.mean_x0, known.log_evidence
    if moves == 0:
        return value
    generators, _ = padded_lists([group.moves for group in groups], width)
    generators = generators.to(device)
    counts = torch.tensor([len(group.moves) for group in groups], device=device)
    where = generator.device if generator is not None else device
    drawn = torch.rand(2, moves, batch, generator=generator, dtype=torch.float64, device=where).to(
        device
    )
    choices = (drawn[0] * counts).long()
    rows = torch.arange(batch, device=device)
    pi = rows.new_tensor(range(width)).repeat(batch, 1)
    total = torch.zeros_like(value)
    for choice, uniform in zip(choices, drawn[1], strict=True):
        proposed = pi.gather(1, generators[rows, choice])
        found = problem.permuted(proposed).posterior()
        accepted = torch.exp((found.log_evidence - log_p).clamp(max=0.0))
        share = accepted[:, None, None]
        total = total + (1 - share) * value + share * found.mean_x0
        moved = uniform < accepted
        pi = torch.where(moved[:, None], proposed, pi)
        value = torch.where(moved[:, None, None], found.mean_x0, value)
        log_p = torch.where(moved, found.log_evidence, log_p)
    return total / moves
