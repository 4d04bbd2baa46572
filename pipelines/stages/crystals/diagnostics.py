"""Figures about estimators that need no training: effective sample size by noise level."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from orbitdiff.data.crystals import CrystalDataset
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.seeding import stream
from orbitdiff.tasks.crystals import build_objective

__all__ = ["SAMPLED", "ess_of_estimators"]

SAMPLED = ("importance", "isir")


def ess_of_estimators(
    settings: Any, estimators: Mapping[str, EstimatorSpec], data: Path, *, num: int = 64
) -> dict[str, dict[str, Any]]:
    """Mean effective sample size of each sampled estimator, by noise level.

    Parameters
    ----------
    settings : CrystalsConfig
    estimators : mapping of name to EstimatorSpec
        Closed-form ones are left out.
    data : Path
        Prepared folder; validation crystals, the first `num` by hash.

    Returns
    -------
    dict
        {estimator: {"num_samples": K, "ess": {sigma: mean over crystals}}}
    """
    chosen = {name: spec for name, spec in estimators.items() if spec.kind in SAMPLED}
    if not chosen:
        return {}
    dataset = CrystalDataset.load(data, "val")
    batch = dataset.batch(dataset.first_k_by_hash(min(num, len(dataset))))
    out: dict[str, dict[str, Any]] = {}
    for name, spec in chosen.items():
        field = build_objective(settings.kernel, spec).fields["frac"]
        low, high = settings.kernel.sigma_min, settings.kernel.sigma_max
        ess: dict[str, float] = {}
        for index, sigma in enumerate(settings.validation.sigmas):
            position = torch.log(torch.tensor(sigma / low)) / torch.log(torch.tensor(high / low))
            t = position.clamp(0, 1).expand(len(batch)).contiguous()
            x_0, generator = batch.state["frac"], stream("ess", index)
            noised = field.kernel.sample(x_0, t, mask=batch.mask, generator=generator)
            target = field.estimator(
                noised.x_t, x_0, t, noise=noised.noise, mask=batch.mask, generator=generator
            )
            if target.info.ess is not None:
                ess[f"{sigma:g}"] = float(target.info.ess.mean())
        if ess:
            out[name] = {"num_samples": spec.num_samples, "ess": ess}
    return out
