"""Absorbing types against D3PM's matrices, and the loss against its bound."""

import pytest
import torch

from orbitdiff.errors import BadInput
from orbitdiff.kernels.absorbing import AbsorbingTypes

UNKNOWN = 4
KERNEL = AbsorbingTypes(UNKNOWN)


def transition(s: float, t: float) -> torch.Tensor:
    """Matrix of a_t given a_s over the types 1, 2, 3 and unknown."""
    hide = (t - s) / (1 - s)
    matrix = (1 - hide) * torch.eye(UNKNOWN, dtype=torch.float64)
    matrix[:, -1] += hide
    return matrix


def test_transitions_compose_to_the_marginal() -> None:
    whole = transition(0.0, 0.3) @ transition(0.3, 0.7)
    torch.testing.assert_close(whole, transition(0.0, 0.7))


def test_noise_has_the_marginal_and_spares_padding(generator) -> None:
    types = torch.tensor([1, 2, 3, 0]).expand(20000, -1)
    t = torch.full((20000,), 0.3)
    noised = KERNEL.sample(types, t, generator=generator)
    assert (noised[:, 3] == 0).all()
    changed = noised != types
    assert (noised[changed] == UNKNOWN).all()
    torch.testing.assert_close(changed[:, :3].double().mean(0), torch.full((3,), 0.3).double(),
                               atol=0.015, rtol=0)  # fmt: skip
    assert torch.equal(KERNEL.sample(types, t * 0, generator=generator), types)
    everything = KERNEL.sample(types, t * 0 + 1, generator=generator)
    assert torch.equal(everything, KERNEL.prior(types > 0))


@pytest.mark.parametrize(("t", "s"), [(0.9, 0.4), (0.5, 0.49), (0.2, 0.0), (1.0, 0.8)])
def test_reveal_is_the_posterior_of_the_matrices(t, s, generator) -> None:
    believed = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    posterior = torch.zeros(UNKNOWN, dtype=torch.float64)
    for clean, weight in enumerate(believed):
        joint = transition(0.0, s)[clean] * transition(s, min(t, 1 - 1e-12))[:, -1]
        posterior += weight * joint / joint.sum()
    count = 40000
    types = torch.full((1, count), UNKNOWN)
    uniform = torch.rand(1, count, 2, generator=generator, dtype=torch.float64)
    logits = believed.log().expand(1, count, -1)
    drawn = KERNEL.reveal(types, logits, torch.tensor([t]), torch.tensor([s]), uniform)
    found = torch.bincount(drawn[0], minlength=UNKNOWN + 1)[1:] / count
    torch.testing.assert_close(found.double(), posterior, atol=0.012, rtol=0)


def test_known_types_stay_and_zero_reveals_all(generator) -> None:
    types = torch.tensor([[1, UNKNOWN, 3, 0]])
    uniform = torch.rand(1, 4, 2, generator=generator)
    logits = torch.randn(1, 4, 3, generator=generator)
    one, none = torch.ones(1), torch.zeros(1)
    kept = KERNEL.reveal(types, logits, one, one, uniform)
    assert torch.equal(kept, types)
    drawn = KERNEL.reveal(types, logits, one, none, uniform)
    assert drawn[0, [0, 2, 3]].tolist() == [1, 3, 0]
    assert 1 <= int(drawn[0, 1]) < UNKNOWN


def test_loss_is_the_cross_entropy_of_hidden_atoms(generator) -> None:
    logits = torch.randn(3, 4, 3, generator=generator)
    types = torch.tensor([[1, 2, 3, 0], [3, 3, 1, 2], [2, 0, 0, 0]])
    noised = torch.tensor([[UNKNOWN, 2, UNKNOWN, 0], [3, 3, 1, 2], [UNKNOWN, 0, 0, 0]])
    found = KERNEL.loss(logits, types, noised)
    chance = logits.softmax(-1)
    first = -(chance[0, 0, 0].log() + chance[0, 2, 2].log()) / 2
    expected = torch.stack([first, torch.zeros(()), -chance[2, 0, 1].log()])
    torch.testing.assert_close(found, expected)


def test_unknown_needs_a_type_below_it() -> None:
    with pytest.raises(BadInput, match="above 1"):
        AbsorbingTypes(1)
