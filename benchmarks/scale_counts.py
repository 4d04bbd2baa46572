"""What a training step costs, counted from the real modules: no number here is typed in.

The step (network, backward, clipping, Adam, averaged weights) runs on fake tensors, which have
shapes and types but no numbers, under the autocast that the preset asks for. Each kernel is
recorded with its floating-point operations (torch.utils.flop_counter's formulas) and the bytes of
its inputs and outputs. Both are linear in the batch, so two batch sizes give them for all.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from orbitdiff.batch import Batch
from orbitdiff.data.cif import Crystal
from orbitdiff.data.crystals import CrystalDataset
from orbitdiff.data.molecule_graph import ATOM_FEATURES, MoleculeGraph
from orbitdiff.data.molecules import Ensemble, MoleculeDataset, MoleculeRecord
from orbitdiff.data.proteins import Backbone, ProteinDataset
from orbitdiff.groups.graph import LabelledGraph
from orbitdiff.nn.backbone_transformer import BackboneTransformer, BackboneTransformerConfig
from orbitdiff.nn.cspnet import CSPNet
from orbitdiff.nn.pairs import pair_index
from orbitdiff.seeding import stream
from orbitdiff.tasks.conformers import build_network
from orbitdiff.training.ema import moving_average
from pipelines.params import load

__all__ = ["Cost", "Kernel", "Trace", "Workload", "count", "datasets", "trace_step", "workloads"]

PAIR = (2, 4)  # the two batch sizes


@dataclass(frozen=True)
class Workload:
    """One network on samples of one size, with its preset's batch."""

    name: str
    points: int
    batch: int
    steps: int
    checkpoint_every: int
    precision: str
    network: Callable[[], nn.Module]
    data: Callable[[int, int], Any]
    """(samples, points) -> data set; its `batch` is what training uses."""


class Kernel(NamedTuple):
    """One kernel: operations, bytes, whether it multiplies in bfloat16, and its stretch."""

    flops: float
    bytes: float
    half: bool
    stage: str


class Trace(NamedTuple):
    """Kernels of a step at one batch size; bytes that backward keeps, weights among them."""

    kernels: list[Kernel]
    saved: float


@dataclass(frozen=True)
class Cost:
    """A step as a function of the batch: `fixed + slope * batch` for each kernel."""

    parameters: tuple[int, ...]
    buffers: int
    flops: tuple[np.ndarray, np.ndarray]
    bytes: tuple[np.ndarray, np.ndarray]
    half: np.ndarray
    stage: np.ndarray
    saved_per_sample: float
    input_per_sample: float
    checkpoint: int

    @property
    def num_parameters(self) -> int:
        """Parameters of the network."""
        return sum(self.parameters)

    def flops_at(self, batch: float) -> np.ndarray:
        """Operations of each kernel."""
        return self.flops[0] + self.flops[1] * batch

    def bytes_at(self, batch: float) -> np.ndarray:
        """Bytes that each kernel reads and writes."""
        return self.bytes[0] + self.bytes[1] * batch


