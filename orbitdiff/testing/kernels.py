"""What every noise kernel must satisfy."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from orbitdiff.groups.base import Group
from orbitdiff.kernels.base import NoiseKernel, Parametrization
from orbitdiff.typing import Tensor

__all__ = ["KernelContract"]


class KernelContract(ABC):
    """Density, score, invariance and conversions; inherit and give the four methods."""

    times = (0.05, 0.4, 0.8, 1.0)
    conversions: Sequence[Parametrization] = (Parametrization.SCORE,)

    @abstractmethod
    def kernel(self) -> NoiseKernel:
        """Return the kernel under test."""

    @abstractmethod
    def groups(self) -> Sequence[Group]:
        """Return instances of the groups in `invariant_under`, at least one of each."""

    @abstractmethod
    def points(self, generator: torch.Generator) -> Tensor:
        """Return data (B, N, D) in float64."""

    @abstractmethod
    def support(self, t: float) -> tuple[float, float]:
        """Return an interval that holds p(x_t | x_0 = 0.3) of one coordinate to 1e-9."""

    def noised(self, t: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Draw x_t, x_0 and t (B,)."""
        generator = torch.Generator().manual_seed(seed)
        x_0 = self.points(generator)
        times = torch.full((len(x_0),), t, dtype=torch.float64)
        return self.kernel().sample(x_0, times, generator=generator).x_t, x_0, times

    def density(self, t: float, cells: int) -> tuple[Tensor, Tensor]:
        """Midpoints (cells,) of the support and the probability of each cell at x_0 = 0.3."""
        low, high = self.support(t)
        width = (high - low) / cells
        x = low + width * (torch.arange(cells, dtype=torch.float64) + 0.5)
        x_0 = torch.full((cells, 1, 1), 0.3, dtype=torch.float64)
        times = torch.full((cells,), t, dtype=torch.float64)
        return x, self.kernel().log_prob(x[:, None, None], x_0, times).exp() * width

    def test_density_integrates_to_one(self) -> None:
        """The density of one coordinate has mass one at each time."""
        for t in self.times:
            assert abs(float(self.density(t, 8192)[1].sum()) - 1) < 1e-6

    def test_samples_follow_the_density(self) -> None:
        """Kolmogorov distance of 20,000 draws of one coordinate to the integrated density."""
        draws = 20_000
        for t in self.times:
            x, mass = self.density(t, 8192)
            x_0 = torch.full((draws, 1, 1), 0.3, dtype=torch.float64)
            times = torch.full((draws,), t, dtype=torch.float64)
            generator = torch.Generator().manual_seed(1)
            drawn = self.kernel().sample(x_0, times, generator=generator).x_t.flatten()
            below = torch.searchsorted(drawn.sort().values, x) / draws
            assert (below - (mass.cumsum(0) - mass / 2)).abs().max() < 2.0 / draws**0.5

    def test_score_is_the_gradient_of_the_log_density(self) -> None:
        """Autograd of `log_prob` equals `target` as a score."""
        for t in self.times:
            x_t, x_0, times = self.noised(t)
            x_t = x_t.requires_grad_()
            (slope,) = torch.autograd.grad(self.kernel().log_prob(x_t, x_0, times).sum(), x_t)
            score = self.kernel().target(x_t.detach(), x_0, times, Parametrization.SCORE)
            assert torch.allclose(slope, score, rtol=1e-6, atol=1e-6 * float(score.abs().max()))

    def test_invariance(self) -> None:
        """p(g x_t | g x_0) = p(x_t | x_0) for each declared group."""
        kernel, groups = self.kernel(), self.groups()
        for declared in kernel.invariant_under:
            assert any(isinstance(group, declared) for group in groups)
        assert all(isinstance(group, kernel.invariant_under) for group in groups)
        for group in groups:
            x_t, x_0, t = self.noised(0.6)
            g = group.sample(len(x_0), generator=torch.Generator().manual_seed(2))
            moved = kernel.log_prob(group.act(g, x_t), group.act(g, x_0), t)
            assert torch.allclose(moved, kernel.log_prob(x_t, x_0, t), rtol=1e-8, atol=1e-8)

    def test_blocks_sum_to_the_joint_density(self) -> None:
        """`log_prob_per_axis` sums to `log_prob`, with a mask too."""
        kernel = self.kernel()
        x_t, x_0, t = self.noised(0.6)
        mask = torch.ones(x_0.shape[:2], dtype=torch.bool)
        mask[:, -1] = False
        for real in (None, mask):
            blocks = kernel.log_prob_per_axis(x_t, x_0, t, mask=real).sum(-1)
            assert torch.allclose(blocks, kernel.log_prob(x_t, x_0, t, mask=real))

    def test_padding_is_silent(self) -> None:
        """Padding stays zero in samples and adds nothing to the density."""
        kernel = self.kernel()
        x_t, x_0, t = self.noised(0.6)
        mask = torch.ones(x_0.shape[:2], dtype=torch.bool)
        mask[:, -1] = False
        clean = x_0 * mask[..., None]
        generator = torch.Generator().manual_seed(3)
        drawn = kernel.sample(clean, t, mask=mask, generator=generator)
        assert bool((drawn.x_t[:, -1] == 0).all())
        short = kernel.log_prob(x_t[:, :-1], x_0[:, :-1], t)
        assert torch.allclose(kernel.log_prob(x_t, x_0, t, mask=mask), short)

    def test_many_clean_points_per_sample(self) -> None:
        """K images of x_0 against one x_t give K densities and targets."""
        kernel = self.kernel()
        x_t, x_0, t = self.noised(0.6)
        images = torch.stack([x_0, x_0.flip(0)], 1)
        joint = kernel.log_prob(x_t[:, None], images, t[:, None])
        assert torch.allclose(joint[:, 1], kernel.log_prob(x_t, x_0.flip(0), t))
        kind = Parametrization.SCORE
        targets = kernel.target(x_t[:, None], images, t[:, None], kind)
        assert torch.allclose(targets[:, 0], kernel.target(x_t, x_0, t, kind))

    def test_conversions_are_inverse(self) -> None:
        """Converting there and back changes nothing."""
        kernel = self.kernel()
        x_t, x_0, t = self.noised(0.6)
        for src in self.conversions:
            value = kernel.target(x_t, x_0, t, src)
            for dst in self.conversions:
                there = kernel.convert(value, src, dst, x_t, t)
                assert torch.allclose(there, kernel.target(x_t, x_0, t, dst), atol=1e-8)
                assert torch.allclose(kernel.convert(there, dst, src, x_t, t), value, atol=1e-8)
