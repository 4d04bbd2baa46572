"""Ray Tune behind the Tuner protocol: same table as in this process, kills, early stops, search."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
pytest.importorskip("rich")
psutil = pytest.importorskip("psutil")

from rich.console import Console

from orbitdiff.errors import BadInput
from pipelines.distributed.orphans import free_orphans
from pipelines.distributed.trial_table import TrialTable
from pipelines.distributed.tune import (
    Experiment,
    RayTuner,
    concurrent,
    job_name,
    run_and_report,
    scheduler,
)
from pipelines.params import load
from pipelines.stages import sweep as stage
from pipelines.stages.base import LocalExecutor, NullTracker
from pipelines.stages.sweeps.config import Search
from pipelines.stages.sweeps.space import Space, Trial
from pipelines.stages.sweeps.trial import end, run_trial
from pipelines.stages.sweeps.tuner import LocalTuner, Plan, Tuner
from pipelines.sweeps import SweepParams, select_sweep

ROOT = Path(__file__).parents[2]
TOY = {
    "estimator": "sampled",
    "over": {"num_samples": [1, 4], "temperature": [1.0, 4.0]},
    "seeds": [0],
    "changes": [
        "estimators.sampled={kind: importance}", "steps=400", "batch_size=64", "levels=10",
        "select_every=100", "num_select=10", "num_samples=20",
    ],
}  # fmt: skip
CRYSTALS = {
    "estimator": "sampled",
    "dataset": "own",
    "over": {"num_samples": [4], "train.learning_rate": [1e-2, 1e-12, 1e-13, 1e-14]},
    "seeds": [0],
    "changes": [
        "estimators.sampled={kind: importance}",
        "train={steps: 400, batch_size: 4, num_workers: 1, warmup: 1, checkpoint_every: 50,"
        " validate_every: 20, log_every: 20}",
        "model={hidden: 16, layers: 1, frequencies: 4, time_dim: 16}",
        "validation={num: 4, sigmas: [0.1, 0.3]}",
    ],
    "search": {"scheduler": "asha", "grace": 40, "reduction": 2},
}
DRIVER = """
import json, sys
from pathlib import Path
from pipelines.environment import prepare_environment
prepare_environment()
from pipelines.distributed.tune import RayTuner
from pipelines.params import load
from pipelines.stages import sweep
from pipelines.stages.base import LocalExecutor
from pipelines.sweeps import select_sweep
from pipelines.tracking.mlflow_tracker import MLflowTracker
root, task, section = sys.argv[1:]
params = select_sweep(load(Path(root) / "params.yaml"), task, "demo", json.loads(section))
inputs = {"data": Path("data")} if params.dataset else {}
sweep.run(params, inputs, {"running": Path("running"), "results": Path("results")},
          executor=LocalExecutor(), tracker=MLflowTracker(), tuner=RayTuner(num_cpus=2))
