"""Mean score over translations x permutations of like atoms, for crystals of any size.

Small groups are enumerated, which is exact; for large ones a chain from the true element gives an
unbiased mean.
"""

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from typing import final

import torch

from orbitdiff.errors import BadInput
from orbitdiff.groups.base import Group
from orbitdiff.groups.permutation import LARGEST_TABLE, BlockPermutations
from orbitdiff.groups.torus import TorusTranslation
from orbitdiff.kernels.base import Density, NoiseKernel, Parametrization
from orbitdiff.orbit.base import OrbitContext, OrbitEstimator, OrbitInfo, OrbitTarget
from orbitdiff.orbit.circle import NODES, SWITCH
from orbitdiff.orbit.torus import torus_posterior
from orbitdiff.orbit.torus_gibbs import gibbs_score
from orbitdiff.typing import Mask, PerSample, Points, Tensor

__all__ = ["TorusPermutationOrbit"]

CLOSED_FORM_GAIN = 6
"""How many more permutations may be listed where the shift has its closed form (720 for 120)."""
CHUNK = 2**21
"""Terms (permutation, coordinate, quadrature node) that are evaluated together."""

_group = lru_cache(maxsize=4096)(BlockPermutations)


@final
class TorusPermutationOrbit(OrbitEstimator):
    """E[score | x_t] over shifts of the torus and permutations of like atoms.

    The rule, for each crystal with G = prod over elements of n_e! permutations: list them where
    G <= max_enumerated (where G <= 6 max_enumerated if sigma sqrt(n) <= 0.13, since the mean over
    the shift is then a closed form); otherwise take `sweeps` sweeps of `gibbs_score`.

    Parameters
    ----------
    kernel : NoiseKernel
        A wrapped normal invariant under TorusTranslation.
    parametrization : Parametrization
        SCORE.
    max_enumerated : int
        Largest group that is listed, at most 840.
    sweeps : int
        S, sweeps of a chain; S + 1 permutations are averaged.
    chains : int
        Chains per crystal.

    Notes
    -----
    `context.atom_types` (B, N) int64 is required; listed permutations of the context are those of
    `TorusOrbit` and are not read. `exact` is false because large groups are sampled; crystals
    whose group is listed get the exact mean. `info.log_evidence` is given where all are listed.
    The rule reads sigma and the types on the host, which synchronises on CUDA.
    """

    group: type[Group] | None = TorusTranslation
    densities = (Density.WRAPPED_NORMAL,)
    exact = False
    unbiased = True

    def __init__(
        self,
        kernel: NoiseKernel,
        *,
        parametrization: Parametrization = Parametrization.SCORE,
        max_enumerated: int = 120,
        sweeps: int = 4,
        chains: int = 1,
    ) -> None:
        self.check(kernel)
        if parametrization is not Parametrization.SCORE:
            raise BadInput(f"TorusPermutationOrbit averages the score, not {parametrization.value}")
        if not 1 <= max_enumerated <= LARGEST_TABLE // CLOSED_FORM_GAIN:
            raise BadInput(
                f"expected max_enumerated from 1 to {LARGEST_TABLE // CLOSED_FORM_GAIN}, "
                f"got {max_enumerated}"
            )
        if sweeps < 0 or chains < 1:
            raise BadInput(f"expected sweeps >= 0 and chains >= 1, got {sweeps} and {chains}")
        self.kernel = kernel
        self.parametrization = parametrization
        self.max_enumerated = max_enumerated
        self.sweeps = sweeps
        self.chains = chains

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
        """Return the mean score, exact or unbiased crystal by crystal."""
        types = _atom_types(context, x_0)
        real = torch.ones_like(x_0[..., 0], dtype=torch.bool) if mask is None else mask
        sigma = self.kernel.schedule(t).sigma.double()
        value, evidence = torch.zeros_like(x_0), torch.zeros_like(sigma)
        listed, sampled = self.plan(types, real, sigma)
        for rows, permutations in listed:
            found = torus_posterior(
                x_t[rows], x_0[rows], sigma[rows], mask=real[rows], permutations=permutations
            )
            value[rows], evidence[rows] = found.mean_score, found.log_evidence.to(evidence)
        if not len(sampled):
            return OrbitTarget(value, OrbitInfo(log_evidence=evidence.to(x_0.dtype)))
        value[sampled] = gibbs_score(
            x_t[sampled],
            x_0[sampled],
            sigma[sampled],
            types[sampled],
            mask=real[sampled],
            sweeps=self.sweeps,
            chains=self.chains,
            generator=generator,
        ).to(value.dtype)
        return OrbitTarget(value, OrbitInfo())

    def plan(
        self, types: Tensor, mask: Tensor, sigma: Tensor
    ) -> tuple[Iterator[tuple[Tensor, Tensor]], Tensor]:
        """Share the rows out by the rule of the class.

        Parameters
        ----------
        types : (B, N) int64
        mask : (B, N) bool
        sigma : (B,)

        Returns
        -------
        tuple
            Pairs of rows (R,) and their permutations (R, P, N), small enough to evaluate at once;
            and the rows left to the chain.
        """
        spread = (sigma * torch.sqrt(mask.sum(1).double())).tolist()
        by_order: dict[int, list[tuple[float, int, BlockPermutations]]] = defaultdict(list)
        sampled = []
        rows = zip(types.tolist(), mask.tolist(), sigma.tolist(), spread, strict=True)
        for row, (numbers, present, level, wide) in enumerate(rows):
            # a padding atom is a type of its own
            group = _group(
                tuple(
                    number if there else -1 - place
                    for place, (number, there) in enumerate(zip(numbers, present, strict=True))
                )
            )
            closed = wide <= SWITCH
            if group.order > self.max_enumerated * (CLOSED_FORM_GAIN if closed else 1):
                sampled.append(row)
                continue
            nodes = 1.0 if closed else NODES * wide / level**2
            by_order[group.order].append((nodes, row, group))
        return _listed(by_order, types), torch.tensor(sampled, dtype=torch.long).to(types.device)


def _atom_types(context: OrbitContext | None, x_0: Tensor) -> Tensor:
    """Types (B, N) of the context, checked."""
    types = None if context is None else context.atom_types
    if types is None:
        raise BadInput(
            "TorusPermutationOrbit needs the atom types: pass context=OrbitContext(atom_types=...)"
        )
    if types.shape != x_0.shape[:2]:
        raise BadInput(f"expected atom_types {tuple(x_0.shape[:2])}, got {tuple(types.shape)}")
    if bool((types < 0).any()):
        raise BadInput("expected atom_types of zero and above: negative numbers mark padding")
    return types


def _listed(
    by_order: dict[int, list[tuple[float, int, BlockPermutations]]], types: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of one group order together, those with few quadrature nodes first, in chunks."""
    for order, entries in by_order.items():
        entries.sort(key=lambda entry: entry[:2])
        start = 0
        while start < len(entries):
            end = start + 1
            cost = 3 * types.shape[1] * order
            while end < len(entries) and (end + 1 - start) * cost * entries[end][0] <= CHUNK:
                end += 1
            part = entries[start:end]
            rows = torch.tensor([row for _, row, _ in part], device=types.device)
            lists = torch.stack([group.elements(device=types.device) for *_, group in part])
            yield rows, lists
            start = end
