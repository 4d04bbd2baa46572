"""Draw protein backbones with a trained model: lengths in, CA traces or biotite arrays out."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from orbitdiff.batch import Batch
from orbitdiff.data.protein_files import to_atom_array
from orbitdiff.data.proteins import blank_batch
from orbitdiff.errors import BadInput
from orbitdiff.inference.demo import demo_checkpoint
from orbitdiff.nn.backbone_transformer import BackboneTransformerConfig
from orbitdiff.samplers.flow import FlowConfig, FlowSampler, isotropic
from orbitdiff.tasks.backbone_objective import FIELD, BackboneKernelConfig
from orbitdiff.tasks.backbones import build_network
from orbitdiff.training import checkpoint as store

if TYPE_CHECKING:
    from biotite.structure import AtomArray

__all__ = [
    "GLYCINE",
    "BackboneModel",
    "LengthWarning",
    "draw_backbones",
    "generate_backbones",
    "parse_lengths",
]

GLYCINE = "G"
"""Residue that drawn traces are written with: they have no sequence."""

LONGEST = 2000
"""Residues that `generate` accepts; the memory of a chain grows with their square."""

PAIRS_AT_ONCE = 2**20
"""Pairs of residues of a batch, over its chains."""

STRIDE = 10**6


class LengthWarning(UserWarning):
    """A chain is longer or shorter than all that the model was trained on."""


@final
@dataclass(frozen=True)
class BackboneModel:
    """A trained network with the prior that it was trained for.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode.
    kernel : BackboneKernelConfig
    sampler : FlowConfig
        Sampler that the preset uses.
    about : dict
        Preset, data set, estimator, seed, git revision, data hash.
    """

    network: nn.Module
    kernel: BackboneKernelConfig
    sampler: FlowConfig
    about: dict[str, Any]

    @classmethod
    def load(cls, folder: Path, *, device: torch.device | str = "cpu") -> "BackboneModel":
        """Read a model or checkpoint folder.

        Parameters
        ----------
        folder : Path
            Holds model.safetensors, config.json and checksums.json.
        device : device
        """
        weights, config = store.load_task_model(folder, "backbones")
        network = build_network(
            BackboneTransformerConfig(**config.pop("model")),
            generator=torch.Generator().manual_seed(0),
        )
        network.load_state_dict(weights)
        kernel = BackboneKernelConfig(**config.pop("kernel"))
        sampler = FlowConfig(**config.pop("sampler"))
        return cls(network.to(device).eval(), kernel, sampler, config)

    def sample(
        self,
        template: Batch,
        *,
        seed: int,
        sampler: FlowConfig | None = None,
        callback: Callable[..., None] | None = None,
    ) -> list[NDArray[np.float32]]:
        """Draw one trace (L, 3), angstrom, centred, per row of the template.

        Parameters
        ----------
        template : Batch
            From `blank_batch`; the noise of a row depends on (seed, id) alone.
        seed : int
        sampler : FlowConfig, optional
            Another sampler than the preset's.
        callback : callable, optional
            Called after each step.
        """
        device = next(self.network.parameters()).device
        drawn = FlowSampler(sampler or self.sampler, field=FIELD).sample(
            self.network,
            template.to(device),
            seed=seed,
            draw=isotropic(self.kernel.prior_scale),
            callback=callback,
        )[FIELD]
        points = drawn.float().cpu().numpy()
        counts = template.mask.sum(1).tolist()
        return [points[row, :count] for row, count in enumerate(counts)]

    def sample_many(
        self,
        wanted: Sequence[tuple[int, int]],
        *,
        seed: int,
        sampler: FlowConfig | None = None,
        batch_size: int = 64,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[tuple[int, int], NDArray[np.float32]]:
        """Draw chain k of length L for each wanted (L, k), chains of like length together.

        Parameters
        ----------
        wanted : sequence of (int, int)
        seed : int
            The noise depends on (seed, L, k) alone.
        sampler : FlowConfig, optional
        batch_size : int
            At most; long chains go in smaller batches.
        progress : callable, optional
            Called as progress(done, total) after each batch.
        """
        order = sorted(wanted, reverse=True)
        found: dict[tuple[int, int], NDArray[np.float32]] = {}
        while len(found) < len(order):
            start = len(found)
            size = min(batch_size, max(1, PAIRS_AT_ONCE // order[start][0] ** 2))
            part = order[start : start + size]
            names = [length * STRIDE + k for length, k in part]
            template = blank_batch([length for length, _ in part], ids=names)
            found.update(zip(part, self.sample(template, seed=seed, sampler=sampler), strict=True))
            if progress is not None:
                progress(len(found), len(order))
        return found


def parse_lengths(text: str) -> list[int]:
    """Lengths of a list such as 80 or 60,80,100.

    Parameters
    ----------
    text : str

    Raises
    ------
    BadInput
        Something that is no whole number.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise BadInput(f"expected lengths such as 60,80,100, got {text!r}") from error


def generate_backbones(
    lengths: int | Sequence[int],
    n: int = 1,
    *,
    checkpoint: Path | None = None,
    seed: int = 0,
    steps: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> "list[AtomArray]":
    """Draw n backbones of each length.

    Parameters
    ----------
    lengths : int or sequence of int
        Residues.
    n : int
        Chains of each length.
    checkpoint : Path, optional
        Model folder; default: the small model that the package ships, of chains of 40 to 64
        residues.
    seed : int
        Chain k of length L depends on (seed, L, k) alone.
    steps : int, optional
        Sampler steps, default the preset's.
    progress : callable, optional
        Called as progress(done, total).

    Returns
    -------
    list of biotite AtomArray
        CA atoms, n per length in the order of the lengths; residues are called GLY.

    Raises
    ------
    BadInput
        Bad n, a length below 1 or above 2,000 residues.
    CheckpointError
        Missing or damaged model.

    Warns
    -----
    LengthWarning
        A length that the model was not trained on.
    """
    asked = [lengths] if isinstance(lengths, int) else list(lengths)
    drawn = draw_backbones(
        asked, n, checkpoint=checkpoint or demo_checkpoint("backbones"), seed=seed, steps=steps,
        progress=progress,
    )  # fmt: skip
    return [to_atom_array(ca, GLYCINE * len(ca)) for ca in drawn]


def draw_backbones(
    lengths: Sequence[int],
    n: int,
    *,
    checkpoint: Path,
    seed: int = 0,
    steps: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[NDArray[np.float32]]:
    """Draw what `generate_backbones` returns, as arrays (L, 3)."""
    if not 1 <= n < STRIDE:
        raise BadInput(f"expected n of at least 1 and below {STRIDE:,}, got {n}")
    if not lengths or not all(1 <= length <= LONGEST for length in lengths):
        raise BadInput(f"expected lengths of 1 to {LONGEST:,} residues, got {list(lengths)}")
    model = BackboneModel.load(checkpoint)
    low, high = model.about.get("lengths", (1, LONGEST))
    if any(not low <= length <= high for length in lengths):
        warnings.warn(
            f"the model was trained on chains of {low} to {high} residues; those of other lengths "
            "tend to have clashes",
            LengthWarning,
            stacklevel=3,
        )
    sampler = model.sampler if steps is None else replace(model.sampler, steps=steps)
    wanted = [(length, k) for length in dict.fromkeys(lengths) for k in range(n)]
    drawn = model.sample_many(wanted, seed=seed, sampler=sampler, progress=progress)
    return [drawn[length, k] for length in dict.fromkeys(lengths) for k in range(n)]
