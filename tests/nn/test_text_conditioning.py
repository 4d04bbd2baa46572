"""A text reaches the atoms as published, and leaves the network without text as it was."""

import pytest
import torch

from orbitdiff.errors import BadInput
from orbitdiff.nn.cspnet import CSPNet, CSPNetConfig
from orbitdiff.nn.guidance import UNTIL, Guided
from orbitdiff.nn.text_conditioning import TextConditioning, TextConfig

CONFIG = CSPNetConfig(hidden=16, layers=2, frequencies=4, time_dim=8)
SIZES = [4, 1, 3]
DIM = 12


def network(kind: str = "concatenation", *, text: bool = True, types: bool = False) -> CSPNet:
    torch.manual_seed(3)
    net = CSPNet(CONFIG)
    torch.manual_seed(3)
    reads = None
    if text:
        torch.manual_seed(9)
        reads = TextConditioning(TextConfig(kind, 6), dim=DIM, hidden=16, layers=2)
        torch.manual_seed(3)
    made = CSPNet(CONFIG, text=reads, types=types)
    for name, value in net.state_dict().items():
        assert torch.equal(value, made.state_dict()[name])
    return made.eval()


@pytest.fixture
def batch(generator):
    mask = torch.arange(4) < torch.tensor(SIZES)[:, None]
    lattice = 4 * torch.eye(3) + torch.randn(3, 3, 3, generator=generator)
    frac = torch.rand(3, 4, 3, generator=generator) * mask[..., None]
    cond = {
        "atom_types": torch.randint(1, 100, (3, 4), generator=generator) * mask,
        "text": torch.randn(3, DIM, generator=generator),
        "has_text": torch.tensor([True, True, False]),
    }
    return {"lattice": lattice, "frac": frac}, torch.rand(3, generator=generator), cond, mask


def differs(found, other) -> torch.Tensor:
    return (found["frac"] - other["frac"]).abs().amax((1, 2)) > 1e-6


@pytest.mark.parametrize("kind", ["concatenation", "film"])
def test_text_changes_only_crystals_that_have_one(batch, kind) -> None:
    x_t, t, cond, mask = batch
    net = network(kind)
    for part in net.text.film:
        torch.nn.init.normal_(part.weight, generator=torch.Generator().manual_seed(1))
    other = {**cond, "text": cond["text"] + 1}
    found, moved = net(x_t, t, cond, mask), net(x_t, t, other, mask)
    assert differs(found, moved).tolist() == [True, True, False]
    assert not torch.allclose(found["lattice"][1], moved["lattice"][1])
    torch.testing.assert_close(found["lattice"][2], moved["lattice"][2])
    assert (found["frac"][~mask] == 0).all()


def test_concatenation_is_one_layer_that_reads_all_three(batch) -> None:
    _, t, cond, _ = batch
    net = network()
    text = net.text.read(cond["text"], cond["has_text"])
    atoms = torch.cat([net.elements(cond["atom_types"]), net.time(t)[:, None].expand(-1, 4, -1)], 2)
    whole = torch.cat([net.node_in.weight, net.text.into_input.weight], 1)
    read = torch.cat([atoms, text[:, None].expand(-1, 4, -1)], 2)
    expected = read @ whole.T + net.node_in.bias
    found = net.node_in(atoms) + net.text.at_input(text)[:, None]
    torch.testing.assert_close(found, expected)


def test_film_starts_as_concatenation(batch) -> None:
    x_t, t, cond, mask = batch
    film, plain = network("film"), network()
    found, expected = film(x_t, t, cond, mask), plain(x_t, t, cond, mask)
    torch.testing.assert_close(found["frac"], expected["frac"])


def test_texts_are_standardised_by_the_training_set(generator) -> None:
    reads = TextConditioning(TextConfig(width=5), dim=DIM, hidden=4, layers=1)
    vectors = torch.randn(50, DIM, generator=generator) * 0.01 + 3.0
    vectors[:, 0] = 2.0
    reads.standardise(vectors)
    there = torch.ones(50, dtype=torch.bool)
    seen = (vectors - reads.mean) / reads.deviation
    torch.testing.assert_close(seen.mean(0), torch.zeros(DIM), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        seen.std(0, correction=0)[1:], torch.ones(DIM - 1), atol=1e-3, rtol=0
    )
    assert reads.read(vectors, there).isfinite().all()


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 3.0])
def test_guidance_is_linear_between_with_and_without(batch, weight) -> None:
    x_t, _, cond, mask = batch
    t = torch.tensor([0.1, UNTIL, 0.9])
    net = network(types=True)
    without = net(x_t, t, {**cond, "has_text": torch.zeros(3, dtype=torch.bool)}, mask)
    with_text = net(x_t, t, cond, mask)
    found = Guided(net, weight)(x_t, t, cond, mask)
    assert set(found) == {"lattice", "frac", "types"}
    weights = [weight, weight, weight if weight == 0 else 1.0]
    for name, value in found.items():
        w = torch.tensor(weights)[:, None, None]
        expected = (1 - w) * without[name] + w * with_text[name]
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-4)


def test_unknown_elements_have_a_vector_of_their_own(batch) -> None:
    x_t, t, cond, mask = batch
    net = network(types=True)
    hidden = cond["atom_types"].clone()
    hidden[0, :2] = CONFIG.max_element + 1
    found = net(x_t, t, {**cond, "atom_types": hidden}, mask)
    assert found["types"].shape == (3, 4, CONFIG.max_element)
    again = hidden.clone()
    again[0, :2] = 7
    assert differs(found, net(x_t, t, {**cond, "atom_types": again}, mask)).tolist()[0]
    torch.testing.assert_close(net.embedded(hidden)[0, :2], net.unknown.expand(2, -1))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(BadInput, match=r"text.kind among.*'magic'"):
        TextConfig(kind="magic")
    with pytest.raises(BadInput, match="text.width"):
        TextConfig(width=0)
    with pytest.raises(BadInput, match="text.dropout"):
        TextConfig(dropout=1.0)
    with pytest.raises(BadInput, match="guidance weight"):
        Guided(network(), -0.5)
