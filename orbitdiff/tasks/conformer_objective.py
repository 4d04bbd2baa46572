"""The loss of a batch of molecules: prior from its bonds, coupling, estimator, context."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import nn

from orbitdiff.batch import Batch
from orbitdiff.data.molecule_graph import BONDS
from orbitdiff.data.molecules import MoleculeDataset
from orbitdiff.errors import BadInput
from orbitdiff.groups.permutation import padded_lists
from orbitdiff.kernels.aligned import AlignedCoupling
from orbitdiff.kernels.base import NoiseKernel, Parametrization
from orbitdiff.kernels.harmonic import HarmonicKernel
from orbitdiff.kernels.harmonic_prior import HarmonicPrior
from orbitdiff.nn.base import Denoiser
from orbitdiff.objective import (
    DiffusedField,
    Loss,
    Objective,
    PointLoss,
    mean_norm,
    mean_over_points,
    mean_square,
)
from orbitdiff.orbit.base import EstimatorSpec, OrbitContext, OrbitEstimator
from orbitdiff.orbit.registry import build_estimator
from orbitdiff.seeding import stream
from orbitdiff.typing import Float, PerSample, Tensor

__all__ = ["ConformerArm", "ConformerKernelConfig", "ConformerObjective", "ConformerYardstick"]

FIELD = "positions"
COUPLINGS = ("independent", "aligned")
PRIORS = ("harmonic", "gaussian")
LOSSES: dict[str, PointLoss] = {"square": mean_square, "norm": mean_norm}
LISTED = 32
"""Automorphisms up to which `aligned_permutation` lists the whole group."""
PUBLISHED_LISTED = 50
"""Automorphisms that the published estimator draws of a molecule."""


@dataclass(frozen=True)
class ConformerKernelConfig:
    """Prior of the flow, and the times that training draws.

    Parameters
    ----------
    prior : str
        `harmonic`: springs along the bonds; `gaussian`: unit normal, 1 angstrom.
    spring : float
        Stiffness of a bond, 1 / angstrom^2.
    margin : float
        Times are uniform in [margin, 1 - margin].
    """

    __pydantic_config__ = {"extra": "forbid"}

    prior: str = "harmonic"
    spring: float = 1.0
    margin: float = 1e-3

    def __post_init__(self) -> None:
        if self.prior not in PRIORS:
            raise BadInput(f"expected kernel.prior among {PRIORS}, got {self.prior!r}")
        if not self.spring > 0 or not 0 < self.margin < 0.5:
            raise BadInput(f"expected kernel.spring > 0 and margin in (0, 0.5), got {self}")

    def harmonic(self, batch: Batch) -> HarmonicPrior:
        """Prior of the molecules of a batch."""
        if self.prior == "gaussian":
            return HarmonicPrior.isotropic(batch.mask)
        kinds = batch.cond["pair_types"]
        bonded = torch.isin(kinds, torch.tensor(BONDS, device=kinds.device))
        return HarmonicPrior.from_bonds(bonded, spring=self.spring, mask=batch.mask)


@dataclass(frozen=True)
class ConformerArm:
    """What one run is trained with.

    Parameters
    ----------
    target : EstimatorSpec
        plain, automorphism, kept_prior, rotation, rotation_samples, published_conformers, or, for
        the aligned coupling, aligned_permutation.
    coupling : str
        `independent`: the prior sample is independent of the data; `aligned`: it is first
        superposed on them (ET-Flow).
    bridge : float
        sigma of the Brownian bridge around the path, angstrom (ET-Flow: 0.1).
    conformers : int
        Conformers of the molecule that share the mean, at most; 0 for the sampled one alone.
    loss : str
        `square`, or `norm`, the unsquared distance of each atom (as published), whose minimiser
        is no conditional mean.
    """

    __pydantic_config__ = {"extra": "forbid"}

    target: EstimatorSpec
    coupling: str = "independent"
    bridge: float = 0.0
    conformers: int = 0
    loss: str = "square"

    def __post_init__(self) -> None:
        if self.coupling not in COUPLINGS:
            raise BadInput(f"expected coupling among {COUPLINGS}, got {self.coupling!r}")
        if self.loss not in LOSSES:
            raise BadInput(f"expected loss among {tuple(LOSSES)}, got {self.loss!r}")
        if self.conformers < 0:
            raise BadInput(f"expected conformers >= 0, got {self.conformers}")

    def kernel(self, harmonic: HarmonicPrior) -> NoiseKernel:
        """Noise kernel of a batch with this prior."""
        if self.coupling == "aligned":
            return AlignedCoupling(harmonic, sigma=self.bridge)
        return HarmonicKernel(harmonic, sigma=self.bridge)


@final
@dataclass(frozen=True)
class _UnitScale:
    """The network predicts the velocity itself, in angstrom."""

    def __call__(self, t: PerSample) -> PerSample:
        """Return ones, (B,)."""
        return torch.ones_like(t)


@final
@dataclass(frozen=True)
class ConformerObjective:
    """E |D(x_t, t) - E[velocity | x_t]|^2 with the prior of each molecule.

    Parameters
    ----------
    kernel : ConformerKernelConfig
    arm : ConformerArm
    dataset : MoleculeDataset
        Gives automorphisms and conformers of the rows `batch.ids`.
    """

    kernel: ConformerKernelConfig
    arm: ConformerArm
    dataset: MoleculeDataset = field(repr=False)

    def draw_times(
        self, num: int, *, generator: torch.Generator, device: torch.device
    ) -> Float[Tensor, " B"]:
        """Draw times uniformly, away from both ends by the margin."""
        share = torch.rand(num, generator=generator, device=device)
        return self.kernel.margin + (1 - 2 * self.kernel.margin) * share

    def __call__(
        self, denoiser: Denoiser, batch: Batch, t: Tensor, *, generator: torch.Generator
    ) -> Loss:
        """Noise the batch, average the velocity, compare with the network."""
        objective = Objective({FIELD: self.diffused(batch, self.arm.target)})
        context = {FIELD: self.context(batch, generator=generator)}
        return objective(denoiser, batch, t, context=context, generator=generator)

    def diffused(self, batch: Batch, target: EstimatorSpec) -> DiffusedField:
        """Kernel and estimator of the molecules of a batch."""
        kernel = self.arm.kernel(self.kernel.harmonic(batch))
        estimator: OrbitEstimator = build_estimator(
            target, kernel, parametrization=Parametrization.VELOCITY
        )
        return DiffusedField(kernel, estimator, _UnitScale(), loss=LOSSES[self.arm.loss])

    def context(
        self, batch: Batch, *, generator: torch.Generator, target: EstimatorSpec | None = None
    ) -> OrbitContext:
        """Automorphisms and conformers that the estimator averages over."""
        kind = (target or self.arm.target).kind
        found: dict[str, Any] = {}
        rows = batch.ids.cpu()
        if kind in ("automorphism", "kept_prior"):
            found["automorphisms"] = self.dataset.automorphisms(rows)
        elif kind in ("aligned_permutation", "published_conformers"):
            most = LISTED if kind == "aligned_permutation" else PUBLISHED_LISTED
            # drawn on the CPU, so that a GPU run draws the same lists
            seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
            lists = _lists(self.dataset, rows, most, torch.Generator().manual_seed(seed))
            permutations, real = padded_lists(lists, batch.mask.shape[1])
            found["permutations"] = permutations.to(batch.mask.device)
            found["permutation_mask"] = real.to(batch.mask.device)
        if self.arm.conformers and kind in ("automorphism", "kept_prior", "rotation"):
            points, log_prior = self.dataset.conformers(rows, most=self.arm.conformers)
            found["conformers"] = points.to(batch.mask.device)
            found["log_prior"] = log_prior.to(batch.mask.device)
        return OrbitContext(**found)


def _lists(
    dataset: MoleculeDataset, rows: Tensor, most: int, generator: torch.Generator
) -> list[Tensor]:
    """Whole groups where they are small, else a random subset with the identity."""
    return [
        group.elements() if group.order <= most else group.subset(most, generator=generator)
        for group in dataset.automorphisms(rows)
    ]


@final
class ConformerYardstick:
    """Mean square distance of the network's velocity to the best known mean, by time.

    For the independent coupling the exact mean over rotations, automorphisms and conformers; for
    the aligned one without a bridge that over permutations; with a bridge the plain velocity.
    Arms of one coupling share it. Noise is fixed, so that all networks see the same x_t.

    Parameters
    ----------
    objective : ConformerObjective
        Of the validation set.
    rows : (B,) int64
        Validation molecules.
    times : sequence of float
    """

    def __init__(
        self, objective: ConformerObjective, rows: Tensor, times: tuple[float, ...]
    ) -> None:
        self.times = times
        self.batch = objective.dataset.batch(rows)
        target = best_target(objective.arm)
        diffused = objective.diffused(self.batch, target)
        context = objective.context(self.batch, generator=stream("yardstick"), target=target)
        self.levels: list[tuple[Tensor, Tensor, Tensor]] = []
        for index, time in enumerate(times):
            generator = stream("yardstick", index)
            t = torch.full((len(rows),), time)
            x_0 = self.batch.state[FIELD]
            x_t, noise = diffused.kernel.sample(x_0, t, mask=self.batch.mask, generator=generator)
            value = diffused.estimator(
                x_t, x_0, t, context=context, noise=noise, mask=self.batch.mask,
                generator=generator,
            ).value  # fmt: skip
            self.levels.append((x_t, t, value))

    @torch.no_grad()
    def measure(self, denoiser: nn.Module) -> Mapping[str, Any]:
        """Return `distance` by time, angstrom^2, and `distance_mean`."""
        device = next(denoiser.parameters()).device
        batch = self.batch.to(device)
        training = denoiser.training
        denoiser.eval()
        distance = {}
        for time, (x_t, t, value) in zip(self.times, self.levels, strict=True):
            said = denoiser({FIELD: x_t.to(device)}, t.to(device), batch.cond, batch.mask)[FIELD]
            error = mean_over_points((said - value.to(device)) ** 2, batch.mask)
            distance[f"{time:g}"] = float(error.mean())
        denoiser.train(training)
        return {"distance": distance, "distance_mean": sum(distance.values()) / len(distance)}


def best_target(arm: ConformerArm) -> EstimatorSpec:
    """The target with the least noise that is exact for an arm's coupling."""
    if arm.coupling == "independent":
        return EstimatorSpec(kind="automorphism")
    return EstimatorSpec(kind="plain" if arm.bridge else "aligned_permutation")
