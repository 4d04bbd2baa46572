"""Ray Tune behind the Tuner protocol: each trial is a Ray Train run of its own."""

import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, final

from orbitdiff.metrics.comparison import of_kind
from pipelines.distributed.orphans import free_orphans
from pipelines.distributed.ray_executor import RayExecutor, check_workers, has_gpu
from pipelines.distributed.trial_table import TrialTable
from pipelines.environment import prepare_environment
from pipelines.stages.sweeps.config import Search
from pipelines.stages.sweeps.space import Trial
from pipelines.stages.sweeps.trial import figures, outcome, read_history, run_trial
from pipelines.stages.sweeps.tuner import Plan

__all__ = ["RayTuner"]

PAUSE = 1.0
ERROR, STEP, JOB, STOP = "error", "step", "job", "stop"
SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "2",
    "TUNE_WARN_THRESHOLD_S": "60",
}
HEAD = {"CPU": 0.0, "memory": 1.0}
"""A trial waits for its training workers, which hold the CPUs; Tune refuses an empty bundle."""
MAX_FAILURES = 2
SEEN = 3
"""Trials that the median rule sees before it stops any."""


@final
class RayTuner:
    """Runs trials on the cluster of $RAY_ADDRESS, or on a Ray that it starts on loopback.

    Parameters
    ----------
    num_cpus : int, optional
        Logical CPUs of a local Ray, default those of the machine.
    """

    def __init__(self, *, num_cpus: int | None = None) -> None:
        self.executor = RayExecutor(num_cpus=num_cpus)
        self.num_cpus = num_cpus

    def check(self, trials: Sequence[Trial]) -> None:
        """Refuse trials with more workers than a local Ray would have CPUs; starts nothing."""
        if os.environ.get("RAY_ADDRESS"):
            return  # the cluster is asked before the first trial
        cpus = self.num_cpus or len(os.sched_getaffinity(0))
        check_workers(most_workers(trials), {"CPU": cpus}, use_gpu=False)

    def run(
        self, plan: Plan, root: Path, *, on_end: Callable[[Trial], None]
    ) -> dict[str, list[str]]:
        """Run a plan, or go on with it where it was interrupted.

        Raises
        ------
        BadInput
            More workers than the cluster has CPUs, or GPUs where there are any.
        KeyboardInterrupt
            The user stopped it; the same plan goes on from here.
        """
        jobs = {job_name(job): job for job in plan.jobs}
        done = [name for name, job in jobs.items() if is_whole(plan.search) and ended(job, root)]
        for name in done:
            for trial in jobs[name]:
                on_end(trial)
        todo = {name: job for name, job in jobs.items() if name not in done}
        found: dict[str, str] = {}
        if todo:
            prepare_environment()
            for name, value in SETTINGS.items():
                os.environ.setdefault(name, value)
            ray = self.executor._connect()
            every = [trial for job in todo.values() for trial in job]
            at_once = concurrent(every, ray.cluster_resources())
            most = min(len(todo), plan.search.points) if is_search(plan.search) else len(todo)
            with TrialTable(todo, root, on_end=on_end, total=most) as table:
                found = fit(Experiment(plan, todo, root), table, at_once)
        if left := [
            name for name, status in found.items() if status not in ("TERMINATED", "ERROR")
        ]:
            raise KeyboardInterrupt(f"stopped before {len(left)} trials had ended")
        broken = [
            trial.name
            for name, status in found.items()
            if status == "ERROR" and name in jobs
            for trial in jobs[name]
            if outcome(trial.folder(root)) is None
        ]
        tried = [trial.name for name in jobs if name in {*done, *found} for trial in jobs[name]]
        return {"tried": tried, "failed": broken}


def job_name(job: Sequence[Trial]) -> str:
    """Name of trials that run as one: of the trial, or of the point."""
    return job[0].name if len(job) == 1 else job[0].name.rpartition(",seed=")[0]


def is_whole(search: Search) -> bool:
    """True where every trial is run to its end, so that its own folder says all about it."""
    return (search.kind, search.scheduler) == ("grid", "none")


def is_search(search: Search) -> bool:
    """True where the values are chosen one after the other."""
    return search.kind == "optuna"


def ended(job: Sequence[Trial], root: Path) -> bool:
    """True where every trial of a job has ended before."""
    return all(outcome(trial.folder(root)) is not None for trial in job)


def most_workers(trials: Sequence[Trial]) -> int:
    """Largest number of workers of a trial, at least one."""
    return max(1, *(trial.num_workers for trial in trials))