class _Recorder(TorchDispatchMode):
    """Writes down every kernel; views and empty tensors start none."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[Kernel] = []
        self.stage = "forward"

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func._overloadpacket._qualified_op_name
        idle = func.is_view or name.startswith(("prim::", "aten::empty", "aten::_unsafe_view"))
        if not idle:
            tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
            formula = flop_registry.get(func._overloadpacket)
            flops = formula(*args, **kwargs, out_val=out) if formula else 0
            half = any(x.dtype == torch.bfloat16 for x in tensors)
            self.kernels.append(Kernel(flops, sum(map(size_of, tensors)), half, self.stage))
        return out


def size_of(tensor: torch.Tensor) -> int:
    """Bytes of a tensor; an expanded one is as large as its storage."""
    return min(tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes())


def trace_step(network: nn.Module, batch: Batch, *, half: bool) -> Trace:
    """Kernels of network, backward, clipping, Adam (its state made) and averaged weights."""
    recorder, fake = _Recorder(), FakeTensorMode(allow_non_fake_inputs=True)
    ema = moving_average(network, 0.999)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3, foreach=True)
    with fake:
        for parameter in network.parameters():
            parameter.grad = torch.zeros(parameter.shape)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        x_t, cond = (
            {k: fake.from_tensor(v) for k, v in x.items()} for x in (batch.state, batch.cond)
        )
        t, mask = torch.zeros(len(batch)), fake.from_tensor(batch.mask)
        saved: dict[int, int] = {}
        with recorder, _saved_bytes(saved):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                out = network(x_t, t, cond, mask)
            recorder.stage = "backward"
            torch.autograd.backward(list(out.values()), [torch.ones_like(x) for x in out.values()])
            recorder.stage = "update"
            nn.utils.clip_grad_norm_(network.parameters(), 1.0, foreach=True)
            optimiser.step()
            with torch.no_grad():
                averaged = list(ema.module.parameters())
                ema.multi_avg_fn(averaged, list(network.parameters()), 10)
    return Trace(recorder.kernels, sum(saved.values()))


@contextmanager
def _saved_bytes(saved: dict[int, int]) -> Iterator[None]:
    """Collect the size of each storage that backward will need."""
    kept = []  # alive, so that no two storages have one address

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield


@functools.cache
def count(workload: Workload) -> Cost:
    """Trace a workload's step at two batch sizes."""
    network = workload.network()
    batches = [workload.data(size, workload.points).batch(range(size)) for size in PAIR]
    half = workload.precision == "bfloat16"
    pair_index(workload.points, torch.device("cpu"))  # cached, so it must not be made of fakes
    small, large = (trace_step(network, batch, half=half) for batch in batches)
    assert [k.stage for k in small.kernels] == [k.stage for k in large.kernels]
    flops, moved = ([np.array([k[i] for k in x.kernels]) for x in (small, large)] for i in (0, 1))
    gap = PAIR[1] - PAIR[0]

    def line(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slope = (high - low) / gap
        return low - slope * PAIR[0], slope

    parts = [batches[0].mask, *batches[0].state.values(), *batches[0].cond.values()]
    weights = [x.numel() * x.itemsize for x in network.parameters()]
    held = sum(weights) + sum(x.numel() * x.itemsize for x in network.buffers())
    return Cost(
        parameters=tuple(x.numel() for x in network.parameters()),
        buffers=len(list(network.buffers())),
        flops=line(*flops),
        bytes=line(*moved),
        half=np.array([k.half for k in small.kernels]),
        stage=np.array([k.stage for k in small.kernels]),
        saved_per_sample=(large.saved - small.saved) / gap,
        input_per_sample=sum(x.numel() * x.itemsize for x in parts) / PAIR[0],
        # EMA twice (model.safetensors, trainer.pt), raw weights, both moments of Adam
        checkpoint=3 * held + 2 * sum(weights),
    )


def datasets() -> dict[str, Callable[[int, int], Any]]:
    """Data sets of equal samples with `points` points, by task; the classes are the real ones."""
    return {"crystals": crystals, "conformers": molecules, "backbones": chains}


def crystals(size: int, points: int) -> CrystalDataset:
    frac = np.random.default_rng(0).random((points, 3))
    types = np.arange(1, points + 1)
    return CrystalDataset([Crystal(str(i), types, frac, 4 * np.eye(3)) for i in range(size)])


def molecules(size: int, points: int) -> MoleculeDataset:
    """Chains of carbon atoms with two stereocentres, about as many as a QM9 molecule has."""
    edges = tuple((i, i + 1, 1) for i in range(points - 1))
    graph = LabelledGraph((0,) * points, edges, ((1, 0, 2, 3, 4), (6, 5, 7, 8, 9)))
    types = np.full(points, 6)
    coords = np.random.default_rng(0).normal(size=(1, points, 3))
    about = MoleculeGraph("chain", types, np.zeros((points, ATOM_FEATURES), np.uint8), graph)
    one = np.ones(1)
    return MoleculeDataset(
        [MoleculeRecord(about, Ensemble("chain", types, coords, 0 * one, one))] * size
    )


def chains(size: int, points: int) -> ProteinDataset:
    ca = np.random.default_rng(0).normal(size=(points, 3)).astype(np.float32)
    return ProteinDataset([Backbone(str(i), ca, "G" * points, str(i), str(i)) for i in range(size)])


@functools.cache
def workloads() -> tuple[Workload, ...]:
    """Return the tasks at the presets of params.yaml; backbones at the published size."""
    params, found = load(), []
    sizes = {
        "crystals": {"cpu": (5,), "paper": (5, 20)},
        "conformers": {"cpu": (18,), "paper": (18,)},
    }
    for task, presets in sizes.items():
        for preset, points in presets.items():
            settings = params.settings(task, preset)
            train, make = settings.train, (CSPNet if task == "crystals" else molecule_network)
            found += [
                Workload(
                    f"{task} {preset}, {number} atoms", number, train.batch_size, train.steps,
                    train.checkpoint_every, train.precision,
                    functools.partial(make, settings.model), datasets()[task],
                )
                for number in points
            ]  # fmt: skip
    published = BackboneTransformerConfig()
    found.append(
        Workload(
            "backbones published, 128 residues", 128, 128, 100_000, 1000, "bfloat16",
            functools.partial(BackboneTransformer, published), chains,
        )
    )  # fmt: skip
    return tuple(found)


def molecule_network(model: Any) -> nn.Module:
    return build_network(model, generator=stream(0, "weights"))
