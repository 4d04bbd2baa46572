"""From prepared crystals to a report of text-guided ones, on eight crystals."""

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
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
from orbitdiff.export import read_samples
from orbitdiff.inference.text_crystal_model import TextCrystalModel
from orbitdiff.metrics.crystal_generation import judge_generation
from orbitdiff.tasks.text_crystals import PromptsConfig
from pipelines.params import Params
from pipelines.stages import train
from pipelines.stages.base import LocalExecutor, NullTracker
from pipelines.stages.text_crystals import evaluate, guidance, report, sample, texts

EXECUTOR, TRACKER = LocalExecutor(), NullTracker()
ARMS = {
    "plain_none": {"target": {"kind": "plain"}},
    "plain_short": {"target": {"kind": "plain"}, "text": "short"},
    "exact_short": {"target": {"kind": "torus"}, "text": "short"},
    "exact_short_types": {"target": {"kind": "torus"}, "text": "short", "types": "denoised"},
}
TINY = {
    "prompts": {"kinds": ["short", "composition"]},
    "model": {
        "network": {"hidden": 8, "layers": 1, "frequencies": 2, "time_dim": 4},
        "text": {"width": 4},
    },
    "estimators": ARMS,
    "train": {"steps": 3, "batch_size": 4, "num_workers": 1, "log_every": 1, "validate_every": 3},
    "validation": {"num": 4, "sigmas": [0.1, 0.3]},
    "sample": {
        "num_test": 6, "samples_per_crystal": 1, "batch_size": 4,
        "sampler": {"name": "ancestral", "steps": 3}, "guidance": 1.5,
    },
    "curves": {"num_test": 4, "guidance": [0.0, 2.0]},
}  # fmt: skip
NAMES = [f"tiny-prototypes-{arm}-0" for arm in ARMS]
PARAMS = Params(
    {
        "versions": {},
        "builds": {
            name: {"task": "text_crystals", "preset": "tiny", "dataset": "prototypes",
                   "estimator": arm, "seed": 0}
            for name, arm in zip(NAMES, ARMS, strict=True)
        },
        "reports": {"text_crystals": {"tiny": {"dataset": "prototypes", "runs": NAMES}}},
        "text_crystals": {"tiny": TINY},
    }
)  # fmt: skip


class Letters:
    """Counts letters; texts over 40 of them are long."""

    fingerprint, dim, max_tokens = "letters", 26, 40

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        self.seen += texts
        letters = "abcdefghijklmnopqrstuvwxyz"
        return torch.tensor([[float(text.lower().count(one)) for one in letters] for text in texts])

    def cut(self, text: str) -> tuple[int, str]:
        return len(text), text[40:]


@pytest.fixture
def source(prepared: Path) -> Path:
    about = json.loads((prepared / "manifest.json").read_text())
    about |= {"sources": {}, "rejected": {"broken CIF": 1}, "max_atoms": 20}
    (prepared / "manifest.json").write_text(json.dumps(about))
    (prepared / "rejected.csv").write_text("id,split,reason,detail\nx,train,broken CIF,empty\n")
    return prepared


def write(source: Path, out: Path, encoder: Letters, *, kinds=("short", "composition")) -> Path:
    settings = PromptsConfig(kinds=kinds, seed=4)
    texts.write_texts(
        "prototypes", source, source, out, settings=settings, encoder=encoder, executor=EXECUTOR,
        long_cache=out.parent / "long", vector_cache=out.parent / "vectors",
    )  # fmt: skip
    return out


@pytest.fixture
def data(source: Path, tmp_path: Path) -> Path:
    return write(source, tmp_path / "data/prepared/text_crystals/prototypes", Letters())


def test_texts_stand_beside_the_crystals_they_describe(data: Path, source: Path) -> None:
    encoder = Letters()
    for split in ("train", "val", "test"):
        rows = read_prompts(data, split)
        crystals = CrystalDataset.load(source, split)
        assert [one.id for one in rows.fields] == crystals.ids
        for kind in ("short", "composition"):
            wanted = [prompt(one, kind, seed=4) for one in rows.fields]
            assert [one.text for one in rows.prompts[kind]] == wanted
            found = load_text_crystals(data, split, kind)
            assert found.ids == crystals.ids
            assert torch.equal(found.conditions["text"], encoder(wanted))
            batch = found.batch([2, 0])
            assert torch.equal(batch.cond["text"], encoder([wanted[2], wanted[0]]))
            assert batch.cond["has_text"].all()
        assert set(rows.prompts) == {"short", "composition"}
    fields = {one.id: one for one in read_prompts(data, "test").fields}
    assert (fields["p0"].formula, fields["p0"].spacegroup) == ("BaTiO3", 221)
    assert "has_text" not in load_text_crystals(data, "test", "none").conditions
    with pytest.raises(BadInput, match=r"'long'.*\['composition', 'short'\]"):
        load_text_crystals(data, "test", "long")
    about = json.loads((data / "manifest.json").read_text())
    assert about["prompts"]["over_the_limit"] == {"short": 24, "composition": 24}
    assert about["rejected"] == {"broken CIF": 1}