def concurrent(trials: Sequence[Trial], resources: Mapping[str, float]) -> int:
    """Trials that train at a time; no process waits for its workers. Refuses what never fits."""
    use_gpu = has_gpu(resources) and any(trial.num_workers for trial in trials)
    check_workers(most_workers(trials), resources, use_gpu=use_gpu)
    kinds = ("CPU", "GPU") if use_gpu else ("CPU",)
    return min(int(resources[kind]) // most_workers(trials) for kind in kinds)


@final
@dataclass(frozen=True)
class Experiment:
    """A plan as Tune sees it: what its processes need to find the trials of a configuration.

    Parameters
    ----------
    plan : Plan
    jobs : mapping of name to trials
    root : Path
        Running state of the sweep.
    """

    plan: Plan
    jobs: Mapping[str, list[Trial]]
    root: Path

    @property
    def chooses(self) -> bool:
        """A search chooses the values; a grid has the jobs' names."""
        return is_search(self.plan.search)

    @property
    def space(self) -> dict[str, Any]:
        """Tune's search space."""
        from ray import tune

        if not self.chooses:
            return {JOB: tune.grid_search(list(self.jobs))}
        return {axis: tune.choice(list(values)) for axis, values in self.plan.axes.items()}

    def job(self, config: Mapping[str, Any]) -> list[Trial]:
        """Trials that a configuration means; those of exact where it falls together with it."""
        if not self.chooses:
            return self.jobs[config[JOB]]
        return list(self.plan.place[tuple(config[axis] for axis in self.plan.axes)].trials)


def fit(experiment: Experiment, table: TrialTable, at_once: int) -> dict[str, str]:
    """Start or restore Tune's experiment; the last status of each job that was tried."""
    from ray import tune

    from pipelines.distributed.tune_events import WATCHERS, Forwarder

    plan, path = experiment.plan, experiment.root / "tune" / experiment.plan.name
    waits = any(trial.num_workers for job in experiment.jobs.values() for trial in job)
    trainable = tune.with_resources(
        partial(run_job, experiment=experiment, cwd=str(Path.cwd())),
        tune.PlacementGroupFactory([HEAD if waits else {"CPU": 1.0}]),
    )
    if is_whole(plan.search):
        shutil.rmtree(path, ignore_errors=True)  # trials that have ended are not in this one
    if tune.Tuner.can_restore(str(path)):
        tuner = tune.Tuner.restore(
            str(path), trainable=trainable, resume_unfinished=True, resume_errored=True
        )
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=experiment.space,
            tune_config=tune.TuneConfig(
                metric=ERROR,
                mode="min",
                max_concurrent_trials=at_once,
                num_samples=plan.search.points if experiment.chooses else 1,
                scheduler=scheduler(plan.search, experiment.jobs),
                search_alg=optuna_search() if experiment.chooses else None,
            ),
            run_config=tune.RunConfig(
                name=plan.name,
                storage_path=str(path.parent),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
                callbacks=[Forwarder()],
            ),
        )
    found: dict[str, str] = {}
    freed = 0.0

    def look(states: Sequence[tuple[Mapping[str, Any], str]]) -> None:
        nonlocal freed
        if time.monotonic() > freed + PAUSE:
            free_orphans()
            freed = time.monotonic()
        found.update((job_name(experiment.job(config)), status) for config, status in states)
        table.look(found)

    # the table says what there is to say; Tune misses files of loggers that are off
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    WATCHERS[plan.name] = look
    try:
        results = tuner.fit()
    finally:
        del WATCHERS[plan.name]
    if not found:  # every trial had ended before
        look([(trial.config, trial.status) for trial in results._experiment_analysis.trials])
    return found


def scheduler(search: Search, jobs: Mapping[str, Sequence[Trial]]) -> Any:
    """Tune's scheduler; None tries every trial to its end."""
    from pipelines.distributed.tune_events import AskingASHA, AskingMedian

    steps = max(trial.steps for job in jobs.values() for trial in job)
    grace = min(search.grace, steps)
    if search.scheduler == "asha":
        return AskingASHA(
            time_attr=STEP, max_t=steps, grace_period=grace, reduction_factor=search.reduction
        )
    if search.scheduler == "median":
        return AskingMedian(time_attr=STEP, grace_period=grace, min_samples_required=SEEN)
    return None


def optuna_search() -> Any:
    """TPE with a fixed seed."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return OptunaSearch(sampler=optuna.samplers.TPESampler(seed=0))


def run_job(config: dict[str, Any], *, experiment: Experiment, cwd: str) -> None:
    """Run a job inside Tune and report its errors; in a process of the cluster."""
    from ray import tune

    prepare_environment()
    os.chdir(cwd)
    job, root = experiment.job(config), experiment.root
    for trial in job:
        stop = trial.folder(root) / f"stop-{experiment.plan.name}"
        run_and_report(trial, root, stop, tune.report if len(job) == 1 else None)
        if stop.exists() and outcome(trial.folder(root)) is None:
            return
    ends = [(outcome(trial.folder(root)), figures(trial, root)) for trial in job]
    errors = [
        found["validation_error"]
        for end, found in ends
        if end is not None and end["status"] == "finished"
    ]
    whole = len(errors) == len(job) and None not in errors
    # a point with a seed that diverged is as bad as it gets
    error = sum(errors) / len(errors) if whole else float("inf")
    tune.report({ERROR: error, STEP: job[0].steps, STOP: str(stop)})


def run_and_report(
    trial: Trial, root: Path, stop: Path, report: Callable[[dict[str, Any]], None] | None
) -> None:
    """Run a trial in a thread and report the validations that its workers write meanwhile.

    The last one is left to the caller, who knows how the trial ended.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            run_trial(trial, root, RayExecutor(), stop=stop)
        except BaseException as error:
            failures.append(error)

    thread = Thread(target=run, name="trial", daemon=True)
    thread.start()
    told = 0
    while thread.is_alive():
        thread.join(PAUSE)
        known = of_kind(read_history(trial.folder(root)), "validation")
        for record in known[told:]:
            if report is not None and record["step"] < trial.steps:
                report({ERROR: record["distance_mean"], STEP: record["step"], STOP: str(stop)})
        told = len(known)
    if failures:
        raise failures[0]
