"""Ray behind the Executor protocol: tasks for `map`, Ray Train for `fit`."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, final

import torch
from torch import nn

from orbitdiff.errors import BadInput, OrbitDiffError
from pipelines.distributed.progress import PROGRESS_FILE, follow
from pipelines.distributed.refusal import (
    clear_refusal,
    find_refusal,
    raise_refusal,
    write_refusal,
)
from pipelines.distributed.shards import stream_tables
from pipelines.distributed.storage import checkpoint_place, newest_whole
from pipelines.environment import prepare_environment
from pipelines.stages.base import Loop

__all__ = ["RayExecutor", "RayWorker"]

Item = TypeVar("Item")
Result = TypeVar("Result")
OBJECT_STORE_BYTES = 200 * 2**20
MAX_FAILURES = 2


@final
class RayWorker:
    """One process of a Ray Train run.

    Parameters
    ----------
    storage : Path
        Folder of the run, shared by all workers and the driver.
    """

    def __init__(self, storage: Path) -> None:
        import ray.train
        import ray.train.torch

        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()
        self.storage = storage

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model with gradients averaged over workers (DDP)."""
        import ray.train.torch

        if self.world_size == 1:
            return model
        wrapped: nn.Module = ray.train.torch.prepare_model(model)
        return wrapped

    @contextmanager
    def restore(self) -> Iterator[Path | None]:
        """Give the newest committed checkpoint; broken ones are passed over."""
        import ray.train

        found = ray.train.get_checkpoint()
        if found is None:
            yield None
            return
        with newest_whole(found) as (folder, name):
            newest = Path(found.path).name
            if self.rank == 0 and name != newest:
                instead = f"{name} is taken" if name else "training starts over"
                self.say(f"checkpoint {newest} is cut or was changed; {instead}")
            yield folder

    def shards(self, files: Iterable[Path]) -> Iterator[Any]:
        """Give the table of each file, read ahead by Ray Data."""
        return stream_tables(files)

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the mean of each number over the workers."""
        if self.world_size == 1:
            return dict(values)
        total = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return dict(zip(values, (total / self.world_size).tolist(), strict=True))

    def say(self, line: str) -> None:
        """Append the line to the file that the driver follows."""
        with (self.storage / PROGRESS_FILE).open("a") as file:
            file.write(line + "\n")

    def report(self, metrics: Mapping[str, float], checkpoint: Path | None) -> None:
        """Report metrics; rank 0 attaches the checkpoint."""
        import ray.train

        attached = None if checkpoint is None else ray.train.Checkpoint.from_directory(checkpoint)
        ray.train.report(dict(metrics), checkpoint=attached)


@final
class RayExecutor:
    """Runs on the cluster of $RAY_ADDRESS, or on a Ray that it starts on loopback.

    Parameters
    ----------
    num_cpus : int, optional
        Logical CPUs of a local Ray, default those of the machine.
    resize_seconds : float
        How often a training that may grow looks for room.
    """

    def __init__(self, *, num_cpus: int | None = None, resize_seconds: float = 60.0) -> None:
        self.num_cpus = num_cpus
        self.resize_seconds = resize_seconds

    def _connect(self) -> Any:
        prepare_environment()
        import ray

        if not ray.is_initialized():
            if os.environ.get("RAY_ADDRESS"):
                ray.init(log_to_driver=True)
            else:
                ray.init(
                    address="local",
                    num_cpus=self.num_cpus,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    log_to_driver=False,
                )
        return ray

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, description: str
    ) -> list[Result]:
        """Apply a function to every item in Ray tasks, in order, a few in flight at a time."""
        from tqdm import tqdm

        ray = self._connect()
        remote = ray.remote(num_cpus=1, max_retries=2)(_apply)
        shared = ray.put(function)
        limit = 2 * int(ray.cluster_resources().get("CPU", 1))
        results: list[Any] = [None] * len(items)
        waiting: dict[Any, int] = {}
        queue = iter(enumerate(items))
        with tqdm(total=len(items), desc=description, leave=False) as bar:
            while True:
                while len(waiting) < limit and (entry := next(queue, None)) is not None:
                    waiting[remote.remote(shared, entry[1])] = entry[0]
                if not waiting:
                    return results
                done, _ = ray.wait(list(waiting), num_returns=1)
                for reference in done:
                    results[waiting.pop(reference)] = ray.get(reference)
                    bar.update()

    def fit(
        self,
        loop: Loop,
        config: dict[str, Any],
        *,
        name: str,
        storage: Path,
        num_workers: int,
        min_workers: int = 0,
    ) -> dict[str, Any]:
        """Run a training loop through Ray Train; the same name and storage resume.

        Where `min_workers` is set, the run goes on with fewer workers where a node leaves, and
        with more where one joins, from its last checkpoint each time.

        Raises
        ------
        BadInput
            More workers than CPUs, or than GPUs where there are any: Ray would wait for ever;
            a storage URL that cannot be read.
        OrbitDiffError
            What a worker raised, in its own class; it is not tried again.
        """
        ray = self._connect()
        resources = ray.cluster_resources()
        use_gpu = has_gpu(resources)
        check_workers(min_workers or num_workers, resources, use_gpu=use_gpu)
        from ray.train import (
            CheckpointConfig,
            FailureConfig,
            RunConfig,
            ScalingConfig,
            WorkerGroupError,
        )
        from ray.train.torch import TorchConfig, TorchTrainer

        place, filesystem = checkpoint_place(storage)
        trainer = TorchTrainer(
            _on_worker,  # type: ignore[arg-type]
            train_loop_config={
                "loop": loop,
                "config": config,
                "cwd": str(Path.cwd()),
                "storage": str(storage.absolute()),
            },
            torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=(min_workers, num_workers) if min_workers else num_workers,  # type: ignore[arg-type]
                elastic_resize_monitor_interval_s=self.resize_seconds,  # type: ignore[call-arg]
                use_gpu=use_gpu,
                resources_per_worker={"CPU": 1},
            ),
            run_config=RunConfig(
                name=name,
                storage_path=place,
                storage_filesystem=filesystem,
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
            ),
        )
        storage.mkdir(parents=True, exist_ok=True)
        clear_refusal(storage)
        try:
            with follow(storage / PROGRESS_FILE):
                result = trainer.fit()
        except WorkerGroupError as error:
            if find_refusal(storage):
                raise_refusal(storage)
            causes = [str(cause) for cause in error.worker_failures.values()]
            raise OrbitDiffError(said_of(causes[0] if causes else str(error))) from error
        if find_refusal(storage):
            raise_refusal(storage)
        returned: dict[str, Any] = getattr(result, "return_value", None) or dict(
            result.metrics or {}
        )
        return returned


def said_of(cause: str) -> str:
    """Message for a worker that did not get to say its own, with a hint where it was ended.

    The system and Ray end the process that takes too much memory; it cannot say so itself.
    """
    if "OOM" in cause or "memory" in cause.lower():
        cause += (
            "\nIf memory ran out: raise train.micro_batches, or take more workers on more machines "
            "(train.num_workers), for the same batch, or lower train.batch_size; the last "
            "checkpoint is kept"
        )
    return f"training failed: {cause}"


def has_gpu(resources: Mapping[str, float]) -> bool:
    """Say whether a cluster trains on GPUs; the machine of the driver may have none itself."""
    return resources.get("GPU", 0) > 0


def check_workers(num_workers: int, resources: Mapping[str, float], *, use_gpu: bool) -> None:
    """Refuse more workers than the cluster has CPUs, or GPUs where they are used."""
    for kind in ("CPU", "GPU") if use_gpu else ("CPU",):
        found = int(resources.get(kind, 0))
        if num_workers > found:
            raise BadInput(
                f"train.num_workers = {num_workers} but Ray has {found} {kind}s; "
                f"use --set train.num_workers={max(1, found)} or add nodes"
            )


def _apply(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)


def _on_worker(settings: dict[str, Any]) -> dict[str, Any]:
    os.chdir(settings["cwd"])
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    tempfile.tempdir = None
    storage = Path(settings["storage"])
    worker = RayWorker(storage)
    if find_refusal(storage):
        return {}
    try:
        result: dict[str, Any] = settings["loop"](worker, settings["config"])
    except OrbitDiffError as error:
        write_refusal(storage, error)
        if worker.world_size > 1:
            raise  # the others wait in an all-reduce: Ray ends them, and their successors return
        return {}
    return result
