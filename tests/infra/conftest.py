"""The parsers of the tools that read the files under infra/, as fixtures; nothing runs."""

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def lint() -> Callable[..., None]:
    """Run a linter that a wheel brings."""

    def run(name: str, *words: str) -> None:
        tool = Path(sys.executable).parent / name
        if not tool.exists():
            pytest.skip(f"{name} is not installed")
        done = subprocess.run([str(tool), *words], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.fixture(scope="session")
def kubernetes_valid() -> Callable[[dict[str, Any]], None]:
    """Kubernetes' own schema, unknown keys refused."""
    checker = pytest.importorskip("kubernetes_validate")

    def check(resource: dict[str, Any]) -> None:
        checker.validate(resource, checker.latest_version(), strict=True)

    return check


@pytest.fixture(scope="session")
def ray_start() -> Callable[[list[str]], dict[str, Any]]:
    """Options of a `ray start`, as Ray's own parser reads them."""
    pytest.importorskip("ray")

    def parse(words: list[str]) -> dict[str, Any]:
        from ray.scripts.scripts import start

        assert words[:2] == ["ray", "start"]
        return start.make_context("start", list(words[2:])).params

    return parse


@pytest.fixture(scope="session")
def orbitdiff_parses() -> Callable[[str], None]:
    """Check that a command line names a verb of ours and options that it takes."""
    import typer

    from pipelines.cli import app

    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]

    def parse(command: str) -> None:
        words = shlex.split(command)
        verb, *options = words[words.index("orbitdiff") + 1 :]
        verbs[verb].make_context(verb, options)

    return parse