"""


def toy(**changed: Any) -> SweepParams:
    return select_sweep(load(ROOT / "params.yaml"), "toy", "demo", {**TOY, **changed})


def crystals(**changed: Any) -> SweepParams:
    return select_sweep(load(ROOT / "params.yaml"), "crystals", "demo", {**CRYSTALS, **changed})


def space_of(sweep: SweepParams) -> Space:
    return stage.read_space(sweep, None)


def plan_of(sweep: SweepParams) -> Plan:
    space = space_of(sweep)
    return Plan("plan", space.points, sweep.config.search, space.axes, space.place)


def sweep_in(folder: Path, sweep: SweepParams, tuner: Tuner, *, data: Path | None = None) -> Any:
    stage.run(
        sweep, {} if data is None else {"data": data},
        {"running": folder / "running", "results": folder / "results"},
        executor=LocalExecutor(), tracker=NullTracker(), tuner=tuner,
    )  # fmt: skip
    return read(folder)


def read(folder: Path) -> list[dict[str, Any]]:
    """Rows of the table, without what a clock measured."""
    rows = json.loads((folder / "results/trials.json").read_text())
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


# without Ray


def test_is_a_tuner() -> None:
    assert isinstance(RayTuner(), Tuner)
    assert isinstance(LocalTuner(), Tuner)


def test_trials_at_a_time_fill_the_cluster() -> None:
    def trials(workers: int) -> list[Trial]:
        changes = [*CRYSTALS["changes"], f"train.num_workers={workers}"]  # type: ignore[misc]
        return space_of(crystals(changes=changes)).trials

    resources = {"CPU": 5.0}
    assert [concurrent(trials(n), resources) for n in (1, 2, 3)] == [5, 2, 1]
    assert concurrent(space_of(toy()).trials, resources) == 5
    # the cluster's GPUs decide, whatever the driver's machine has; the toy needs none
    gpus = {"CPU": 64.0, "GPU": 4.0}
    assert [concurrent(trials(n), gpus) for n in (1, 2, 4)] == [4, 2, 1]
    assert concurrent(space_of(toy()).trials, gpus) == 64
    with pytest.raises(BadInput, match="num_workers = 4 but Ray has 3 GPUs"):
        concurrent(trials(4), {"CPU": 64.0, "GPU": 3.0})
    with pytest.raises(BadInput, match="num_workers = 6 but Ray has 5 CPUs"):
        concurrent(trials(3) + trials(4)[:1] + space_of(crystals(changes=[
            *CRYSTALS["changes"], "train.batch_size=8", "train.num_workers=6"])).trials, resources)  # fmt: skip


def test_seeds_of_a_point_are_one_job_of_a_search_alone() -> None:
    grid = plan_of(toy(seeds=[0, 1]))
    assert [len(job) for job in grid.jobs] == [1] * 8
    assert job_name(grid.jobs[1]) == "num_samples=1,temperature=1.0,seed=1"
    search = plan_of(toy(seeds=[0, 1], search={"kind": "optuna", "points": 2}))
    assert [len(job) for job in search.jobs] == [2] * 4
    assert job_name(search.jobs[0]) == "num_samples=1,temperature=1.0"


def test_a_searched_configuration_finds_its_point_or_exact() -> None:
    over = {"kind": ["importance", "finite"], "num_samples": [2, 4]}
    plan = plan_of(toy(over=over, search={"kind": "optuna"}))
    experiment = Experiment(plan, {job_name(job): job for job in plan.jobs}, Path())
    found = experiment.job({"kind": "importance", "num_samples": 4})
    assert found == list(plan.points[1].trials)
    assert experiment.job({"kind": "finite", "num_samples": 2})[0].arm.kind == "finite"
    assert set(experiment.space) == set(over)


def test_schedulers_stop_after_the_grace_steps() -> None:
    jobs = {"a": space_of(toy()).trials}
    assert scheduler(Search(), jobs) is None
    asha = scheduler(Search(scheduler="asha", grace=100, reduction=4), jobs)
    assert [milestone for milestone, _ in asha._brackets[0]._rungs] == [400, 100]
    median = scheduler(Search(scheduler="median", grace=10**6), jobs)
    assert median._grace_period == 400


def test_table_tells_each_end_once(tmp_path: Path) -> None:
    jobs = {job_name(job): job for job in plan_of(toy()).jobs}
    first, second, third, *_ = jobs
    out, ends = io.StringIO(), []
    console = Console(file=out, width=200)
    run_trial(jobs[first][0], tmp_path, LocalExecutor())
    with TrialTable(jobs, tmp_path, on_end=ends.append, total=4, console=console) as table:
        table.look({first: "RUNNING", second: "PENDING"})
        assert (ends, out.getvalue()) == ([], "")
        for _ in range(2):
            table.look({first: "TERMINATED", second: "TERMINATED", third: "ERROR"})
        assert ends == [jobs[name][0] for name in (first, second, third)]
        shown = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        assert len(shown) == 3
        assert shown[0].startswith(f"[1/4] {first}  finished  step 400/400  error 0.")
        assert shown[1].startswith(f"[2/4] {second}  stopped  step 0/400  error –")
        assert "failed" in shown[2]
        table.look({first: "TERMINATED", second: "RUNNING"})
        rows = table.table()
        assert rows.title == "1 finished, 1 running, 2 waiting"
        assert list(rows.columns[0].cells) == [second, first]


def test_live_table_is_drawn_in_a_terminal(tmp_path: Path) -> None:
    jobs = {job_name(job): job for job in plan_of(toy()).jobs}
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True)
    with TrialTable(jobs, tmp_path, on_end=lambda trial: None, total=4, console=console) as table:
        table.look({next(iter(jobs)): "RUNNING"})
        assert "num_samples=1,temperature=1.0,seed=0" in out.getvalue()
    assert "3 waiting" in out.getvalue()


def test_validations_are_reported_while_the_trial_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = space_of(toy()).points[0].trials[0]
    told: list[dict[str, Any]] = []

    def slowly(trial: Trial, root: Path, executor: Any, *, stop: Path) -> None:
        folder = trial.folder(root)
        folder.mkdir(parents=True)
        for step in (100, 200, 400):
            line = {"kind": "validation", "step": step, "distance_mean": step / 10}
            with (folder / "history.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            time.sleep(0.1)
        end(folder, "finished")

    monkeypatch.setattr("pipelines.distributed.tune.run_trial", slowly)
    monkeypatch.setattr("pipelines.distributed.tune.PAUSE", 0.02)
    stop = tmp_path / "stop"
    run_and_report(trial, tmp_path, stop, told.append)
    # the last one is told by the caller, when the trial has been measured
    common = {"stop": str(stop)}
    assert told == [
        {"error": 10.0, "step": 100, **common}, {"error": 20.0, "step": 200, **common}
    ]  # fmt: skip

    def breaking(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("pipelines.distributed.tune.run_trial", breaking)
    with pytest.raises(OSError, match="disk full"):
        run_and_report(trial, tmp_path, stop, None)


# with Ray


@pytest.fixture
def ray_ends() -> Any:
    import ray

    yield
    ray.shutdown()


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.usefixtures("ray_ends")
def test_the_place_of_a_broken_run_is_given_back() -> None:
    import ray
    from ray.util.placement_group import placement_group, placement_group_table

    class Controller:
        def place(self) -> None:
            assert placement_group([{"CPU": 1}]).wait(60)

    def taken() -> int:
        return sum(row["state"] == "CREATED" for row in placement_group_table().values())

    RayTuner(num_cpus=3).executor._connect()
    assert placement_group([{"CPU": 1}]).wait(60)
    dying, living = (ray.remote(num_cpus=0)(Controller).remote() for _ in range(2))
    ray.get([dying.place.remote(), living.place.remote()])
    assert taken() == 3
    assert free_orphans() == 0
    ray.kill(dying)
    limit = time.monotonic() + 60
    while not free_orphans():
        assert time.monotonic() < limit, "the place of a dead actor stays taken"
        time.sleep(0.1)
    assert free_orphans() == 0
    assert taken() == 2
    assert ray.get(ray.remote(num_cpus=1)(lambda: 7).remote(), timeout=60) == 7


@pytest.mark.timeout(900)
@pytest.mark.integration
@pytest.mark.usefixtures("ray_ends")
def test_grid_gives_the_table_of_a_run_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = sweep_in(tmp_path / "here", toy(), LocalTuner())
    there = sweep_in(tmp_path / "there", toy(), RayTuner(num_cpus=2))
    assert there == here
    assert len(here) == 5
    # nothing is left to do, and Ray is not asked
    monkeypatch.setattr(RayTuner, "check", lambda *_: None)
    monkeypatch.setattr("pipelines.distributed.tune.fit", None)
    assert sweep_in(tmp_path / "there", toy(), RayTuner()) == here


@pytest.mark.timeout(900)
@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.usefixtures("ray_ends")
def test_optuna_tries_points_with_all_their_seeds(tmp_path: Path) -> None:
    sweep = toy(seeds=[0, 1], search={"kind": "optuna", "points": 2})
    rows = sweep_in(tmp_path, sweep, RayTuner(num_cpus=2))
    sampled = [row for row in rows if not row["exact"]]
    assert 2 <= len(sampled) <= 4
    assert all(row["status"] == "finished" for row in rows)
    seeds = {row["trial"].rpartition(",")[0]: [] for row in rows}  # type: ignore[var-annotated]
    for row in rows:
        seeds[row["trial"].rpartition(",")[0]].append(row["seed"])
    assert set(map(tuple, seeds.values())) == {(0, 1)}
    assert sweep_in(tmp_path, sweep, RayTuner(num_cpus=2)) == rows


Start = Callable[[Path, str, dict[str, Any]], "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start drivers; those that a failed test leaves are ended."""
    started: list[subprocess.Popen[bytes]] = []

    def run(folder: Path, task: str, section: dict[str, Any]) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
            environment.pop(name, None)
        with (folder / "driver.log").open("ab") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", DRIVER, str(ROOT), task, json.dumps(section)],
                    cwd=folder, env=environment, stdout=log, stderr=log,
                )
            )  # fmt: skip
        return started[-1]

    yield run
    for driver in started:
        if driver.poll() is None:
            kill(driver, alone=False)


