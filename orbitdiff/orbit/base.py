"""The interface of an orbit estimator: E[target(g x_0) | x_t] over the orbit of x_0."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch

from orbitdiff.errors import IncompatibleKernel
from orbitdiff.groups.automorphism import GraphAutomorphisms
from orbitdiff.groups.base import Group
from orbitdiff.kernels.base import Density, NoiseKernel, Parametrization
from orbitdiff.typing import Bool, Float, Int, Mask, PerSample, Points, Tensor

__all__ = ["OrbitContext", "OrbitEstimator", "OrbitInfo", "OrbitTarget"]


@dataclass(frozen=True)
class OrbitContext:
    """Structure of each sample that an estimator may need.

    Parameters
    ----------
    permutations : (B, P, N) long, optional
        Index lists; the k-th image of x_0 is x_0[permutations[k]]. A subgroup, or a random
        subset that contains the true element.
    permutation_mask : (B, P) bool, optional
        True for real entries of `permutations`.
    conformers : (B, C, N, 3), optional
        Data points that share the orbit mean, x_0 among them.
    log_prior : (B, C), optional
        Log prior of the conformers, default uniform.
    atom_types : (B, N) long, optional
        Zero and above; atoms of one type may be exchanged.
    automorphisms : tuple of GraphAutomorphisms, optional
        The symmetries of each sample's graph, one per sample.
    """

    permutations: Int[Tensor, "B P N"] | None = None
    permutation_mask: Bool[Tensor, "B P"] | None = None
    conformers: Float[Tensor, "B C N 3"] | None = None
    log_prior: Float[Tensor, "B C"] | None = None
    atom_types: Int[Tensor, "B N"] | None = None
    automorphisms: tuple[GraphAutomorphisms, ...] | None = None


class OrbitInfo(NamedTuple):
    """Diagnostics per sample, each (B,) or None where the estimator has no such number.

    Attributes
    ----------
    ess : effective number of group elements, 1 / sum w^2 (sampled) or None (closed form)
    log_evidence : log of the orbit average of p(x_t | g x_0) (estimated where sampled)
    max_weight : largest normalised weight
    """

    ess: Tensor | None = None
    log_evidence: Tensor | None = None
    max_weight: Tensor | None = None


class OrbitTarget(NamedTuple):
    """The averaged target, shape of x_0, and the diagnostics."""

    value: Tensor
    info: OrbitInfo


class OrbitEstimator(ABC):
    """Conditional mean of the training target over the orbit of x_0.

    Attributes
    ----------
    group : type of Group or None
        The group averaged over; must be among `kernel.invariant_under`.
    densities : tuple of Density or None
        Kernel families covered, None for every kernel with a `log_prob`.
    exact : bool
        True where the value is the conditional mean itself.
    unbiased : bool
        True where E[value | x_t] is the conditional mean.
    parametrization : Parametrization
        What is averaged.
    """

    group: type[Group] | None
    densities: tuple[Density, ...] | None
    exact: bool
    unbiased: bool
    parametrization: Parametrization

    def check(self, kernel: NoiseKernel) -> None:
        """Raise IncompatibleKernel unless this estimator covers the kernel."""
        name = type(self).__name__
        if self.group is not None and not issubclass(self.group, kernel.invariant_under):
            known = [group.__name__ for group in kernel.invariant_under]
            raise IncompatibleKernel(
                f"{name} averages over {self.group.__name__}, but {type(kernel).__name__} is "
                f"invariant under {known}: p(g x_t | g x_0) = p(x_t | x_0) must hold"
            )
        if self.densities is not None and kernel.density not in self.densities:
            covered = [density.value for density in self.densities]
            found = kernel.density.value if kernel.density else "none"
            raise IncompatibleKernel(
                f"{name} needs a kernel density in {covered}, {type(kernel).__name__} has: {found}"
            )

    @abstractmethod
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
        """Return the averaged target at x_t.

        Parameters
        ----------
        x_t, x_0 : (B, N, D)
            Noised and clean points. The true group element is the identity: x_t was drawn
            from p(. | x_0) with this very x_0.
        t : (B,)
            Time in [0, 1].
        context : OrbitContext, optional
            Permutations of each sample.
        noise : (B, N, D), optional
            The noise that made x_t, for targets that are no function of (x_t, x_0, t).
        mask : (B, N) bool, optional
            Real atoms.
        generator : torch.Generator, optional
            Source of randomness of sampled estimators.
        """


@dataclass(frozen=True)
class EstimatorSpec:
    """Names of an estimator and its settings, as params.yaml writes them.

    Parameters
    ----------
    kind : str
        One of `orbitdiff.orbit.registry.KINDS`.
    num_samples : int
        K, sampled kinds only.
    proposal : str
        `importance`: uniform or wrapped_normal; `rotation_samples`: uniform, super_fibonacci,
        laplace or wrapped_normal.
    spread : float
        C, standard deviation of the proposal in units of sigma; `importance` and `isir`.
    include_true : bool
        Put the true element among the samples, `importance` and `rotation_samples`.
    per_axis : bool
        Weigh each axis on its own where the kernel factorises.
    temperature : float
        Divides the log weights, `importance` and `tempered_rotation`; 1 is unbiased.
    """

    __pydantic_config__ = {"extra": "forbid"}

    kind: str
    num_samples: int = 64
    proposal: str = "uniform"
    spread: float = 2.0
    include_true: bool = True
    per_axis: bool = False
    temperature: float = 1.0

    @property
    def target(self) -> "EstimatorSpec":
        """The spec itself: an arm that names nothing else is its estimator."""
        return self
