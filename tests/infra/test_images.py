"""The Dockerfiles: linted, pinned as the constraints are, no root, nothing copied but the packages."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Check = Callable[..., Any]
ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
DOCKERFILES = sorted((INFRA / "docker").glob("*.Dockerfile"))
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
class TestDockerfiles:
    def test_lint(self, path: Path, lint: Check) -> None:
        lint("hadolint", str(path))

    def test_user_is_no_root(self, path: Path) -> None:
        lines = path.read_text().splitlines()
        users = [line.split()[1] for line in lines if line.startswith("USER ")]
        assert users[-1] == "${UID}"
        (given,) = (line for line in lines if line.startswith("ARG UID="))
        assert int(given.split("=")[1]) > 0

    def test_pins_are_those_of_the_constraints(self, path: Path) -> None:
        text = path.read_text().replace("\\\n", " ")
        installs = re.findall(r"pip install (.+?)(?:&&|\n)", text)
        torch = [line for line in installs if "torch==" in line]
        for line in installs:
            assert "-c constraints.txt" in line or (line in torch and "--no-deps" in line)
        for name, pinned in re.findall(r"([\w-]+)==([\w.]+)", text):
            assert PINS.get(name, pinned) == pinned, name
        assert len(torch) == 1
        assert f"torch=={PINS['torch']}" in (ROOT / "Makefile").read_text()
        assert f"torch=={PINS['torch']}" in torch[0]

    def test_python_is_the_one_of_the_constraints(self, path: Path) -> None:
        asked = re.search(r"Python (\d+\.\d+)", (ROOT / "constraints.txt").read_text())
        assert asked
        assert f"FROM python:{asked[1]}-" in path.read_text()

    def test_copies_only_what_the_ignore_file_lets_through(self, path: Path) -> None:
        first, *rest = path.with_name(path.name + ".dockerignore").read_text().splitlines()[1:]
        assert first == "*"
        let_through = {line[1:] for line in rest if line.startswith("!")}
        copied = set()
        for line in path.read_text().splitlines():
            if line.startswith("COPY "):
                copied |= set(line.split()[1:-1])
        assert copied == let_through
        assert all((ROOT / name).exists() for name in copied)
        assert not re.search("(?i)password|secret|token", path.read_text())
