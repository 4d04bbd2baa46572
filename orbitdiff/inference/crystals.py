"""Use a trained model: load a checkpoint, sample crystals, return pymatgen structures."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from orbitdiff.batch import Batch
from orbitdiff.data.crystals import Crystal, to_structure
from orbitdiff.errors import BadInput, MissingExtra
from orbitdiff.inference.demo import demo_checkpoint
from orbitdiff.nn.cspnet import CSPNetConfig
from orbitdiff.objective import Objective
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.samplers.config import SamplerConfig, build_sampler
from orbitdiff.tasks.crystals import KernelConfig, build_network, build_objective
from orbitdiff.training import checkpoint as store

__all__ = ["CrystalModel", "generate_crystals", "parse_formula"]

LARGEST_CELL = 64
"""Atoms per cell that `generate` accepts; the networks are trained on at most 20."""


@final
@dataclass(frozen=True)
class CrystalModel:
    """A trained network with the kernels it was trained for.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode.
    objective : Objective
        Its fields give the samplers kernels and scales.
    sampler : SamplerConfig
        Sampler that the preset uses.
    about : dict
        Preset, data set, estimator, seed, git revision, data hash.
    """

    network: nn.Module
    objective: Objective
    sampler: SamplerConfig
    about: dict[str, Any]

    @classmethod
    def load(cls, folder: Path, *, device: torch.device | str = "cpu") -> "CrystalModel":
        """Read a model or checkpoint folder.

        Parameters
        ----------
        folder : Path
            Holds model.safetensors, config.json and checksums.json.
        device : device
        """
        weights, config = store.load_task_model(folder, "crystals")
        network = build_network(
            CSPNetConfig(**config.pop("model")), generator=torch.Generator().manual_seed(0)
        )
        network.load_state_dict(weights)
        objective = build_objective(
            KernelConfig(**config.pop("kernel")), EstimatorSpec(kind="plain")
        )
        sampler = SamplerConfig(**config.pop("sampler"))
        return cls(network.to(device).eval(), objective, sampler, config)

    def sample(
        self,
        template: Batch,
        *,
        seed: int,
        sampler: SamplerConfig | None = None,
        callback: Callable[..., None] | None = None,
    ) -> list[Crystal]:
        """Draw one crystal per row of the template.

        Parameters
        ----------
        template : Batch
            Atom types, mask and ids; the noise of a row depends on (seed, id) alone.
        seed : int
        sampler : SamplerConfig, optional
            Another sampler than the preset's.
        callback : callable, optional
            Called after each step.
        """
        device = next(self.network.parameters()).device
        drawn = build_sampler(sampler or self.sampler, self.objective.fields).sample(
            self.network, template.to(device), seed=seed, callback=callback
        )
        frac, lattice = drawn["frac"].double().cpu(), drawn["lattice"].double().cpu()
        counts = template.mask.sum(1).tolist()
        types = template.cond["atom_types"].cpu().numpy()
        return [
            Crystal(
                id=str(int(template.ids[row])),
                atom_types=types[row, :count],
                frac=frac[row, :count].numpy() % 1.0,
                lattice=lattice[row].numpy(),
            )
            for row, count in enumerate(counts)
        ]


def parse_formula(formula: str) -> list[int]:
    """Atomic numbers of one cell of a formula such as BaTiO3 or Ba2Ti2O6, in its order.

    Parameters
    ----------
    formula : str

    Raises
    ------
    BadInput
        Empty formula, unknown element, fractional amount, or more atoms than supported.
    """
    try:
        from pymatgen.core import Composition, Element
    except ImportError as error:
        raise MissingExtra.naming("pymatgen", "crystal") from error
    try:
        composition = Composition(formula)
        amounts = {element.Z: amount for element, amount in composition.items()}
    except (ValueError, KeyError, AttributeError) as error:
        raise BadInput(
            f"expected a chemical formula such as BaTiO3, got {formula!r}: {error}"
        ) from error
    # pymatgen reads an unknown symbol such as Xx as a dummy species with a made-up number
    unknown = [str(element) for element in composition if not isinstance(element, Element)]
    if unknown:
        raise BadInput(f"expected chemical elements, got {unknown} in {formula!r}")
    if not amounts or any(amount != int(amount) for amount in amounts.values()):
        raise BadInput(f"expected whole numbers of atoms, such as BaTiO3, got {formula!r}")
    numbers = [z for z, amount in amounts.items() for _ in range(int(amount))]
    if len(numbers) > LARGEST_CELL:
        raise BadInput(
            f"expected at most {LARGEST_CELL} atoms in the cell, got {len(numbers)} from {formula}"
        )
    return numbers


def generate_crystals(
    formula: str,
    n: int = 1,
    *,
    checkpoint: Path | None = None,
    seed: int = 0,
    steps: int | None = None,
    callback: Callable[..., None] | None = None,
) -> list[Any]:
    """Draw crystal structures of a composition.

    Parameters
    ----------
    formula : str
        Atoms of one cell, such as BaTiO3.
    n : int
        Number of structures.
    checkpoint : Path, optional
        Model folder; default: the demo model that the package ships.
    seed : int
        Structure k depends on (seed, k) alone.
    steps : int, optional
        Sampler steps, default the preset's.
    callback : callable, optional
        Called after each sampler step.

    Returns
    -------
    list of pymatgen Structure

    Raises
    ------
    BadInput
        Bad formula or n.
    CheckpointError
        Missing or damaged model.
    """
    if n < 1:
        raise BadInput(f"expected n of at least 1, got {n}")
    numbers = parse_formula(formula)
    model = CrystalModel.load(checkpoint or demo_checkpoint())
    sampler = model.sampler if steps is None else replace(model.sampler, steps=steps)
    types = torch.tensor(numbers).expand(n, -1).contiguous()
    template = Batch(
        state={"lattice": torch.zeros(n, 3, 3), "frac": torch.zeros(n, len(numbers), 3)},
        mask=torch.ones(n, len(numbers), dtype=torch.bool),
        cond={"atom_types": types},
        ids=torch.arange(n),
    )
    crystals = model.sample(template, seed=seed, sampler=sampler, callback=callback)
    return [to_structure(crystal) for crystal in crystals]
