import pytest
import torch

from orbitdiff.errors import BadInput, CheckpointError
from orbitdiff.inference import demo_checkpoint, generate_crystals, parse_formula


def test_structures_have_the_composition_and_follow_the_seed():
    first = generate_crystals("BaTiO3", 3, seed=1, steps=8)
    again = generate_crystals("BaTiO3", 1, seed=1, steps=8)
    other = generate_crystals("BaTiO3", 1, seed=2, steps=8)
    assert [s.composition.formula for s in first] == ["Ba1 Ti1 O3"] * 3
    near = torch.tensor(first[0].lattice.matrix)
    assert torch.allclose(near, torch.tensor(again[0].lattice.matrix), atol=1e-3)
    assert not torch.allclose(near, torch.tensor(other[0].lattice.matrix), atol=1e-3)


def test_packaged_model_is_small():
    size = sum(path.stat().st_size for path in demo_checkpoint().iterdir())
    assert size < 2**20


@pytest.mark.parametrize("formula", ["", "BaXx3", "Ba0.5TiO3", "O1000", "hello world"])
def test_bad_formulas_are_refused(formula):
    with pytest.raises(BadInput):
        parse_formula(formula)


def test_missing_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="--checkpoint"):
        generate_crystals("NaCl", checkpoint=tmp_path / "nothing")
