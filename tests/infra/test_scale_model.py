"""The scale model: counts against torch and by hand, DDP's buckets, a ring, made-up measurements."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed, nn
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import scale_cluster
import scale_counts
import scale_model

from orbitdiff.batch import Batch
from orbitdiff.nn.cspnet import CSPNet, CSPNetConfig
from orbitdiff.nn.pairs import pair_index
from orbitdiff.training import checkpoint as store
from orbitdiff.training.ema import moving_average

RESULTS = ROOT / "benchmarks" / "results" / "nodes_cpu.json"
SMALL = CSPNetConfig(hidden=16, layers=2, frequencies=4, time_dim=8)


def small_network() -> CSPNet:
    torch.manual_seed(0)
    return CSPNet(SMALL)


@pytest.fixture(scope="module")
def small() -> scale_counts.Workload:
    return scale_counts.Workload(
        "crystals small, 5 atoms", 5, 8, 100, 10, "float32", small_network, scale_counts.crystals
    )


class Chain(nn.Module):
    """Two linear layers; every number of a step can be written down."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16, bias=False), nn.Linear(16, 4, bias=False)

    def forward(self, x_t: Any, t: Any, cond: Any, mask: Any) -> Any:
        return {"x": self.second(self.first(x_t["x"]))}


class TestCounts:
    def test_two_linear_layers_by_hand(self) -> None:
        width, traces = 5, {}
        for rows in (2, 3):
            state = {"x": torch.zeros(rows, width, 8)}
            batch = Batch(state, torch.ones(rows, width, dtype=torch.bool), {}, torch.arange(rows))
            traces[rows] = scale_counts.trace_step(Chain(), batch, half=False)
        trace, n = traces[3], 3 * width
        first, second = 2 * n * 8 * 16, 2 * n * 16 * 4
        products = [k for k in trace.kernels if k.flops]
        assert [k.flops for k in products if k.stage == "forward"] == [first, second]
        assert sorted(k.flops for k in products if k.stage == "backward") == [second, second, first]
        moved = {k.flops: k.bytes for k in products if k.stage == "forward"}
        assert moved == {
            first: 4 * (n * 8 + 8 * 16 + n * 16),
            second: 4 * (n * 16 + 16 * 4 + n * 4),
        }
        assert traces[3].saved - traces[2].saved == 4 * width * (8 + 16)
        # Adam reads and writes weights and moments, clipping the gradients, the average itself
        update = sum(k.bytes for k in trace.kernels if k.stage == "update")
        weights = 4 * (8 * 16 + 16 * 4)
        assert 10 * weights < update < 40 * weights

    def test_flops_at_another_batch_size_are_those_of_a_real_step(
        self, small: scale_counts.Workload
    ) -> None:
        cost = scale_counts.count(small)
        batch = small.data(7, 5).batch(range(7))
        with FlopCounterMode(display=False) as counter:
            out = small_network()(batch.state, torch.rand(7), batch.cond, batch.mask)
            sum(x.sum() for x in out.values()).backward()
        assert cost.flops_at(7).sum() == pytest.approx(counter.get_total_flops(), rel=1e-12)

    def test_parameters_and_input(self, small: scale_counts.Workload) -> None:
        cost = scale_counts.count(small)
        assert cost.num_parameters == sum(x.numel() for x in small_network().parameters())
        # lattice, fractional coordinates, elements, mask
        assert cost.input_per_sample == 4 * 9 + 4 * 15 + 8 * 5 + 5

    def test_checkpoint_is_as_large_as_a_written_one(
        self, small: scale_counts.Workload, tmp_path: Path
    ) -> None:
        network = CSPNet(CSPNetConfig(hidden=64, layers=3, frequencies=16, time_dim=64))
        work = scale_counts.Workload(
            "crystals demo", 5, 8, 1, 1, "float32", lambda: network, scale_counts.crystals
        )
        ema = moving_average(network, 0.9)
        optimiser = torch.optim.Adam(network.parameters())
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimiser.step()
        trainer = {
            "network": network.state_dict(),
            "ema": ema.state_dict(),
            "optimiser": optimiser.state_dict(),
        }
        store.save(tmp_path, ema.module.state_dict(), {}, trainer=trainer)
        written = sum(path.stat().st_size for path in tmp_path.iterdir())
        assert scale_counts.count(work).checkpoint == pytest.approx(written, rel=0.05)

    def test_half_precision_moves_fewer_bytes(self) -> None:
        network = small_network()
        batch = scale_counts.crystals(4, 5).batch(range(4))
        full = scale_counts.trace_step(network, batch, half=False)
        half = scale_counts.trace_step(network, batch, half=True)
        assert half.saved < full.saved
        assert any(kernel.half and kernel.flops for kernel in half.kernels)
        assert not any(kernel.half for kernel in full.kernels)

    def test_nothing_fake_is_left_behind(self, small: scale_counts.Workload) -> None:
        scale_counts.count(small)
        index = pair_index(5, torch.device("cpu"))
        assert type(index.first) is torch.Tensor
        assert index.first.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 3]


