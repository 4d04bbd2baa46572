"""Training runs inside a trial: what a former attempt left behind is given back first.

A Ray Train run whose controller dies leaves its placement group, and its CPUs, taken: the actor
that should give them back asks Ray's dashboard, which is off here.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, final

from orbitdiff.training.worker import Worker
from pipelines.distributed.ray_executor import RayExecutor
from pipelines.stages.base import Loop

__all__ = ["PlacedExecutor", "give_back"]

Item = TypeVar("Item")
Result = TypeVar("Result")
NOTE = "placement.txt"


@final
class PlacedExecutor:
    """A RayExecutor that notes where a run trains, and frees the place of an earlier attempt."""

    def __init__(self) -> None:
        self.executor = RayExecutor()

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, description: str
    ) -> list[Result]:
        """Apply a function to every item in Ray tasks."""
        return self.executor.map(function, items, description=description)

    def fit(
        self, loop: Loop, config: dict[str, Any], *, name: str, storage: Path, num_workers: int
    ) -> dict[str, Any]:
        """Run a training loop through Ray Train; the same name and storage resume."""
        give_back(storage)
        return self.executor.fit(
            noting_place, {"loop": loop, "config": config, "storage": str(storage)}, name=name,
            storage=storage, num_workers=num_workers,
        )  # fmt: skip


def noting_place(worker: Worker, config: dict[str, Any]) -> dict[str, Any]:
    """Note the placement group of the workers, and run the loop."""
    import ray

    if worker.rank == 0:
        place = ray.get_runtime_context().get_placement_group_id() or ""
        (Path(config["storage"]) / NOTE).write_text(place)
    found: dict[str, Any] = config["loop"](worker, config["config"])
    return found


def give_back(storage: Path) -> bool:
    """Remove the placement group that a run in this folder still holds; True where it did."""
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import (
        PlacementGroup,
        placement_group_table,
        remove_placement_group,
    )

    note = storage / NOTE
    place = note.read_text() if note.exists() else ""
    known = placement_group_table().get(place)
    if known is None or known["state"] == "REMOVED":
        return False
    remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(place))))
    return True
