"""Theorem 2: the exact target is equivariant, and so is what minimises the loss on it."""

import pytest
import torch

from orbitdiff.groups import FiniteGroup, LinearIsometry, Sign
from orbitdiff.groups.rotation import O3, SO3
from orbitdiff.kernels import GaussianKernel, LinearSigma, Parametrization
from orbitdiff.orbit import FiniteOrbit, PlainTarget, RotationOrbit, RotationSamples

KERNEL = GaussianKernel(LinearSigma())
DATA = Parametrization.DATA
T = torch.tensor([0.6], dtype=torch.float64)


class Quarters(FiniteGroup, LinearIsometry):
    """The four quarter turns of the plane."""

    order = 4
    element_shape = ()

    def elements(self, *, dtype=torch.float64, device="cpu"):
        return torch.arange(4, dtype=dtype, device=device)

    def act(self, g, x):
        turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=x.dtype)
        powers = torch.stack([torch.matrix_power(turn, k) for k in range(4)])
        return x @ powers[g.long()]

    def compose(self, g, h):
        return (g + h) % 4

    def inverse(self, g):
        return -g % 4

    def difference(self, x, y):
        return x - y


@pytest.mark.parametrize(("group", "reflections"), [(SO3(), False), (O3(), True)])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_the_exact_target_is_equivariant_to_machine_precision(group, reflections, t):
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.randn(32, 7, 3, generator=generator, dtype=torch.float64)
    x_0 = x_0 - x_0.mean(1, keepdim=True)
    time = torch.full((32,), t, dtype=torch.float64)
    x_t = KERNEL.sample(x_0, time, generator=generator).x_t
    orbit = RotationOrbit(KERNEL, reflections=reflections)
    h = group.sample(32, generator=generator)
    moved = orbit(group.act(h, x_t), x_0, time).value
    gap = moved - group.act(h, orbit(x_t, x_0, time).value)
    assert float(gap.abs().max()) < 1e-10


def grid(group, dim):
    """A grid of x_t that the group maps to itself, and polynomials up to degree three on it."""
    axis = torch.linspace(-4, 4, 41, dtype=torch.float64)
    points = torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)
    x, powers = points.T, [torch.ones(len(points), dtype=torch.float64)]
    for degree in range(1, 4):
        for k in range(degree + 1 if dim == 2 else 1):
            powers.append(x[0] ** (degree - k) * (x[1] ** k if dim == 2 else 1.0))
    return points, torch.stack(powers, 1)


def minimiser(points, features, weight, target):
    """Least squares on the whole grid in closed form: the population minimiser on it."""
    root = weight.sqrt()[:, None]
    solved = torch.linalg.lstsq(root * features, root * target).solution
    return features @ solved


@pytest.mark.parametrize(("group", "dim"), [(Sign(), 1), (Quarters(), 2)])
def test_the_minimiser_of_the_orbit_loss_is_equivariant(group, dim):
    """Closed form: density of x_t averaged over the orbit, targets averaged or not."""
    x_0 = torch.tensor([[1.2, 0.7][:dim]], dtype=torch.float64)[None]
    points, features = grid(group, dim)
    x_t = points[:, None]
    t, here = T.expand(len(points)), x_0.expand(len(points), -1, -1)
    images = group.act(group.elements(), x_0)
    density = torch.stack(
        [KERNEL.log_prob(x_t, g[None].expand(len(points), -1, -1), t).exp() for g in images]
    )
    exact = FiniteOrbit(KERNEL, group, parametrization=DATA)(x_t, here, t).value[:, 0]
    averaged = minimiser(points, features, density.mean(0), exact)
    # the ideal symmetrised loss: every image with its own density and plain target
    stacked = density.reshape(-1)
    ideal = minimiser(
        points.repeat(len(images), 1),
        features.repeat(len(images), 1),
        stacked,
        images[:, 0].repeat_interleave(len(points), 0),
    )[: len(points)]
    torch.testing.assert_close(averaged, ideal, rtol=0, atol=1e-9)
    plain_target = PlainTarget(KERNEL, parametrization=DATA)(x_t, here, t).value[:, 0]
    plain = minimiser(points, features, density[0], plain_target)
    for g in group.elements()[1:]:
        moved = group.act(g, x_t)[:, 0]
        where = (points[None] - moved[:, None]).abs().sum(-1).argmin(1)
        gap = averaged[where] - group.act(g, averaged[:, None])[:, 0]
        assert float(gap.abs().max()) < 1e-9
        plain_gap = plain[where] - group.act(g, plain[:, None])[:, 0]
        assert float(plain_gap.abs().max()) > 0.1


def test_sampled_targets_are_equivariant_in_distribution_only():
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.randn(1, 5, 3, generator=generator, dtype=torch.float64)
    x_0 = x_0 - x_0.mean(1, keepdim=True)
    x_t = KERNEL.sample(x_0, T, generator=generator).x_t
    h = SO3().sample(1, generator=generator)
    sampled = RotationSamples(KERNEL, num_samples=4, include_true=False)

    def run(noised, seed, draws=500):
        generator = torch.Generator().manual_seed(seed)
        # one call per draw: the samples of a batch share their rotations
        calls = (sampled(noised, x_0, T, generator=generator).value[0] for _ in range(draws))
        return torch.stack(list(calls))

    moved, still = run(SO3().act(h, x_t), 1), SO3().act(h, run(x_t, 1))
    assert float((moved - still).abs().max()) > 0.1, "not draw by draw"
    other = SO3().act(h, run(x_t, 2))
    error = torch.sqrt((moved.var(0) + other.var(0)) / len(moved))
    assert float(((moved.mean(0) - other.mean(0)) / error).abs().max()) < 4.5
