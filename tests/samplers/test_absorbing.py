"""Types drawn along with a structure: the right joint law, whatever the batch."""

import pytest
import torch

from orbitdiff.batch import Batch
from orbitdiff.kernels.absorbing import AbsorbingTypes
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.samplers.absorbing import RevealingTypes
from orbitdiff.samplers.config import SamplerConfig, build_sampler
from orbitdiff.tasks.crystals import KernelConfig, build_objective

UNKNOWN = 4
KERNEL = AbsorbingTypes(UNKNOWN)
FIELDS = build_objective(KernelConfig(), EstimatorSpec(kind="plain")).fields


def template(count: int, atoms: int = 2, *, start: int = 0) -> Batch:
    mask = torch.ones(count, atoms, dtype=torch.bool)
    return Batch(
        {"lattice": torch.zeros(count, 3, 3), "frac": torch.zeros(count, atoms, 3)},
        mask,
        {"atom_types": KERNEL.prior(mask)},
        torch.arange(start, start + count),
    )


def unlike(x_t, t, cond, mask):
    """The exact law of two atoms that are 1 and 2, in either order, given what is known."""
    types = cond["atom_types"]
    other = types.flip(1)
    logits = torch.full((*types.shape, 3), -30.0)
    logits[..., 0] = torch.where(other == 1, -30.0, 0.0)
    logits[..., 1] = torch.where(other == 2, -30.0, 0.0)
    return {"lattice": x_t["lattice"] * 0, "frac": x_t["frac"] * 0, "types": logits}


def draw(denoiser, batch: Batch, *, sampler: str = "ancestral", steps: int = 60, seed: int = 0):
    drawing = RevealingTypes(denoiser, KERNEL, batch, seed=seed)
    sampled = build_sampler(SamplerConfig(sampler, steps), FIELDS)
    return sampled.sample(drawing, batch, seed=seed), drawing.finish()


@pytest.mark.parametrize("sampler", ["ancestral", "multistep", "ode", "predictor_corrector"])
def test_joint_law_of_two_atoms(sampler) -> None:
    found, types = draw(unlike, template(300), sampler=sampler)
    assert set(found) == {"lattice", "frac"}
    first = types[:, 0] == 1
    # both are revealed in one step, without knowing of each other, once in about `steps` samples
    assert (types[:, 0] != types[:, 1]).double().mean() > 0.94
    assert ((types == 1) | (types == 2)).all()
    assert abs(float(first.double().mean()) - 0.5) < 0.1


def test_draws_do_not_depend_on_the_batch() -> None:
    _, together = draw(unlike, template(12))
    _, alone = draw(unlike, template(4, start=5))
    assert torch.equal(together[5:9], alone)
    _, other = draw(unlike, template(12), seed=1)
    assert not torch.equal(together, other)


def test_known_types_are_never_touched() -> None:
    batch = template(6)
    batch.cond["atom_types"][:, 0] = 2
    _, types = draw(unlike, batch)
    assert types.tolist() == [[2, 1]] * 6


def test_one_step_reveals_everything() -> None:
    _, types = draw(unlike, template(5), steps=1)
    assert ((types == 1) | (types == 2)).all()