LINK = scale_cluster.Link(1e-5, 1e9)


def cluster(**changes: Any) -> scale_cluster.Cluster:
    given = {"per_node": 1, "inner": LINK, "outer": LINK, "overlap": True, "tree": False}
    return scale_cluster.Cluster(**{**given, "jitter": 0.0, **changes})


class TestExchange:
    @pytest.mark.parametrize("workers", [2, 3, 8])
    def test_ring_against_messages_one_by_one(self, workers: int) -> None:
        """Every worker passes chunk after chunk on; a worker starts when its chunk has arrived."""
        size = 1e6
        ready = np.zeros(workers)
        for _ in range(2 * (workers - 1)):
            sent = ready + LINK.latency + size / workers / LINK.bandwidth
            ready = np.maximum(ready, np.roll(sent, 1))
        assert scale_cluster.all_reduce(size, workers, cluster()) == pytest.approx(ready.max())

    def test_one_worker_sends_nothing(self) -> None:
        assert scale_cluster.all_reduce(1e9, 1, cluster(per_node=8, tree=True)) == 0

    def test_nodes_share_their_links(self) -> None:
        """Eight links per node carry an eighth each between the nodes."""
        slow = scale_cluster.Link(0.0, 1e8)
        fast = scale_cluster.Link(0.0, 1e15)
        both = cluster(per_node=8, inner=fast, outer=slow)
        assert scale_cluster.all_reduce(8e6, 16, both) == pytest.approx(1e6 / 1e8, rel=1e-3)

    def test_buckets_are_those_of_ddp(self) -> None:
        network = CSPNet(CSPNetConfig(hidden=300, layers=6))
        parameters = list(reversed(list(network.parameters())))
        indices, _ = distributed._compute_bucket_assignment_by_size(
            parameters, [distributed._DEFAULT_FIRST_BUCKET_BYTES, 25 * 2**20]
        )
        wanted = [sum(4 * parameters[i].numel() for i in bucket) for bucket in indices]
        numbers = [x.numel() for x in network.parameters()]
        assert len(wanted) > 1
        assert scale_cluster.buckets(numbers) == wanted

    def test_what_backward_hides(self) -> None:
        sizes = [1.0, 3.0, 4.0]
        assert scale_cluster.exposed(sizes, 0.0, lambda size: size) == 8.0
        # long backward: only the bucket that fills last is paid for
        assert scale_cluster.exposed(sizes, 1e3, lambda size: size) == pytest.approx(4.0)
        # ready at 1, 4 and 8; sent from 1 to 3, 4 to 10, 10 to 18
        assert scale_cluster.exposed(sizes, 8.0, lambda size: 2 * size) == pytest.approx(10.0)

    @pytest.mark.parametrize("workers", [1, 2, 8, 512])
    def test_slowest_worker_against_draws(self, workers: int) -> None:
        drawn = np.random.default_rng(0).normal(size=(4000, workers)).max(1).mean()
        assert scale_cluster.largest_of(workers) == pytest.approx(drawn, rel=0.05, abs=0.05)

    def test_gpu_is_as_slow_as_the_slower_of_device_and_host(
        self, small: scale_counts.Workload
    ) -> None:
        cost, gpu = scale_counts.count(small), scale_cluster.GPU
        kernels = len(cost.stage)
        launches, _ = scale_cluster.gpu_seconds(cost, 1, gpu(launch=1.0))
        assert launches == pytest.approx(kernels)
        device, backward = scale_cluster.gpu_seconds(
            cost, 1e12, gpu(single=1.0, half=1.0, memory=1e30, kernel=0.0)
        )
        assert device == pytest.approx(cost.flops_at(1e12).sum())
        assert 0 < backward < device


def measurements(**changes: Any) -> dict[str, Any]:
    """Results of a machine with 3 ms + 0.2 ms per sample, links of 0.1 ms and 1 GB/s."""
    reduce = {str(size): 2 * 0.1 + size / 1e6 for size in (4096, 65536, 2**20)}
    given = {
        "batch": 64,
        "alone_ms": {str(size): 3.0 + 0.2 * size for size in (16, 32, 64)},
        "together_ms": {"1x2": 1.5 * (3.0 + 0.2 * 32), "2x1": 3.0 + 0.2 * 32},
        "jitter": {"1x2": 0.0, "2x1": 0.1},
        "all_reduce_ms": {"1x2": reduce, "2x1": reduce},
        "checkpoint": {"bytes": 10**6, "seconds": 0.01},
        "host_us_per_sample": {"crystals": 2.0, "conformers": 20.0, "backbones": 2.0},
        "points_ms": {},
    }
    return {**given, **changes}


