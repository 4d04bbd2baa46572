"""Places on the cluster that nobody will use: those of training runs whose controller was killed.

Ray removes the placement group of a dead actor only once the driver has ended too, and forgets
groups that were asked for while a driver died; Ray Train's own cleaner asks the dashboard, which is
off here. The CPUs would stay taken, and the next attempt at the trial would wait for them.
"""

from typing import Any

__all__ = ["free_orphans"]


def free_orphans() -> int:
    """Remove placement groups of dead drivers, and those of dead actors of this one.

    Ray's public table does not say who made a group, so its raw one is read.

    Returns
    -------
    int
        Number of groups removed.
    """
    import ray
    from ray._private.state import state
    from ray._raylet import PlacementGroupID
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    job = ray.get_runtime_context().get_job_id()
    table = state._connect_and_get_accessor().get_placement_group_table()
    dead = {found["JobID"] for found in state.job_table() if found["IsDead"]}
    orphans = []
    for row in map(PlacementGroupTableData.FromString, table):
        owner = row.creator_job_id.hex()
        if row.is_detached or row.state == PlacementGroupTableData.REMOVED:
            continue
        if owner in dead or (owner == job and actor_is_dead(row.creator_actor_id)):
            orphans.append(PlacementGroup(PlacementGroupID(row.placement_group_id)))
    for group in orphans:
        remove_placement_group(group)
    return len(orphans)


def actor_is_dead(number: bytes) -> Any:
    """Say whether an actor has died; a driver, which has no actor, has not."""
    from ray._private.state import state
    from ray._raylet import ActorID
    from ray.core.generated.gcs_pb2 import ActorTableData  # type: ignore[attr-defined]

    actor = ActorID(number)
    if actor.is_nil():
        return False
    found = state._connect_and_get_accessor().get_actor_info(actor)
    return found is None or ActorTableData.FromString(found).state == ActorTableData.DEAD
