"""Places on the cluster that nobody will use: those of training runs whose controller was killed.

Ray removes the placement group of a dead actor only once the driver has ended too; Ray Train's own
cleaner asks the dashboard, which is off here. Until then the CPUs would be taken, and the next
attempt at the same trial would wait for them.
"""

__all__ = ["free_orphans"]


def free_orphans() -> int:
    """Remove placement groups of this driver that dead actors have made; return their number.

    Ray's public table does not say who made a group, so its raw one is read.
    """
    import ray
    from ray._private.state import state
    from ray._raylet import ActorID, PlacementGroupID
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    job = ray.get_runtime_context().get_job_id()
    table = state._connect_and_get_accessor().get_placement_group_table()
    orphans = [
        row
        for row in map(PlacementGroupTableData.FromString, table)
        if row.creator_actor_dead
        and not ActorID(row.creator_actor_id).is_nil()  # a driver's own
        and row.creator_job_id.hex() == job
        and row.state != PlacementGroupTableData.REMOVED
        and not row.is_detached
    ]
    for row in orphans:
        remove_placement_group(PlacementGroup(PlacementGroupID(row.placement_group_id)))
    return len(orphans)
