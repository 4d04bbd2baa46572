"""The CUDA route, run on the CPU: same results, and no operation that waits for the device."""

import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from orbitdiff.groups import LabelledGraph, graph_automorphisms
from orbitdiff.groups.kabsch import kabsch
from orbitdiff.kernels import AlignedCoupling, GaussianKernel, GeometricSigma
from orbitdiff.kernels.harmonic_prior import HarmonicPrior
from orbitdiff.orbit import (
    AlignedPermutationOrbit,
    AutomorphismOrbit,
    OrbitContext,
    torus_posterior,
)
from orbitdiff.orbit.rotation import rotation_posterior

WAITING = ("_local_scalar_dense", "nonzero", "_linalg_eigh", "_linalg_svd", "is_nonzero", "equal")


class Recorded(TorchDispatchMode):
    """Names of the operations that ran, with bool indices told apart."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("index", "index_put", "index_put_"):
            kinds = {part.dtype for part in args[1] if part is not None}
            name = "nonzero" if torch.bool in kinds else name
        self.names.add(name)
        return func(*args, **(kwargs or {}))


def problem():
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.randn(4, 2, 5, 3, generator=generator, dtype=torch.float64)
    x_t = x_0[:, 0] + torch.randn(4, 5, 3, generator=generator, dtype=torch.float64)
    lists = torch.stack([torch.arange(5).roll(k) for k in range(5)]).expand(4, -1, -1)
    centre = torch.eye(5, dtype=torch.float64) - 0.2
    more = {"permutations": lists, "permutation_mask": lists[..., 0] < 4, "reflections": True}
    return x_t, x_0, more, centre.expand(4, -1, -1)


def answers(**flags):
    x_t, x_0, more, precision = problem()
    mask = torch.ones(4, 5, dtype=torch.bool)
    prior = torch.zeros(4, 2)
    return (
        *rotation_posterior(x_t, x_0, 1.0, 0.8, mask=mask, log_prior=prior, **more, **flags),
        *rotation_posterior(x_t, x_0, 1.0, precision=precision, **more, **flags),
        kabsch(x_0[:, 0], x_t),
    )


@pytest.fixture
def as_if_on_cuda(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)


def test_route_of_cuda_gives_the_same_results(monkeypatch):
    expected = answers()
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    for found, other in zip(answers(), expected, strict=True):
        assert (found is None) is (other is None)
        if found is not None:
            assert torch.allclose(found, other, atol=1e-12, rtol=1e-12)


def test_nothing_waits_for_the_device(as_if_on_cuda):
    with Recorded() as run:
        answers()
    assert "gather" in run.names
    assert not run.names.intersection(WAITING)


def test_checks_of_values_wait(as_if_on_cuda):
    """The recorder sees what it looks for."""
    with Recorded() as run:
        answers(check_values=True)
    assert run.names.intersection(WAITING)


def automorphism_mean():
    """Conformers, one of them padding, and one group that is sampled."""
    x_t, x_0, _, _ = problem()
    arms = LabelledGraph((0, 1, 1, 1, 1), tuple((0, leaf, 1) for leaf in (1, 2, 3, 4)))
    none = LabelledGraph((0, 1, 2, 3, 4))
    prior = torch.tensor([[0.0, -1.0], [-1.0, -torch.inf], [0.0, 0.0], [0.0, 0.0]])
    around = OrbitContext(
        automorphisms=tuple(graph_automorphisms(graph) for graph in (arms, none, arms, none)),
        conformers=x_0,
        log_prior=prior,
    )
    t = torch.tensor([0.5, 0.6, 0.7, 0.8], dtype=torch.float64)
    return AutomorphismOrbit(GaussianKernel(GeometricSigma(0.05, 10.0)), max_enumerated=6, moves=2)(
        x_t, x_0[:, 0], t, context=around, generator=torch.Generator().manual_seed(0)
    ).value


def test_automorphisms_by_the_route_of_cuda(monkeypatch):
    expected = automorphism_mean()
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    with Recorded() as run:
        found = automorphism_mean()
    assert torch.allclose(found, expected, atol=1e-12)
    assert not run.names.intersection(WAITING)


def other_means():
    """The exact means of cells, and of permutations under the aligned coupling."""
    x_t, x_0, more, _ = problem()
    lists, known = more["permutations"], more["permutation_mask"]
    around = OrbitContext(permutations=lists, permutation_mask=known)
    chain = torch.diag_embed(torch.ones(4), 1) + torch.diag_embed(torch.ones(4), -1) > 0
    kernel = AlignedCoupling(HarmonicPrior.from_bonds(chain))
    data = x_0[:, 0] - x_0[:, 0].mean(1, keepdim=True)
    t = torch.tensor([0.5, 0.6, 0.7, 0.8], dtype=torch.float64)
    noised = kernel.sample(data, t, generator=torch.Generator().manual_seed(0)).x_t
    estimator = AlignedPermutationOrbit(kernel)

    def run():
        cells = torus_posterior(
            x_t, x_0[:, 0], 0.01 * 30**t, permutations=lists, permutation_mask=known
        )
        return *cells, estimator(noised, data, t, context=around).value

    return run


def test_cells_and_aligned_permutations_by_the_route_of_cuda(monkeypatch):
    run = other_means()
    expected = run()
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    with Recorded() as recorded:
        found = run()
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)
    assert not recorded.names.intersection(WAITING)


COMPILED = """
import torch
from orbitdiff.groups.quaternion import davenport, jacobi_eigen
from orbitdiff.orbit.matrix_fisher import fisher_moments

def moments(cross):
    return fisher_moments(jacobi_eigen(davenport(cross)))

cross = torch.randn(6, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
# traced whole, without the minutes of a C++ compiler
compiled = torch.compile(moments, fullgraph=True, backend="aot_eager")
for found, expected in zip(compiled(cross), moments(cross), strict=True):
    assert torch.allclose(found, expected, atol=1e-13)
"""


def test_route_of_cuda_compiles_to_one_graph():
    """In a process of its own: the tests' type checker can not be traced."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", COMPILED], check=True, timeout=200)