def ended_trials(folder: Path) -> dict[str, int]:
    """When each trial ended."""
    found = folder.glob("running/trials/*/outcome.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


def wait_for(driver: "subprocess.Popen[bytes]", folder: Path, count: int) -> None:
    """Wait until trials have ended, or the driver has."""
    limit = time.monotonic() + 600
    while driver.poll() is None and len(ended_trials(folder)) < count:
        assert time.monotonic() < limit, (folder / "driver.log").read_text()[-3000:]
        time.sleep(0.05)


def kill(driver: "subprocess.Popen[bytes]", *, alone: bool) -> None:
    """SIGKILL the driver: alone, or with all that it started, as when the machine goes away."""
    family = psutil.Process(driver.pid).children(recursive=True)
    for process in [driver] if alone else [driver, *family]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    assert driver.wait() == -signal.SIGKILL
    _, alive = psutil.wait_procs(family, timeout=10)
    for process in alive:  # Ray's agents may outlive their raylet
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def heads(driver: "subprocess.Popen[bytes]") -> list[Any]:
    """Processes of trials that run."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end meanwhile
            if "ImplicitFunc" in " ".join(process.cmdline()):
                found.append(process)
    return found


def recorded_runs(folder: Path) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiments = [found.experiment_id for found in client.search_experiments()]
    return list(client.search_runs(experiments))


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_killed_driver_goes_on_and_repeats_nothing(tmp_path: Path, start: Start) -> None:
    pytest.importorskip("mlflow")
    quiet = sweep_in(tmp_path / "quiet", toy(), LocalTuner())
    driver = start(tmp_path, "toy", TOY)
    wait_for(driver, tmp_path, 2)
    kill(driver, alone=True)
    before = ended_trials(tmp_path)
    assert 2 <= len(before) < 5
    assert not (tmp_path / "results").exists()

    driver = start(tmp_path, "toy", TOY)
    assert driver.wait(600) == 0, (tmp_path / "driver.log").read_text()[-3000:]
    after = ended_trials(tmp_path)
    assert {name: after[name] for name in before} == before, "a finished trial was repeated"
    assert read(tmp_path) == quiet

    runs = recorded_runs(tmp_path)
    names = [run.info.run_name for run in runs]
    assert len(set(names)) == len(names) == 1 + len(quiet)
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = [run for run in runs if run.data.tags["stage"] == "sweep"]
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    by_name = {run.info.run_name.rpartition(" ")[0]: run for run in children}
    for row in quiet:
        measured = by_name[row["trial"]].data.metrics["final.validation_error"]
        assert measured == pytest.approx(row["validation_error"])


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.usefixtures("prepared_crystals")
def test_trials_are_ray_train_runs_stopped_early_and_restored(tmp_path: Path, start: Start) -> None:
    """Three of four learning rates learn nothing; ASHA stops at least one of them early."""
    pytest.importorskip("mlflow")
    driver = start(tmp_path, "crystals", CRYSTALS)
    wait_for(driver, tmp_path, 1)
    # the process of a trial dies: its CPU is given back, and it is tried again
    heads(driver)[0].kill()
    wait_for(driver, tmp_path, 5)
    kill(driver, alone=False)
    before = ended_trials(tmp_path)
    driver = start(tmp_path, "crystals", CRYSTALS)
    assert driver.wait(900) == 0, (tmp_path / "driver.log").read_text()[-3000:]
    after = ended_trials(tmp_path)
    assert {name: after[name] for name in before} == before
    rows = {row["trial"]: row for row in read(tmp_path)}
    assert len(rows) == 8
    exact = [row for row in rows.values() if row["exact"]]
    assert all((row["status"], row["step"]) == ("finished", 400) for row in exact)
    good = rows["num_samples=4,train.learning_rate=0.01,seed=0"]
    assert good["status"] == "finished"
    stopped = [row for row in rows.values() if row["status"] == "stopped"]
    assert stopped
    assert all(40 <= row["step"] < 400 for row in stopped)
    assert all(row["gradient_variance"] > 0 for row in rows.values())