def test_vectors_differ_between_machines_and_the_data_do_not(
    source: Path, data: Path, tmp_path: Path
) -> None:
    class LastBits(Letters):
        def __call__(self, texts: Sequence[str]) -> torch.Tensor:
            return super().__call__(texts) * (1 + 2**-20)

    other = write(source, tmp_path / "elsewhere/prototypes", LastBits())
    here, there = (load_text_crystals(one, "test", "short") for one in (data, other))
    assert not torch.equal(here.conditions["text"], there.conditions["text"])
    names = sorted(path.name for path in data.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    assert all((data / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_vectors_are_held_against_the_texts(source: Path, data: Path) -> None:
    folder = vectors_folder(data)
    shutil.copy(folder / "composition-test.safetensors", folder / "short-test.safetensors")
    with pytest.raises(BadInput, match="other texts or of another encoder; run the texts stage"):
        load_text_crystals(data, "test", "short")
    (folder / "short-test.safetensors").write_bytes(b"cut")
    with pytest.raises(BadInput, match=r"short-test\.safetensors is damaged"):
        load_text_crystals(data, "test", "short")
    shutil.rmtree(folder)
    with pytest.raises(BadInput, match="expected the vectors .*found none; run the texts stage"):
        load_text_crystals(data, "test", "short")

    class Other(Letters):
        fingerprint = "others"

    write(source, data, Letters())
    write(source, data.parent / "others", Other())
    vectors_folder(data.parent / "others").rename(folder.with_name("kept"))
    shutil.copytree(folder, vectors_folder(data.parent / "others"))
    with pytest.raises(BadInput, match="of another encoder"):
        load_text_crystals(data.parent / "others", "test", "short")


def test_a_part_of_a_split_is_the_first_by_hash(source: Path, tmp_path: Path) -> None:
    whole = CrystalDataset.load(source, "train")
    first = sorted(whole.ids, key=lambda id: sha256(id.encode()).digest())[:3]
    out = tmp_path / "part"
    texts.write_texts(
        "prototypes", source, source, out, encoder=Letters(), executor=EXECUTOR,
        settings=PromptsConfig(kinds=("short",), parts={"prototypes": {"train": 3}, "else": {}}),
        long_cache=tmp_path / "long", vector_cache=tmp_path / "vectors",
    )  # fmt: skip
    found = load_text_crystals(out, "train", "short")
    assert found.ids == [id for id in whole.ids if id in first] != whole.ids
    assert len(found.conditions["text"]) == 3
    assert load_text_crystals(out, "test", "short").ids == CrystalDataset.load(source, "test").ids
    about = json.loads((out / "manifest.json").read_text())
    assert about["counts"]["train"] == 3
    assert about["note"].endswith("of which the first by sha256 of id: 3 of train")


@pytest.mark.parametrize("part", [{"train": 0}, {"all": 5}])
def test_parts_that_cannot_be_are_refused(part: dict[str, int]) -> None:
    with pytest.raises(BadInput, match=r"prompts\.parts\.mp_20"):
        PromptsConfig(parts={"mp_20": part})


def test_second_run_computes_no_vector(data: Path, source: Path) -> None:
    encoder = Letters()
    write(source, data, encoder)
    assert encoder.seen == []


def test_crystals_without_space_group_are_set_aside(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = texts.prompt_fields

    def refuse(crystal: Any, properties: Any) -> Any:
        if crystal.id == "cscl":
            raise BadInput("no space group found")
        return real(crystal, properties)

    monkeypatch.setattr(texts, "prompt_fields", refuse)
    out = write(source, tmp_path / "out", Letters())
    about = json.loads((out / "manifest.json").read_text())
    assert about["counts"] == {"train": 7, "val": 7, "test": 7}
    assert about["rejected"] == {"broken CIF": 1, "no space group": 3}
    assert "cscl" not in load_text_crystals(out, "test", "short").ids
    assert (out / "rejected.csv").read_text().count("no space group") == 6


def test_fallbacks_are_flagged_and_counted(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(fields: Any, kind: str, **settings: Any) -> list[Prompt]:
        assert set(settings["structures"]) == {one.id for one in fields}
        return [Prompt(one.id, "a", "robocrys KeyError" if n == 1 else "")
                for n, one in enumerate(fields)]  # fmt: skip

    monkeypatch.setattr(texts, "build_prompts", fake)
    out = write(source, tmp_path / "out", Letters(), kinds=("long",))
    about = json.loads((out / "manifest.json").read_text())["prompts"]
    assert about["fallbacks"] == {"long": {"robocrys KeyError": 3}}
    flagged = [one.id for one in read_prompts(out, "val").prompts["long"] if one.fallback]
    assert flagged == ["p1"]


def test_shuffled_texts_move_to_the_next_crystal_and_nowhere_else(data: Path) -> None:
    whole = load_text_crystals(data, "test", "short")
    mixed = shuffled_texts(whole, [3, 0, 5])
    own, other = whole.conditions["text"], mixed.conditions["text"]
    assert torch.equal(other[[3, 0, 5]], own[[0, 5, 3]])
    assert torch.equal(other[[1, 2, 4, 6, 7]], own[[1, 2, 4, 6, 7]])
    assert not torch.equal(own, other)
    with pytest.raises(BadInput, match="two crystals"):
        shuffled_texts(whole, [1])


def paths(root: Path, name: str) -> dict[str, Path]:
    return {
        "model": root / "models" / name,
        "samples": root / "samples" / name,
        "results": root / "results" / name,
        "curve": root / "curves" / f"{name}-guidance.json",
        "running": root / "running" / name,
        "report": root / "report",
        "pages": root / "pages",
    }


@pytest.fixture
def built(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Train, sample and evaluate an arm; return its parameters."""
    monkeypatch.setattr(
        evaluate, "judge_generation", partial(judge_generation, with_coverage=False)
    )

    def build(arm: str) -> Any:
        params = PARAMS.select("text_crystals", "tiny", dataset="prototypes", estimator=arm, seed=0)
        files = {**paths(tmp_path, params.run_name), "data": data}
        for stage in (train, sample, evaluate):
            stage.run(params, files, files, executor=EXECUTOR, tracker=TRACKER)
        return params

    return build


@pytest.mark.parametrize("arm", ["exact_short", "exact_short_types"])
def test_samples_do_not_depend_on_the_batches(
    built: Callable[[str], Any], data: Path, tmp_path: Path, arm: str
) -> None:
    params = built(arm)
    model = TextCrystalModel.load(tmp_path / "models" / params.run_name)
    dataset = load_text_crystals(data, "test", "short")
    settings = params.settings.sample
    one, all_ = (
        sample.draw_test(
            model, dataset, num_test=6, samples_per_crystal=2, batch_size=size,
            sampler=settings.sampler_of(params.arm), guidance=1.5, seed=3, progress=False,
        )
        for size in (1, 100)
    )  # fmt: skip
    first = [dataset.ids[row] for row in dataset.first_k_by_hash(6).tolist()]
    assert [drawn[:2] for drawn in one] == [(id, k) for k in range(2) for id in first]
    assert [drawn[:2] for drawn in all_] == [drawn[:2] for drawn in one]
    sizes = [len(crystal.atom_types) for _, _, crystal in one]
    assert sizes != sorted(sizes)
    for (_, _, alone), (_, _, together) in zip(one, all_, strict=True):
        assert (alone.atom_types == together.atom_types).all()
        gap = alone.frac - together.frac
        assert abs(gap - gap.round()).max() < 1e-4
        size = abs(alone.lattice).max()
        assert abs(alone.lattice - together.lattice).max() < 1e-4 * size


def write_report(data: Path, tmp_path: Path) -> None:
    """Write the report of the runs of which there are results."""
    params = PARAMS.select(
        "text_crystals", "tiny", dataset="prototypes", estimator="plain_none", seed=0
    )
    inputs = {"data": data, "results": tmp_path / "results"}
    for name in NAMES:
        inputs[f"run:{name}"] = tmp_path / "results" / name
        inputs[f"guidance:{name}"] = tmp_path / "curves" / f"{name}-guidance.json"
    report.run(params, inputs, paths(tmp_path, "report"), executor=EXECUTOR, tracker=TRACKER)


def test_from_training_to_the_report(
    built: Callable[[str], Any], data: Path, tmp_path: Path
) -> None:
    for arm in ARMS:
        params = built(arm)
        files = {**paths(tmp_path, params.run_name), "data": data}
        if arm == "plain_none":
            with pytest.raises(BadInput, match="reads a text"):
                guidance.run(params, files, files, executor=EXECUTOR, tracker=TRACKER)
        else:
            guidance.run(params, files, files, executor=EXECUTOR, tracker=TRACKER)
    metrics = {
        name: json.loads((tmp_path / "results" / name / "metrics.json").read_text())
        for name in NAMES
    }
    none, plain, exact, types = (metrics[name] for name in NAMES)
    assert "shuffled" not in none
    assert none["text"]["formula"] == plain["text"]["formula"] == exact["text"]["formula"] == 1.0
    assert set(exact["shuffled"]) == {"match_rate_all", "rmse_all", "text"}
    assert exact["run"]["target"] == "torus"
    assert types["num_samples"] == 6
    assert "match_rate_all" not in types
    assert types["shuffled"]["text"]["formula"] <= 1.0
    drawn = read_samples(tmp_path / "samples" / NAMES[3] / "samples.parquet")
    assert {len(crystal.atom_types) for _, _, crystal in drawn} <= {2, 5}
    assert all((crystal.atom_types >= 1).all() for _, _, crystal in drawn)
    assert all((crystal.atom_types <= 100).all() for _, _, crystal in drawn)
    pictured = read_samples(tmp_path / "results" / NAMES[3] / evaluate.PICTURED)
    assert [row[:2] for row in pictured] == [row[:2] for row in drawn]

    shutil.rmtree(tmp_path / "samples")  # a report needs the results alone
    write_report(data, tmp_path)
    text = (tmp_path / "report/table.md").read_text()
    assert "Structure prediction given the composition" in text
    assert "Generation given the text alone" in text
    assert "Guidance" in text
    assert "| prototypes | short | exact | 1 |" in text
    for name in ("cells.png", "guidance.png", "learning_curves_prototypes.png"):
        assert (tmp_path / "report" / name).read_bytes()[:4] == b"\x89PNG"
    page = (tmp_path / "pages/report.html").read_text()
    assert 'src="http' not in page
    assert "plotly" in (tmp_path / "pages/structures.html").read_text()


@pytest.mark.slow
def test_report_in_a_browser(
    built: Callable[[str], Any], data: Path, tmp_path: Path, open_page: Callable[[Path], Any]
) -> None:
    for arm in ("plain_none", "exact_short"):
        params = built(arm)
    files = {**paths(tmp_path, params.run_name), "data": data}
    guidance.run(params, files, files, executor=EXECUTOR, tracker=TRACKER)
    write_report(data, tmp_path)
    found = open_page(tmp_path / "pages/report.html")
    assert (found.errors, found.outside) == ([], [])
    assert found.count("table") == 2
    assert "exact" in found.page.locator("table").first.inner_text()
    # curves of guidance and training, and the grid of cells
    drawn = found.page.evaluate("[...document.images].map(i => i.naturalWidth)")
    assert len(drawn) == 3
    assert min(drawn) > 300
    # the turning cells: two linked scenes, drawn by WebGL
    assert found.count(".js-plotly-plot .gl-container canvas") >= 1
    scenes = "document.querySelector('.js-plotly-plot')._fullLayout"
    assert found.page.evaluate(f"[{scenes}.scene, {scenes}.scene2].every(s => s._scene.glplot)")
    alone = open_page(tmp_path / "pages/structures.html")
    assert (alone.errors, alone.outside) == ([], [])
    assert alone.count(".js-plotly-plot") == 1


@pytest.mark.slow
def test_the_browser_notices_what_is_wrong(
    tmp_path: Path, open_page: Callable[[Path], Any]
) -> None:
    page = tmp_path / "wrong.html"
    page.write_text(
        "<script>console.error('said')</script><script>missing()</script>"
        "<img src='http://localhost:59999/x.png'>"
    )
    found = open_page(page)
    assert {"said", "missing is not defined"} <= set(found.errors)
    assert found.outside == ["http://localhost:59999/x.png"]


def test_strangers_among_samples_are_refused(
    built: Callable[[str], Any], data: Path, tmp_path: Path
) -> None:
    params = built("plain_none")
    files = {**paths(tmp_path, params.run_name), "data": data}
    from orbitdiff.export import write_samples

    rows = read_samples(files["samples"] / "samples.parquet")
    write_samples([("nobody", 0, rows[0][2])], files["samples"] / "samples.parquet")
    with pytest.raises(BadInput, match=r"\['nobody'\]"):
        evaluate.run(params, files, files, executor=EXECUTOR, tracker=TRACKER)
