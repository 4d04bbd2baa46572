import math

import pytest
import torch

from orbitdiff.errors import BadInput, IncompatibleKernel
from orbitdiff.groups import Sign, TorusTranslation
from orbitdiff.kernels import GaussianKernel, GeometricSigma, LinearSigma, WrappedNormalKernel
from orbitdiff.orbit import AroundTruth, AroundXt, Haar
from orbitdiff.orbit.proposals import wide_wrapped_normal

KERNEL = WrappedNormalKernel(GeometricSigma())
PROPOSALS = [Haar(TorusTranslation()), AroundTruth(KERNEL, 2.0), AroundXt(KERNEL, 2.0)]


def problem(t):
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.rand(2, 4, 3, generator=generator, dtype=torch.float64)
    times = torch.full((2,), t, dtype=torch.float64)
    x_t = KERNEL.sample(x_0, times, generator=generator).x_t
    return x_t, x_0, times, torch.ones(2, 4, dtype=torch.bool)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 0.449, 0.451, 0.7, 1.0, 2.0])
def test_wide_wrapped_normal_against_many_images(sigma):
    z = torch.linspace(-0.5, 0.5, 41, dtype=torch.float64)
    images = z[:, None] + torch.arange(-40, 41)
    norm = math.log(sigma * math.sqrt(2 * math.pi))
    expected = torch.logsumexp(-0.5 * (images / sigma) ** 2, 1) - norm
    found = wide_wrapped_normal(z, torch.full_like(z, sigma))
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("t", [0.85, 1.0])
@pytest.mark.parametrize("proposal", PROPOSALS, ids=lambda p: type(p).__name__)
def test_draws_follow_the_stated_density(proposal, t):
    """Drawn shifts weighed by 1 / q fill each of ten bins of an axis to its width."""
    x_t, x_0, times, mask = problem(t)
    num = 40_000
    drawn = proposal.draw(num, x_t, x_0, times, mask, generator=torch.Generator().manual_seed(1))
    shifts, log_q = torch.remainder(drawn.elements, 1.0), drawn.log_q.expand(-1, -1, 3)
    for low in torch.arange(10) / 10:
        inside = (shifts >= low) & (shifts < low + 0.1)
        width = (inside / log_q.exp()).sum(1) / num
        error = (inside / log_q.exp()).std(1) / num**0.5
        assert ((width - 0.1) / error).abs().max() < 5.0


@pytest.mark.parametrize("proposal", PROPOSALS, ids=lambda p: type(p).__name__)
def test_the_true_element_has_its_own_density(proposal):
    """`log_density_of_identity` is the limit of the density of draws next to the identity."""
    x_t, x_0, times, mask = problem(0.7)
    own = proposal.log_density_of_identity(x_t, x_0, times, mask)
    drawn = proposal.draw(30_000, x_t, x_0, times, mask, generator=torch.Generator().manual_seed(1))
    gap = (drawn.elements - drawn.elements.round()).abs()
    nearest = gap.argmin(1, keepdim=True)
    next_to_it = drawn.log_q.expand_as(gap).gather(1, nearest)[:, 0]
    assert torch.allclose(own.expand_as(next_to_it), next_to_it, atol=0.05)


def test_the_proposal_around_x_t_does_not_know_the_true_element():
    """Other representatives of the orbit give the same images at the same random numbers."""
    x_t, x_0, times, mask = problem(0.7)
    proposal = AroundXt(KERNEL, 2.0)
    shift = torch.tensor([0.3, 0.7, 0.1], dtype=torch.float64)
    images = []
    for clean in (x_0, (x_0 + shift) % 1.0):
        drawn = proposal.draw(
            50, x_t, clean, times, mask, generator=torch.Generator().manual_seed(1)
        )
        images.append((clean[:, None] + drawn.elements[:, :, None], drawn.log_q))
    gap = images[0][0] - images[1][0]
    assert (gap - gap.round()).abs().max() < 1e-12
    assert torch.allclose(images[0][1], images[1][1])


def test_wrong_proposals_are_refused():
    with pytest.raises(IncompatibleKernel, match="wrapped normal"):
        AroundXt(GaussianKernel(LinearSigma()), 2.0)
    with pytest.raises(BadInput, match="spread"):
        AroundTruth(KERNEL, 0.0)
    with pytest.raises(BadInput, match="uniform_share"):
        AroundXt(KERNEL, 2.0, uniform_share=0.0)
    assert Haar(Sign()).independent
