"""Ray behind the Executor protocol: ordered map, averaged gradients, refusals."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ray = pytest.importorskip("ray")

from orbitdiff.errors import BadInput, NonFiniteLoss, OrbitDiffError
from orbitdiff.training.worker import LocalWorker, Worker
from pipelines.distributed.ray_executor import RayExecutor
from pipelines.stages.base import Executor

pytestmark = pytest.mark.integration
STEPS = 6


@pytest.fixture(scope="module")
def executor() -> Iterator[RayExecutor]:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield RayExecutor(num_cpus=2)
    ray.shutdown()


def pid_of_square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def regression(worker: Worker, config: dict[str, Any]) -> dict[str, Any]:
    """Full-batch least squares; each worker holds every other row."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 3, generator=generator, dtype=torch.float64)
    y = x @ torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    mine = slice(worker.rank, None, worker.world_size)
    line = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        line.weight.zero_()
    with worker.restore() as folder:
        assert folder is None
    model = worker.wrap(line)
    optimiser = torch.optim.SGD(line.parameters(), lr=0.1)
    for step in range(STEPS):
        optimiser.zero_grad()
        ((model(x[mine])[:, 0] - y[mine]) ** 2).mean().backward()
        optimiser.step()
        worker.report({"step": step}, None)
    return {"weight": line.weight.tolist(), "world_size": worker.world_size}


def failing(worker: Worker, config: dict[str, Any]) -> dict[str, Any]:
    raise RuntimeError("sample 17 is broken")


def refusing(worker: Worker, config: dict[str, Any]) -> dict[str, Any]:
    """Rank 0 meets a loss that is not finite; the others go on to the next all-reduce."""
    with (Path(config["folder"]) / f"starts-{worker.rank}").open("a") as file:
        file.write("x")
    worker.say(f"rank {worker.rank} starts")
    if worker.rank == 0:
        raise NonFiniteLoss("loss is not finite at step 5: samples = [3]")
    model = worker.wrap(torch.nn.Linear(1, 1))
    model(torch.ones(1, 1)).sum().backward()
    return {}


def test_is_an_executor(executor: RayExecutor) -> None:
    assert isinstance(executor, Executor)


def test_map_keeps_order_and_runs_elsewhere(executor: RayExecutor) -> None:
    results = executor.map(pid_of_square, range(50), description="squares")
    assert [square for square, _ in results] == [n * n for n in range(50)]
    assert os.getpid() not in {pid for _, pid in results}
    assert executor.map(pid_of_square, [], description="nothing") == []


def test_two_workers_average_gradients(executor: RayExecutor, tmp_path: Path) -> None:
    # equal halves: the mean of the workers' gradients is the gradient of the whole batch
    alone = regression(LocalWorker(tmp_path / "alone"), {})
    both = executor.fit(regression, {}, name="two", storage=tmp_path / "two", num_workers=2)
    assert both["world_size"] == 2
    torch.testing.assert_close(
        torch.tensor(both["weight"]), torch.tensor(alone["weight"]), rtol=1e-6, atol=1e-9
    )


def test_more_workers_than_cpus_are_refused(executor: RayExecutor, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"num_workers = 3 but Ray has 2 CPUs"):
        executor.fit(regression, {}, name="three", storage=tmp_path, num_workers=3)


@pytest.mark.parametrize("num_workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_refusal_stops_the_run_and_is_not_tried_again(
    executor: RayExecutor, tmp_path: Path, num_workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NonFiniteLoss, match=r"at step 5: samples = \[3\]"):
        executor.fit(
            refusing, {"folder": str(tmp_path)}, name="refusing", storage=tmp_path / "storage",
            num_workers=num_workers,
        )  # fmt: skip
    assert (tmp_path / "starts-0").read_text() == "x"
    assert "rank 0 starts" in capfd.readouterr().out


@pytest.mark.slow
def test_failure_of_the_loop_keeps_its_message(executor: RayExecutor, tmp_path: Path) -> None:
    with pytest.raises(OrbitDiffError, match="sample 17 is broken"):
        executor.fit(failing, {}, name="failing", storage=tmp_path, num_workers=1)
