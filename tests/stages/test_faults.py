"""Full disks, folders that cannot be written and cut files, stage by stage, through `python -m pipelines`."""

import ctypes
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from pipelines.__main__ import main

ROOT = Path(__file__).parents[2]
RUN = "demo-prototypes-exact-0"
SMALL = {
    "data": {"max_atoms": 6, "prototypes": 40},
    "model": {"hidden": 8, "layers": 1, "frequencies": 2, "time_dim": 8},
    "train": {
        "steps": 4, "batch_size": 4, "num_workers": 1, "checkpoint_every": 2, "validate_every": 2,
        "log_every": 1, "snapshot_every": 2,
    },
    "validation": {"num": 2, "sigmas": [0.1]},
    "sample": {
        "num_test": 2, "samples_per_crystal": 1, "batch_size": 2,
        "sampler": {"name": "multistep", "steps": 2},
    },
    "curves": {"num_test": 2, "samplers": [{"name": "multistep", "steps": 2}]},
}  # fmt: skip
OUTPUTS = {
    "fetch": "data/raw/prototypes",
    "prepare": "data/prepared/crystals/prototypes",
    "train": f"models/{RUN}",
    "sample": f"samples/{RUN}",
    "evaluate": f"results/crystals/demo/{RUN}",
    "steps": f"results/crystals/demo/curves/{RUN}-steps.json",
    "calls": f"results/crystals/demo/curves/{RUN}-calls.json",
    "report": "reports/crystals/demo",
}


OPTIONS = ["--preset", "demo", "--dataset", "prototypes", "--estimator", "exact"]


