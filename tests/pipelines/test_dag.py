"""One DAG: what the flow runs is what dvc.yaml says, stage by stage and edge by edge."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from orbitdiff.errors import BadInput
from pipelines.dag import stages_of
from pipelines.params import Params, load

ROOT = Path(__file__).parents[2]
TABLES = [
    (task, preset)
    for task, of in load(ROOT / "params.yaml").raw["reports"].items()
    for preset in of
]


@pytest.fixture(scope="module")
def params() -> Params:
    return load(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def edges() -> dict[str, set[str]]:
    """Stage name to the names of the stages it needs, as DVC resolves dvc.yaml."""
    repo = pytest.importorskip("dvc.repo").Repo(str(ROOT))
    graph = repo.index.graph
    found = {stage.addressing: {n.addressing for n in graph.successors(stage)} for stage in graph}
    repo.close()
    return found


@pytest.mark.parametrize(("task", "preset"), TABLES)
def test_flow_graph_equals_dvc_graph(
    params: Params, edges: dict[str, set[str]], task: str, preset: str
) -> None:
    flow = {name: set(needs) for name, needs in stages_of(params, task, preset)}
    wanted, waiting = set(), [f"report_{task}@{preset}"]
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting += edges[name]
    assert flow == {name: edges[name] for name in wanted}


@pytest.mark.parametrize(("task", "preset"), TABLES)
def test_every_stage_comes_after_what_it_needs(params: Params, task: str, preset: str) -> None:
    seen: set[str] = set()
    for name, needs in stages_of(params, task, preset):
        assert set(needs) <= seen
        seen.add(name)


def test_unknown_preset_lists_those_with_a_report(params: Params) -> None:
    with pytest.raises(BadInput, match=r"'cpu', 'demo'.*got 'huge'"):
        stages_of(params, "crystals", "huge")


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return {name: stage.get("do", stage) for name, stage in stages.items()}


def test_every_stage_depends_on_its_version(described: dict[str, Any], params: Params) -> None:
    versions = params.raw["versions"]
    for stage in described.values():
        name, task = stage["cmd"].split()[3:5]
        assert f"versions.{task}.{name}" in stage["params"]
        found = versions.values() if task == "${item.task}" else [versions[task]]
        assert any(name in numbers for numbers in found)


def test_running_state_is_never_an_output(described: dict[str, Any]) -> None:
    assert ".runs" not in yaml.safe_dump(described)


def test_no_absolute_path_reaches_dvc(described: dict[str, Any]) -> None:
    for stage in described.values():
        for entry in [*stage.get("deps", []), *stage["outs"]]:
            path = entry if isinstance(entry, str) else next(iter(entry))
            assert not path.startswith(("/", "..", "~"))
    lock = ROOT / "dvc.lock"
    if lock.exists():
        assert "path: /" not in lock.read_text()


def test_a_preset_depends_on_its_own_sections_only(described: dict[str, Any]) -> None:
    for stage in described.values():
        for name in stage["params"]:
            task = stage["cmd"].split()[4]
            own = ("${item.task}.${item.preset}.", f"{task}.${{key}}", "versions.", "toy.${item}")
            assert name.startswith(own) or (
                name.startswith(("reports.", "sweeps.")) and name.endswith(".${key}")
            )
