"""The texts stage: prompts beside their crystals, and the vectors of an encoder."""

import json
import shutil
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("pymatgen")

from orbitdiff.data.crystals import CrystalDataset
from orbitdiff.data.prompts import prompt
from orbitdiff.data.text_crystals import Prompt, load_text_crystals, read_prompts, shuffled_texts
from orbitdiff.data.text_vectors import vectors_folder
from orbitdiff.errors import BadInput
from orbitdiff.tasks.text_crystals import PromptsConfig
from pipelines.stages.text_crystals import texts

Write = Callable[..., Path]


def test_texts_stand_beside_the_crystals_they_describe(
    text_data: Path, with_rejects: Path, letters: type[Any]
) -> None:
    encoder = letters()
    for split in ("train", "val", "test"):
        rows = read_prompts(text_data, split)
        crystals = CrystalDataset.load(with_rejects, split)
        assert [one.id for one in rows.fields] == crystals.ids
        for kind in ("short", "composition"):
            wanted = [prompt(one, kind, seed=4) for one in rows.fields]
            assert [one.text for one in rows.prompts[kind]] == wanted
            found = load_text_crystals(text_data, split, kind)
            assert found.ids == crystals.ids
            assert torch.equal(found.conditions["text"], encoder(wanted))
            batch = found.batch([2, 0])
            assert torch.equal(batch.cond["text"], encoder([wanted[2], wanted[0]]))
            assert batch.cond["has_text"].all()
        assert set(rows.prompts) == {"short", "composition"}
    fields = {one.id: one for one in read_prompts(text_data, "test").fields}
    assert (fields["p0"].formula, fields["p0"].spacegroup) == ("BaTiO3", 221)
    assert "has_text" not in load_text_crystals(text_data, "test", "none").conditions
    with pytest.raises(BadInput, match=r"'long'.*\['composition', 'short'\]"):
        load_text_crystals(text_data, "test", "long")
    about = json.loads((text_data / "manifest.json").read_text())
    assert about["prompts"]["over_the_limit"] == {"short": 24, "composition": 24}
    assert about["rejected"] == {"broken CIF": 1}


def test_vectors_differ_between_machines_and_the_data_do_not(
    text_data: Path, write_texts: Write, letters: type[Any], tmp_path: Path
) -> None:
    class LastBits(letters):
        def __call__(self, texts: Sequence[str]) -> torch.Tensor:
            return super().__call__(texts) * (1 + 2**-20)

    other = write_texts(tmp_path / "elsewhere/prototypes", LastBits())
    here, there = (load_text_crystals(one, "test", "short") for one in (text_data, other))
    assert not torch.equal(here.conditions["text"], there.conditions["text"])
    names = sorted(path.name for path in text_data.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    assert all((text_data / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_vectors_are_held_against_the_texts(
    text_data: Path, write_texts: Write, letters: type[Any]
) -> None:
    folder = vectors_folder(text_data)
    shutil.copy(folder / "composition-test.safetensors", folder / "short-test.safetensors")
    with pytest.raises(BadInput, match="other texts or of another encoder; run the texts stage"):
        load_text_crystals(text_data, "test", "short")
    (folder / "short-test.safetensors").write_bytes(b"cut")
    with pytest.raises(BadInput, match=r"short-test\.safetensors is damaged"):
        load_text_crystals(text_data, "test", "short")
    shutil.rmtree(folder)
    with pytest.raises(BadInput, match="expected the vectors .*found none; run the texts stage"):
        load_text_crystals(text_data, "test", "short")

    class Other(letters):
        fingerprint = "others"

    write_texts(text_data, letters())
    others = write_texts(text_data.parent / "others", Other())
    vectors_folder(others).rename(folder.with_name("kept"))
    shutil.copytree(folder, vectors_folder(others))
    with pytest.raises(BadInput, match="of another encoder"):
        load_text_crystals(others, "test", "short")


def test_second_run_computes_no_vector(
    text_data: Path, write_texts: Write, letters: type[Any]
) -> None:
    encoder = letters()
    write_texts(text_data, encoder)
    assert encoder.seen == []


def test_a_part_of_a_split_is_the_first_by_hash(
    with_rejects: Path, write_texts: Write, letters: type[Any], tmp_path: Path
) -> None:
    whole = CrystalDataset.load(with_rejects, "train")
    first = sorted(whole.ids, key=lambda id: sha256(id.encode()).digest())[:3]
    parts = {"prototypes": {"train": 3}, "else": {}}
    out = write_texts(tmp_path / "part", letters(), kinds=("short",), parts=parts)
    found = load_text_crystals(out, "train", "short")
    assert found.ids == [id for id in whole.ids if id in first] != whole.ids
    assert len(found.conditions["text"]) == 3
    rest = load_text_crystals(out, "test", "short")
    assert rest.ids == CrystalDataset.load(with_rejects, "test").ids
    about = json.loads((out / "manifest.json").read_text())
    assert about["counts"]["train"] == 3
    assert about["note"].endswith("of which the first by sha256 of id: 3 of train")


@pytest.mark.parametrize("part", [{"train": 0}, {"all": 5}])
def test_parts_that_cannot_be_are_refused(part: dict[str, int]) -> None:
    with pytest.raises(BadInput, match=r"prompts\.parts\.mp_20"):
        PromptsConfig(parts={"mp_20": part})


def test_crystals_without_space_group_are_set_aside(
    write_texts: Write, letters: type[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = texts.prompt_fields

    def refuse(crystal: Any, properties: Any) -> Any:
        if crystal.id == "cscl":
            raise BadInput("no space group found")
        return real(crystal, properties)

    monkeypatch.setattr(texts, "prompt_fields", refuse)
    out = write_texts(tmp_path / "out", letters())
    about = json.loads((out / "manifest.json").read_text())
    assert about["counts"] == {"train": 7, "val": 7, "test": 7}
    assert about["rejected"] == {"broken CIF": 1, "no space group": 3}
    assert "cscl" not in load_text_crystals(out, "test", "short").ids
    assert (out / "rejected.csv").read_text().count("no space group") == 6


def test_fallbacks_are_flagged_and_counted(
    write_texts: Write, letters: type[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(fields: Any, kind: str, **settings: Any) -> list[Prompt]:
        assert set(settings["structures"]) == {one.id for one in fields}
        return [Prompt(one.id, "a", "robocrys KeyError" if n == 1 else "")
                for n, one in enumerate(fields)]  # fmt: skip

    monkeypatch.setattr(texts, "build_prompts", fake)
    out = write_texts(tmp_path / "out", letters(), kinds=("long",))
    about = json.loads((out / "manifest.json").read_text())["prompts"]
    assert about["fallbacks"] == {"long": {"robocrys KeyError": 3}}
    flagged = [one.id for one in read_prompts(out, "val").prompts["long"] if one.fallback]
    assert flagged == ["p1"]


def test_shuffled_texts_move_to_the_next_crystal_and_nowhere_else(text_data: Path) -> None:
    whole = load_text_crystals(text_data, "test", "short")
    mixed = shuffled_texts(whole, [3, 0, 5])
    own, other = whole.conditions["text"], mixed.conditions["text"]
    assert torch.equal(other[[3, 0, 5]], own[[0, 5, 3]])
    assert torch.equal(other[[1, 2, 4, 6, 7]], own[[1, 2, 4, 6, 7]])
    assert not torch.equal(own, other)
    with pytest.raises(BadInput, match="two crystals"):
        shuffled_texts(whole, [1])
