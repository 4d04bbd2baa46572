"""Mean over rotations x automorphisms of a molecule, for groups of any size.

A subgroup, the whole group where it is small, is averaged over exactly. For large groups a
Metropolis chain over its cosets, from that of the true element and with rotations (and
conformers) integrated out as well, gives an unbiased mean.
"""

from typing import final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.automorphism import GraphAutomorphisms
from orbitdiff.groups.base import Group
from orbitdiff.groups.rotation import SO3
from orbitdiff.kernels.base import Density, NoiseKernel, Parametrization
from orbitdiff.orbit.base import OrbitContext, OrbitEstimator, OrbitInfo, OrbitTarget
from orbitdiff.orbit.coset_chain import COMPONENTS, Clouds, CosetChain, passes
from orbitdiff.orbit.gaussian_form import GaussianForm
from orbitdiff.orbit.noise_density import noise_density
from orbitdiff.orbit.rotation_checks import check_numbers, check_shapes
from orbitdiff.typing import Mask, PerSample, Points, Tensor

__all__ = ["AutomorphismOrbit"]

ROUNDING = 1e-6
"""Change of a precision under an automorphism, relative to its largest entry, that passes."""


@final
class AutomorphismOrbit(OrbitEstimator):
    """Mean of the target over rotations x automorphisms of each sample's graph.

    The rule: average exactly over a subgroup of at most `max_enumerated` elements, which is the
    whole group where that fits; where it does not, along a chain of `moves` over its cosets.

    Parameters
    ----------
    kernel : NoiseKernel
        Gaussian, isotropic or with a covariance over atoms that the automorphisms keep, as the
        harmonic prior of the same graph does.
    parametrization : Parametrization
    max_enumerated : int
        Largest subgroup that is averaged over exactly.
    moves : int
        Length of a chain; 0 is the mean over the subgroup alone.

    Notes
    -----
    `context.automorphisms` is required; conformers of the context are averaged over as well.
    The mean over a subgroup H of the coset pi H of the true element pi = 1 is unbiased, for this
    element is a draw from the posterior. A move proposes the coset of pi h g, h uniform in H and
    g a generator outside of H or its inverse, and is accepted with probability
    a = min(1, Z(pi h g H) / Z(pi H)), Z the posterior weight of a coset; (1 - a) E[. | pi H] +
    a E[. | pi h g H] enters the mean, so that a rejected proposal still counts. The chain is
    stationary, hence unbiased for every length. `exact` is false because large groups are sampled.
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
        moves: int = 2,
    ) -> None:
        self.check(kernel)
        if not 1 <= max_enumerated <= COMPONENTS:
            raise BadInput(f"expected max_enumerated from 1 to {COMPONENTS}, got {max_enumerated}")
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
        """Return the mean target; evidence, ESS and largest weight where all groups are small."""
        around = context or OrbitContext()
        groups = _groups(around, x_0)
        time = t.double()
        form = GaussianForm.of(self.kernel, time)
        points = x_0[:, None] if around.conformers is None else around.conformers
        room = max(1, min(self.max_enumerated, COMPONENTS // points.shape[1]))
        blocks = [group.blocks(room) for group in groups]
        clouds, shift = _clouds(x_t, points, form, mask, around.log_prior)
        mean = torch.zeros_like(clouds.whitened)
        numbers = [torch.zeros_like(time) for _ in range(3)]
        for part in passes([b.order * points.shape[1] for b in blocks]):
            rows = slice(part.start, part.stop)
            some = CosetChain(clouds.rows(part), blocks[rows])
            if form.precision is not None and not x_t.is_cuda:
                _check_kept(form.precision[rows], some, part.start)
            found = some.run(self.moves, generator)
            mean[rows] = found.mean
            for number, value in zip(numbers, found[1:], strict=True):
                number[rows] = value
        log_sum, ess, largest = numbers
        info = OrbitInfo(ess=ess, log_evidence=log_sum + shift, max_weight=largest)
        if any(block.partial for block in blocks):
            info = OrbitInfo()
        data, wide = Parametrization.DATA, x_t.double()
        value = self.kernel.convert(mean, data, self.parametrization, wide, time)
        if mask is not None:
            value = value * mask[..., None]
        return OrbitTarget(value.to(x_0.dtype), info)


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


def _clouds(
    x_t: Tensor,
    points: Tensor,
    form: GaussianForm,
    mask: Tensor | None,
    log_prior: Tensor | None,
) -> tuple[Clouds, Tensor]:
    """The clouds and weights, and the part of the log evidence that all elements share, (B,)."""
    check_shapes(x_t, points, form.sigma, form.precision, mask, log_prior, None, None)
    real = torch.ones_like(x_t[..., 0], dtype=torch.bool) if mask is None else mask
    noised = x_t.double().masked_fill(~real[..., None], 0.0)
    points = points.double().masked_fill(~real[:, None, :, None], 0.0)
    checked = not x_t.is_cuda
    if checked:
        check_numbers(noised, points, form.alpha, form.sigma, log_prior)
    density = noise_density(
        noised, points, real, sigma=form.sigma, precision=form.precision, checked=checked
    )
    prior = torch.zeros_like(points[:, :, 0, 0]) if log_prior is None else log_prior.double()
    factor = torch.log_softmax(prior, 1)
    factor = factor - 0.5 * (form.alpha**2)[:, None] * density.quadratic_0
    batch, conformers = factor.shape
    owner = tuple(row for row in range(batch) for _ in range(conformers))
    whitened = form.alpha[:, None, None] * density.whitened
    clouds = Clouds(whitened, points.flatten(0, 1), factor.flatten(), owner)
    if checked and log_prior is not None:
        # padding among conformers; on CUDA it is carried along with no weight
        used = torch.isfinite(prior).flatten()
        own = torch.arange(batch).repeat_interleave(conformers)[used]
        clouds = Clouds(whitened, clouds.points[used], clouds.log_factor[used], tuple(own.tolist()))
    return clouds, density.log_norm - 0.5 * density.quadratic_t


def _check_kept(precision: Tensor, over: CosetChain, start: int) -> None:
    """Raise BadInput where a precision (B, N, N) changes under an element that moves all blocks."""
    first = torch.searchsorted(over.sample, torch.arange(len(precision)))
    moved = over.tables.draw(torch.full(over.tables.sizes.shape, 0.999, dtype=torch.float64))[first]
    turned = precision.gather(1, moved[:, :, None].expand_as(precision))
    turned = turned.gather(2, moved[:, None, :].expand_as(precision))
    limit = ROUNDING * precision.abs().amax((1, 2))
    good = (turned - precision).abs().amax((1, 2)) <= limit
    if not bool(good.all()):
        raise BadInput(
            f"sample {start + int((~good).nonzero()[0])}: expected a covariance over atoms that "
            "the automorphisms keep, as that of the same graph is; for others list the "
            "permutations for RotationOrbit"
        )
