"""Small prepared data and evaluated runs, made without training."""

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orbitdiff.data.crystals import Crystal, crystal_schema, crystal_to_row
from orbitdiff.data.store import write_shards


def cubic(name: str, types: list[int], sites: list[list[float]], edge: float) -> Crystal:
    return Crystal(name, np.array(types), np.array(sites, dtype=float), np.eye(3) * edge)


def perovskite(name: str, a: int, b: int, x: int, edge: float) -> Crystal:
    sites = [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return cubic(name, [a, b, x, x, x], sites, edge)


def truth() -> list[Crystal]:
    made = [
        perovskite(f"p{i}", a, b, 8, 3.8 + 0.02 * i)
        for i, (a, b) in enumerate([(56, 22), (38, 22), (20, 22), (56, 40), (38, 40), (20, 50)])
    ]
    made += [
        cubic("cscl", [55, 17], [[0, 0, 0], [0.5] * 3], 4.1),
        cubic("tlbr", [81, 35], [[0, 0, 0], [0.5] * 3], 4.0),
    ]
    return made


def prepare(folder: Path) -> Path:
    folder.mkdir(parents=True)
    counts = {}
    for split in ("train", "val", "test"):
        rows = [crystal_to_row(crystal) for crystal in truth()]
        counts[split] = len(rows)
        write_shards(rows, folder, schema=crystal_schema(), name=split)
    manifest = {"schema_version": 1, "counts": counts, "note": "reduced training set"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def write_history(path: Path, *, rate: float, start: float = 1.0, ess: bool = False) -> None:
    """Records as the training loop writes them; distance = start exp(-rate step / 100)."""
    lines = []
    for step in range(100, 601, 100):
        record = {"kind": "train", "step": step, "loss": 1.0, "step_seconds": 0.02}
        lines.append({**record, **({"ess_frac": 12.5} if ess else {})})
        mean = start * math.exp(-rate * step / 100)
        levels = {"0.05": 1.5 * mean, "0.2": mean, "0.5": 0.5 * mean}
        lines.append(
            {"kind": "validation", "step": step, "distance": levels, "distance_mean": mean}
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def crystals() -> list[Crystal]:
    return truth()


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return prepare(tmp_path / "data")


class Letters:
    """A text encoder that counts letters and keeps what it read; 40 letters are its limit."""

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
def letters() -> type[Letters]:
    return Letters


@pytest.fixture
def with_rejects(prepared: Path) -> Path:
    """Prepared crystals of which one was set aside."""
    about = json.loads((prepared / "manifest.json").read_text())
    about |= {"sources": {}, "rejected": {"broken CIF": 1}, "max_atoms": 20}
    (prepared / "manifest.json").write_text(json.dumps(about))
    (prepared / "rejected.csv").write_text("id,split,reason,detail\nx,train,broken CIF,empty\n")
    return prepared


@pytest.fixture
def write_texts(with_rejects: Path) -> Callable[..., Path]:
    """Run the texts stage on the small data; further keywords are settings of the prompts."""
    from orbitdiff.tasks.text_crystals import PromptsConfig
    from pipelines.stages.base import LocalExecutor
    from pipelines.stages.text_crystals import texts

    def write(out: Path, encoder: Letters, **settings: Any) -> Path:
        config = PromptsConfig(**{"kinds": ("short", "composition"), "seed": 4, **settings})
        texts.write_texts(
            "prototypes", with_rejects, with_rejects, out, settings=config, encoder=encoder,
            executor=LocalExecutor(), long_cache=out.parent / "long",
            vector_cache=out.parent / "vectors",
        )  # fmt: skip
        return out

    return write


@pytest.fixture
def text_data(write_texts: Callable[..., Path], tmp_path: Path) -> Path:
    return write_texts(tmp_path / "data/prepared/text_crystals/prototypes", Letters())


@dataclass
class Opened:
    """What a browser found on a page."""

    page: Any
    errors: list[str]
    outside: list[str]

    def count(self, selector: str) -> int:
        """Return the number of elements."""
        return int(self.page.locator(selector).count())


@pytest.fixture
def open_page() -> Iterator[Callable[[Path], Opened]]:
    """Open a file in a real browser; collect console errors and requests that leave the file."""
    sync_api = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    if program is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        # 3-D without a graphics card; no sandbox, since root has none
        browser = playwright.chromium.launch(
            executable_path=program,
            args=["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"],
        )

        def open_one(path: Path) -> Opened:
            opened = Opened(browser.new_page(viewport={"width": 1280, "height": 900}), [], [])
            own = path.absolute().as_uri()
            page = opened.page
            page.on("console", lambda m: opened.errors.append(m.text) if m.type == "error" else 0)
            page.on("pageerror", lambda error: opened.errors.append(str(error)))
            page.on(
                "request",
                lambda request: (
                    0
                    if request.url == own or request.url.startswith(("data:", "blob:"))
                    else opened.outside.append(request.url)
                ),
            )
            page.goto(own, wait_until="load")
            page.wait_for_timeout(2000)
            return opened

        yield open_one
        browser.close()