def stage(name: str) -> int:
    return main([name, "crystals", *OPTIONS])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose every stage has run, with tiny numbers."""
    root = tmp_path_factory.mktemp("finished")
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["crystals"]["demo"].update(SMALL)
    raw["reports"]["crystals"]["demo"]["runs"] = [RUN]
    (root / "params.yaml").write_text(yaml.safe_dump(raw))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("ORBITDIFF_EXECUTOR", "local")
        patch.setenv("ORBITDIFF_TRACKER", "none")
        for name in OUTPUTS:
            assert stage(name) == 0, name
    return root


@pytest.fixture
def repository(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "repository"
    shutil.copytree(finished, root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("ORBITDIFF_EXECUTOR", "local")
    monkeypatch.setenv("ORBITDIFF_TRACKER", "none")
    return root


@contextmanager
def no_file_may_grow(limit: int = 64) -> Iterator[None]:
    """As on a full disk: each write beyond the first bytes of a file fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def content(path: Path) -> dict[str, str]:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(file): sha256(file.read_bytes()).hexdigest() for file in files}


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What stands last in the terminal, after the progress bars."""
    return capsys.readouterr().err.replace("\r", "\n").strip().split("\n")[-1].strip()


@pytest.mark.parametrize("name", OUTPUTS)
def test_full_disk_leaves_the_earlier_output(
    name: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(repository / ".runs")  # train from the start
    before = content(repository / OUTPUTS[name])
    assert before
    with no_file_may_grow():
        code = stage(name)
    message = last_line(capsys)
    assert code == 2, message
    assert re.match(r"error: (no room to|could not) write .*(room|space)", message), message
    assert content(repository / OUTPUTS[name]) == before
    assert stage(name) == 0, "room again, and the stage ends"


@contextmanager
def modes_count() -> Iterator[None]:
    """Root minds the modes of files as anybody does: without CAP_DAC_OVERRIDE and _READ_SEARCH."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    # effective, permitted, inheritable; twice 32 bits of each
    state = (ctypes.c_uint32 * 6)()
    if libc.capget(header, state):
        pytest.skip("capabilities cannot be read here")
    before = state[0]
    state[0] = before & ~0b110
    assert libc.capset(header, state) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        state[0] = before
        assert libc.capset(header, state) == 0


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_folder_that_cannot_be_written_is_named(
    name: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(repository / ".runs")
    output = repository / OUTPUTS[name]
    before = content(output)
    folders = [output.parent, *(path for path in [output, *output.rglob("*")] if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        with modes_count():
            code = stage(name)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    message = last_line(capsys)
    assert code == 2, message
    assert re.match(r"error: .*(denied|could not write)", message), message
    assert output.name in message, message
    assert content(output) == before
    assert stage(name) == 0, "writable again, and the stage ends"


CUT = [
    ("prepare", "data/raw/prototypes/recipe.json"),
    ("train", "data/prepared/crystals/prototypes/manifest.json"),
    ("train", "data/prepared/crystals/prototypes/train-*.parquet"),
    ("sample", "data/prepared/crystals/prototypes/test-*.parquet"),
    ("sample", f"models/{RUN}/model.safetensors"),
    ("sample", f"models/{RUN}/config.json"),
    ("evaluate", f"samples/{RUN}/samples.parquet"),
    ("evaluate", f"samples/{RUN}/sampling.json"),
    ("steps", f"models/{RUN}/snapshots/0000002/model.safetensors"),
    ("report", f"results/crystals/demo/{RUN}/metrics.json"),
    ("report", f"results/crystals/demo/curves/{RUN}-steps.json"),
]


@pytest.mark.parametrize(("name", "pattern"), CUT)
def test_a_truncated_file_is_named(
    name: str, pattern: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = repository.glob(pattern)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    before = content(repository / OUTPUTS[name])
    assert stage(name) == 2
    message = last_line(capsys)
    assert message.startswith("error: ")
    assert path.name in message or path.parent.name in message, message
    assert content(repository / OUTPUTS[name]) == before


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("prepare", "data/raw/prototypes"),
        ("train", "data/prepared/crystals/prototypes"),
        ("sample", f"models/{RUN}"),
        ("evaluate", f"samples/{RUN}"),
        ("steps", f"models/{RUN}/snapshots"),
        ("report", f"results/crystals/demo/{RUN}"),
    ],
)
def test_a_missing_input_is_named(
    name: str, path: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(repository / path)
    assert stage(name) == 2
    assert last_line(capsys).startswith("error: ")


@pytest.mark.parametrize("limit", [4_000, 12_000])
def test_full_disk_while_a_checkpoint_is_written(
    limit: int, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Room for the history, none for the weights (4 kB), or none for the optimiser's state."""
    shutil.rmtree(repository / ".runs")
    before = content(repository / OUTPUTS["train"])
    with no_file_may_grow(limit):
        assert stage("train") == 2
    assert "no room to write" in last_line(capsys)
    assert content(repository / OUTPUTS["train"]) == before
    assert stage("train") == 0
    assert content(repository / OUTPUTS["train"]).keys() == before.keys()


LITTLE_MEMORY = """
import resource, shutil, sys
from pathlib import Path
from pipelines.__main__ import main
assert main(sys.argv[1:]) == 0
shutil.rmtree(".runs")
Path("params.yaml").write_text(Path("large.yaml").read_text())
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 300 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(main(sys.argv[1:]))
"""
"""As on a small machine: so many MiB more address space than after a small training, which loads
what is needed. A process of its own: one that has run other tests may have much to give away."""


def test_a_step_that_does_not_fit_into_memory_names_its_samples_and_a_cure(
    repository: Path,
) -> None:
    shutil.rmtree(repository / ".runs")
    weights = repository / OUTPUTS["train"] / "model.safetensors"
    before = content(weights)
    own = (repository / "params.yaml").read_text()
    raw = yaml.safe_load(own)
    raw["crystals"]["demo"]["train"] |= {"batch_size": 40_000}
    (repository / "large.yaml").write_text(yaml.safe_dump(raw))
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, "train", "crystals", *OPTIONS],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    message = done.stderr.replace("\r", "\n").strip().split("\n")[-1].strip()
    assert re.match(r"error: out of memory at step \d+ with 40000 samples of up to 6", message), (
        message
    )
    assert "train.batch_size=20000" in message
    assert content(weights) == before
    (repository / "params.yaml").write_text(own)
    assert stage("train") == 0
