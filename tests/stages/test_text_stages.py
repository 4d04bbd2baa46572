"""From crystals with texts to a report of text-guided ones, on eight crystals."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pymatgen")

from orbitdiff.data.text_crystals import load_text_crystals
from orbitdiff.errors import BadInput
from orbitdiff.export import read_samples
from orbitdiff.inference.text_crystal_model import TextCrystalModel
from orbitdiff.metrics.crystal_generation import judge_generation
from pipelines.params import Params
from pipelines.stages import train
from pipelines.stages.base import LocalExecutor, NullTracker
from pipelines.stages.text_crystals import evaluate, guidance, report, sample

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
def built(text_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Train, sample and evaluate an arm; return its parameters."""
    monkeypatch.setattr(
        evaluate, "judge_generation", partial(judge_generation, with_coverage=False)
    )

    def build(arm: str) -> Any:
        params = PARAMS.select("text_crystals", "tiny", dataset="prototypes", estimator=arm, seed=0)
        files = {**paths(tmp_path, params.run_name), "data": text_data}
        for stage in (train, sample, evaluate):
            stage.run(params, files, files, executor=EXECUTOR, tracker=TRACKER)
        return params

    return build


@pytest.mark.parametrize("arm", ["exact_short", "exact_short_types"])
def test_samples_do_not_depend_on_the_batches(
    built: Callable[[str], Any], text_data: Path, tmp_path: Path, arm: str
) -> None:
    params = built(arm)
    model = TextCrystalModel.load(tmp_path / "models" / params.run_name)
    dataset = load_text_crystals(text_data, "test", "short")
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


def write_report(text_data: Path, tmp_path: Path) -> None:
    """Write the report of the runs of which there are results."""
    params = PARAMS.select(
        "text_crystals", "tiny", dataset="prototypes", estimator="plain_none", seed=0
    )
    inputs = {"data": text_data, "results": tmp_path / "results"}
    for name in NAMES:
        inputs[f"run:{name}"] = tmp_path / "results" / name
        inputs[f"guidance:{name}"] = tmp_path / "curves" / f"{name}-guidance.json"
    report.run(params, inputs, paths(tmp_path, "report"), executor=EXECUTOR, tracker=TRACKER)


def test_from_training_to_the_report(
    built: Callable[[str], Any], text_data: Path, tmp_path: Path
) -> None:
    for arm in ARMS:
        params = built(arm)
        files = {**paths(tmp_path, params.run_name), "data": text_data}
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
    write_report(text_data, tmp_path)
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
    built: Callable[[str], Any], text_data: Path, tmp_path: Path, open_page: Callable[[Path], Any]
) -> None:
    for arm in ("plain_none", "exact_short"):
        params = built(arm)
    files = {**paths(tmp_path, params.run_name), "data": text_data}
    guidance.run(params, files, files, executor=EXECUTOR, tracker=TRACKER)
    write_report(text_data, tmp_path)
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
    built: Callable[[str], Any], text_data: Path, tmp_path: Path
) -> None:
    params = built("plain_none")
    files = {**paths(tmp_path, params.run_name), "data": text_data}
    from orbitdiff.export import write_samples

    rows = read_samples(files["samples"] / "samples.parquet")
    write_samples([("nobody", 0, rows[0][2])], files["samples"] / "samples.parquet")
    with pytest.raises(BadInput, match=r"\['nobody'\]"):
        evaluate.run(params, files, files, executor=EXECUTOR, tracker=TRACKER)
