"""The bundle that trains: same start as without text, texts left out, types hidden for half."""

import pytest
import torch

from orbitdiff.batch import Batch
from orbitdiff.errors import BadInput
from orbitdiff.kernels.absorbing import AbsorbingTypes
from orbitdiff.nn.cspnet import CSPNetConfig
from orbitdiff.nn.text_conditioning import TextConfig
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.tasks.crystals import KernelConfig, build_network, build_objective
from orbitdiff.tasks.like_atoms import LikeAtomsObjective
from orbitdiff.tasks.text_crystals import (
    PromptsConfig,
    TextArm,
    TextModelConfig,
    build_text_network,
    unknown_type,
)
from orbitdiff.tasks.types_objective import TypesObjective

SIZE = CSPNetConfig(hidden=12, layers=2, frequencies=3, time_dim=6)
MODEL = TextModelConfig(SIZE, TextConfig(width=5))
PLAIN = EstimatorSpec(kind="plain")


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(11)


@pytest.mark.parametrize(("text", "types"), [("none", "given"), ("short", "given"),
                                             ("long", "denoised")])  # fmt: skip
def test_every_arm_starts_from_the_weights_of_the_task_without_text(text, types) -> None:
    expected = build_network(SIZE, generator=seeded()).state_dict()
    arm = TextArm(PLAIN, text, types)
    found = build_text_network(MODEL, arm, dim=7, generator=seeded()).state_dict()
    for name, value in expected.items():
        assert torch.equal(found[name], value)
    assert (len(found) == len(expected)) == (text == "none")


@pytest.fixture
def batch(generator) -> Batch:
    count, atoms = 64, 3
    return Batch(
        {"lattice": torch.randn(count, 3, 3, generator=generator) + 4 * torch.eye(3),
         "frac": torch.rand(count, atoms, 3, generator=generator)},
        torch.ones(count, atoms, dtype=torch.bool),
        {"atom_types": torch.randint(1, 100, (count, atoms), generator=generator)},
        torch.arange(count),
    )  # fmt: skip


def test_half_of_the_crystals_keep_their_types(batch) -> None:
    unknown = unknown_type(SIZE)
    objective = TypesObjective(build_objective(KernelConfig(), PLAIN), AbsorbingTypes(unknown))
    seen = []
    logits = torch.zeros(64, 3, 100, requires_grad=True)

    def denoiser(x_t, t, cond, mask):
        seen.append(cond["atom_types"])
        zero = {name: torch.zeros_like(value) for name, value in x_t.items()}
        return {**zero, "types": logits}

    t = torch.ones(64)
    found = objective(denoiser, batch, t, generator=seeded())
    hidden = (seen[0] == unknown).all(1)
    assert (hidden | (seen[0] == batch.cond["atom_types"]).all(1)).all()
    assert 0.3 < float(hidden.double().mean()) < 0.7
    chance = torch.tensor(100.0).log()
    torch.testing.assert_close(found.per_field["types"], hidden * chance)
    structure = sum(found.per_field[name] for name in ("lattice", "frac"))
    torch.testing.assert_close(found.per_sample, structure + found.per_field["types"])
    found.value.backward()
    assert (logits.grad.abs().sum((1, 2)) > 0).tolist() == hidden.tolist()


@pytest.mark.parametrize("types", ["given", "denoised"])
def test_the_permutation_arm_sees_which_atoms_are_alike(batch, types) -> None:
    same = torch.full((64, 3), 8)
    alike = Batch(batch.state, batch.mask, {"atom_types": same}, batch.ids)
    other = Batch(batch.state, batch.mask, {"atom_types": same + torch.arange(3)}, batch.ids)

    def loss(kind: str, of: Batch) -> torch.Tensor:
        structure = build_objective(KernelConfig(), EstimatorSpec(kind=kind))
        objective = LikeAtomsObjective(structure)
        if types == "denoised":
            objective = TypesObjective(structure, AbsorbingTypes(unknown_type(SIZE)))

        def denoiser(x_t, t, cond, mask):
            zero = {name: torch.zeros_like(value) for name, value in x_t.items()}
            return {**zero, "types": torch.zeros(64, 3, 100)}

        t = torch.full((64,), 0.9)
        return objective(denoiser, of, t, generator=seeded()).per_field["frac"]

    # averaged over more, the target of the same noised crystals is smaller
    assert loss("torus_permutation", alike).mean() < 0.9 * loss("torus", alike).mean()
    torch.testing.assert_close(
        loss("torus_permutation", other), loss("torus", other), atol=1e-4, rtol=1e-3
    )


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(BadInput, match="arm's text"):
        TextArm(PLAIN, "novel")
    with pytest.raises(BadInput, match="given or denoised"):
        TextArm(PLAIN, "short", "maybe")
    with pytest.raises(BadInput, match=r"prompts\.kinds"):
        PromptsConfig(kinds=("none",))
    with pytest.raises(BadInput, match="max_tokens"):
        PromptsConfig(max_tokens=-1)
