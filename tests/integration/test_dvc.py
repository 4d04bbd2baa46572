"""DVC: a fresh clone has nothing to run, a second repro runs nothing, a change runs its own."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("dvc")

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
TRAIN = (
    "from pathlib import Path; import yaml;"
    " Path('model').write_text(str(yaml.safe_load(open('params.yaml'))['train']))"
)
EVALUATE = "from pathlib import Path; Path('metrics.json').write_text(Path('model').read_text())"
PIPELINE = {
    "stages": {
        "train": {
            "cmd": f'{sys.executable} -c "{TRAIN}"',
            "params": ["versions.train", "train.rate"],
            "outs": ["model"],
        },
        "evaluate": {
            "cmd": f'{sys.executable} -c "{EVALUATE}"',
            "deps": ["model"],
            "params": ["versions.evaluate"],
            "outs": [{"metrics.json": {"cache": False}}],
        },
    }
}


def call(*command: str, at: Path) -> str:
    done = subprocess.run(command, cwd=at, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def git(*arguments: str, at: Path) -> None:
    call("git", "-c", "user.name=t", "-c", "user.email=t@localhost", *arguments, at=at)


def stages_run(*arguments: str, at: Path) -> list[str]:
    """Run `dvc repro` and return the stages that it ran, or would run."""
    said = call(sys.executable, "-m", "dvc", "repro", *arguments, at=at)
    marks = [line for line in said.splitlines() if line.startswith("Running stage")]
    return [line.split("'")[1] for line in marks]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    params = {"versions": {"train": 1, "evaluate": 1}, "train": {"rate": 1, "other": 1}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE))
    git("init", "-q", at=folder)
    call(sys.executable, "-m", "dvc", "init", "-q", at=folder)
    assert stages_run(at=folder) == ["train", "evaluate"]
    git("add", "-A", at=folder)
    git("commit", "-q", "-m", "results", at=folder)
    return folder


def set_param(folder: Path, section: str, key: str, value: int) -> None:
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params[section][key] = value
    path.write_text(yaml.safe_dump(params))


def test_only_what_changed_runs(project: Path) -> None:
    assert stages_run(at=project) == []
    set_param(project, "train", "other", 2)
    assert stages_run(at=project) == []
    set_param(project, "versions", "evaluate", 2)
    assert stages_run(at=project) == ["evaluate"]
    set_param(project, "train", "rate", 2)
    assert stages_run(at=project) == ["train", "evaluate"]


def test_clone_of_a_tiny_project_has_nothing_to_run(project: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git("clone", "-q", str(project), str(clone), at=tmp_path)
    assert (clone / "metrics.json").is_file()
    assert not (clone / "model").exists()
    assert stages_run("--allow-missing", "--dry", at=clone) == []
    set_param(clone, "train", "rate", 9)
    assert "train" in stages_run("--allow-missing", "--dry", at=clone)


def test_clone_of_this_repository_has_nothing_to_run(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git("clone", "-q", "--no-hardlinks", str(ROOT), str(clone), at=tmp_path)
    assert (clone / "dvc.lock").is_file(), "run `dvc repro` and commit dvc.lock"
    assert stages_run("--allow-missing", "--dry", at=clone) == []