class TestMeasured:
    def test_lines_are_found_again(self) -> None:
        found = scale_cluster.Measured(measurements())
        assert found.fixed == pytest.approx(3e-3)
        assert found.per_sample == pytest.approx(0.2e-3)
        assert found.links["2x1"].latency == pytest.approx(1e-4)
        assert found.links["2x1"].bandwidth == pytest.approx(1e9)
        assert found.contention == pytest.approx({"1x2": 1.5, "2x1": 1.0})

    def test_points_by_hand(self, small: scale_counts.Workload) -> None:
        found, cost = scale_cluster.Measured(measurements()), scale_counts.count(small)
        assert found.predict(1, 1, cost).total == pytest.approx(3e-3 + 64 * 0.2e-3)
        gradients = 4 * cost.num_parameters
        exchange = 2e-4 + gradients / 1e9 + 1e-4  # one bucket, and the buffers
        waiting = 9.4e-3 * 0.1 / np.sqrt(np.pi)  # expected larger one of two normal deviations
        assert found.predict(2, 2, cost).total == pytest.approx(
            9.4e-3 + exchange + waiting, rel=3e-3
        )
        assert found.predict(1, 2, cost).total == pytest.approx(1.5 * 9.4e-3 + exchange)

    def test_points_are_not_used_to_predict_them(self, small: scale_counts.Workload) -> None:
        cost = scale_counts.count(small)
        other = scale_cluster.Measured(measurements(points_ms={"2x1": 1e6}))
        here = scale_cluster.Measured(measurements())
        assert other.predict(2, 2, cost) == here.predict(2, 2, cost)

    def test_noise_gives_no_negative_times(self) -> None:
        falling = scale_cluster.Measured(measurements(alone_ms={"16": 9.0, "32": 8.0, "64": 7.0}))
        assert falling.fixed > 0
        assert falling.per_sample == 0
        steep = scale_cluster.Measured(measurements(alone_ms={"16": 1.0, "32": 4.0, "64": 9.0}))
        assert steep.fixed == 0
        assert steep.per_sample > 0


def test_what_costs_most_is_named() -> None:
    single = scale_cluster.Parts(0.0, 10.0, 0.0, 0.0)
    slow = scale_cluster.Parts(0.0, 2.0, 5.0, 1.0)
    assert scale_model.limit_of(slow, single, 0.125) == "all-reduce"
    launches = scale_cluster.Parts(0.0, 9.0, 5.0, 1.0)
    assert scale_model.limit_of(launches, single, 0.125).startswith("kernel launches")


def test_digits() -> None:
    assert scale_model.digits(12345.6) == "12,346"
    assert scale_model.digits(0.0123456) == "0.0123"
    assert scale_model.digits(0.0) == "0"


def test_every_table_reaches_the_page() -> None:
    page = (ROOT / "docs" / "scale.md").read_text()
    assert all(page.count(f"<!-- table {name} -->") == 1 for name in scale_model.TABLES)
    measured = scale_cluster.Measured(measurements(points_ms={"1x1": 15.0, "2x1": 9.0}))
    filled = scale_model.fill(page, measured)
    assert scale_model.fill(filled, measured) == filled
    for name in scale_model.TABLES:
        shown = filled.split(f"<!-- table {name} -->\n")[1].split("<!-- end -->")[0]
        columns = [line.count("|") for line in shown.splitlines()]
        assert len(columns) > 3, name
        assert len(set(columns)) == 1, name
        assert "nan" not in shown, name


@pytest.mark.skipif(not RESULTS.exists(), reason="benchmarks/bench_nodes.py has not run")
class TestCommitted:
    def test_measured_points_are_reproduced(self) -> None:
        measured = scale_cluster.Measured(json.loads(RESULTS.read_text()))
        load, cores = measured.content["load_before"][0], measured.content["cores"]
        if load > cores:
            pytest.skip(f"measured beside other work (load {load}): run bench_nodes.py again")
        cost = scale_counts.count(scale_counts.workloads()[0])
        points = measured.content["points_ms"]
        assert set(points) == {"1x1", "1x2", "2x1"}
        for layout, ms in points.items():
            nodes, each = map(int, layout.split("x"))
            found = 1e3 * measured.predict(nodes, nodes * each, cost).total
            assert found == pytest.approx(ms, rel=0.2), layout

    def test_page_shows_what_the_command_computes(self) -> None:
        measured = scale_cluster.Measured(json.loads(RESULTS.read_text()))
        page = (ROOT / "docs" / "scale.md").read_text()
        assert scale_model.fill(page, measured) == page, (
            "run: python benchmarks/scale_model.py --write docs/scale.md"
        )
