"""A batch in parts: the gradient of the whole batch, less kept for backward, DDP around it."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from orbitdiff.batch import Batch
from orbitdiff.errors import OutOfMemory
from orbitdiff.nn.cspnet import CSPNet, CSPNetConfig
from orbitdiff.objective import Loss
from orbitdiff.orbit.base import EstimatorSpec
from orbitdiff.tasks.crystals import KernelConfig, build_objective
from orbitdiff.training.memory import memory_named
from orbitdiff.training.micro_batches import MicroBatches

OBJECTIVE = build_objective(KernelConfig(), EstimatorSpec("importance", num_samples=4))


@pytest.fixture
def network() -> CSPNet:
    torch.manual_seed(0)
    return CSPNet(CSPNetConfig(hidden=16, layers=2, frequencies=4, time_dim=8)).double()


@pytest.fixture
def batch(generator: torch.Generator) -> Batch:
    """Seven crystals of one to five atoms."""
    sizes = torch.tensor([3, 1, 5, 2, 5, 4, 3])
    return Batch(
        {
            "lattice": 4 * torch.eye(3).double()
            + torch.rand(7, 3, 3, dtype=torch.float64, generator=generator),
            "frac": torch.rand(7, 5, 3, dtype=torch.float64, generator=generator),
        },
        torch.arange(5) < sizes[:, None],
        {"atom_types": torch.randint(1, 90, (7, 5), generator=generator)},
        torch.arange(7),
    )


def loss_of(network: nn.Module, batch: Batch) -> Loss:
    t = torch.linspace(0.1, 0.9, len(batch), dtype=torch.float64)
    return OBJECTIVE(network, batch, t, generator=torch.Generator().manual_seed(1))


def gradient(network: nn.Module) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    return found


@pytest.mark.parametrize("parts", [2, 3, 7, 20])
def test_the_gradient_is_that_of_the_whole_batch(network: CSPNet, batch: Batch, parts: int) -> None:
    whole = loss_of(network, batch)
    whole.value.backward()
    expected = gradient(network)
    assert sum(float(value.abs().sum()) for value in expected.values()) > 0
    found = loss_of(MicroBatches(network, parts), batch)
    found.value.backward()
    torch.testing.assert_close(found.per_sample, whole.per_sample)
    assert torch.equal(found.info["frac"].ess, whole.info["frac"].ess)
    actual = gradient(network)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, msg=name)


def kept(network: nn.Module, batch: Batch) -> int:
    """Bytes that forward keeps for backward, weights left out."""
    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    sizes: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        loss_of(network, batch)
    return sum(sizes.values())


def test_forward_keeps_hardly_anything_for_backward(network: CSPNet, batch: Batch) -> None:
    assert kept(MicroBatches(network, 2), batch) < 0.1 * kept(network, batch)


def test_backward_has_the_activations_of_one_part_at_a_time(network: CSPNet, batch: Batch) -> None:
    passes: list[int] = []
    network.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[1])))
    loss = loss_of(MicroBatches(network, 3), batch)
    assert passes == [3, 3, 1]
    loss.value.backward()
    assert passes == [3, 3, 1, 1, 3, 3]


@pytest.fixture
def one_process() -> Iterator[None]:
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_gradients_are_averaged_once_under_ddp(network: CSPNet, batch: Batch) -> None:
    loss_of(network, batch).value.backward()
    expected = gradient(network)
    wrapped = nn.parallel.DistributedDataParallel(MicroBatches(network, 3))
    for _ in range(2):
        loss_of(wrapped, batch).value.backward()
        actual = gradient(network)
        for name, value in expected.items():
            torch.testing.assert_close(actual[name], value, msg=name)


@pytest.mark.parametrize(("parts", "said"), [(1, "=2"), (2, "=4"), (4, "=7"), (7, None)])
def test_a_step_without_memory_names_more_parts_while_there_are_any(
    batch: Batch, parts: int, said: str | None
) -> None:
    with (
        pytest.raises(OutOfMemory, match="step 5") as caught,
        memory_named(batch, step=5, num_workers=2, micro_batches=parts),
    ):
        raise MemoryError
    hint = f"--set train.micro_batches{said}, " if said else "Take smaller batches"
    assert hint in str(caught.value)
    assert "--set train.batch_size=7" in str(caught.value)
