"""Nodes of a cluster as separate raylets."""

from collections.abc import Iterator
from typing import Any

import pytest


class Nodes:
    """A head that offers nothing, and nodes of one CPU, an address and an object store each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, connect=False, head_node_args=head)
        self.address: str = self.cluster.address
        self.nodes: list[Any] = []
        self.joined = 0

    def join(self) -> None:
        """Add a raylet and wait until the head knows it."""
        self.joined += 1
        self.nodes.append(
            self.cluster.add_node(
                num_cpus=1, object_store_memory=80 * 2**20,
                node_ip_address=f"127.0.0.{1 + self.joined}",
            )
        )  # fmt: skip

    def kill(self, number: int) -> None:
        """SIGKILL a raylet; its workers die with it."""
        self.cluster.remove_node(self.nodes.pop(number), allow_graceful=False)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """A cluster that trainings reach by its address; no node has joined yet."""
    # a raylet that waits for a core is not dead
    monkeypatch.setenv("RAY_health_check_period_ms", "1000")
    monkeypatch.setenv("RAY_health_check_timeout_ms", "20000")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "15")
    found = Nodes()
    yield found
    found.cluster.shutdown()
