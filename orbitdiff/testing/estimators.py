"""What every orbit estimator must satisfy, and what sampled ones must in addition."""

from abc import ABC, abstractmethod

import torch

from orbitdiff.groups.base import Group
from orbitdiff.kernels.base import NoiseKernel
from orbitdiff.orbit.base import OrbitContext, OrbitEstimator, OrbitTarget
from orbitdiff.orbit.plain import PlainTarget
from orbitdiff.typing import Tensor

__all__ = ["EstimatorContract", "SampledEstimatorContract"]


class EstimatorContract(ABC):
    """Inherit and give the estimator, its kernel, the group, data and the exact mean."""

    times = (0.3, 0.6, 0.85)
    draws = 2000
    tolerance = 1e-8

    @abstractmethod
    def kernel(self) -> NoiseKernel:
        """Return the kernel."""

    @abstractmethod
    def group(self) -> Group:
        """Return the group averaged over."""

    @abstractmethod
    def estimator(self) -> OrbitEstimator:
        """Return the estimator under test."""

    @abstractmethod
    def exact(self) -> OrbitEstimator:
        """Return an estimator of the same parametrization that is exact."""

    @abstractmethod
    def points(self, num: int, generator: torch.Generator) -> Tensor:
        """Return data (num, N, D) in float64."""

    @abstractmethod
    def act_on_target(self, g: Tensor, value: Tensor) -> Tensor:
        """Return how a target transforms with g (a score on the torus: not at all)."""

    def context(self, x_0: Tensor) -> OrbitContext | None:
        """Return what the estimator must know of the samples x_0 (B, N, D), by default nothing."""
        return None

    def problem(self, t: float, num: int = 16, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Draw x_t, x_0, t with x_t made from this x_0."""
        generator = torch.Generator().manual_seed(seed)
        x_0 = self.points(num, generator)
        times = torch.full((num,), t, dtype=torch.float64)
        return self.kernel().sample(x_0, times, generator=generator).x_t, x_0, times

    def run(
        self, estimator: OrbitEstimator, x_t: Tensor, x_0: Tensor, t: Tensor, **more: Tensor
    ) -> OrbitTarget:
        """Call with a generator of a fixed seed."""
        generator = torch.Generator().manual_seed(5)
        return estimator(
            x_t,
            x_0,
            t,
            context=self.context(x_0),
            generator=generator,
            **more,  # type: ignore[arg-type]
        )

    def close(self, value: Tensor, other: Tensor) -> bool:
        """Compare to `tolerance`, relative to the largest entry."""
        return bool((value - other).abs().max() <= self.tolerance * (1 + other.abs().max()))

    def test_declared_kernel_is_accepted(self) -> None:
        """`check` passes, and the parametrization is declared."""
        estimator = self.estimator()
        estimator.check(self.kernel())
        assert estimator.parametrization is self.exact().parametrization

    def test_shape_dtype_and_no_gradient(self) -> None:
        """The target has the shape and dtype of x_0 and no gradient flows through it."""
        for dtype in (torch.float32, torch.float64):
            x_t, x_0, t = (part.to(dtype) for part in self.problem(0.6))
            value = self.run(self.estimator(), x_t.requires_grad_(), x_0, t).value
            assert value.shape == x_0.shape
            assert value.dtype == dtype
            assert not value.requires_grad
            assert bool(torch.isfinite(value).all())

    def test_empty_batch(self) -> None:
        """No samples in, no samples out."""
        x_t, x_0, t = (part[:0] for part in self.problem(0.6))
        assert self.run(self.estimator(), x_t, x_0, t).value.shape == x_0.shape

    def test_padding_is_zero_and_changes_nothing(self) -> None:
        """An appended padding atom leaves the target of real atoms alone."""
        x_t, x_0, t = self.problem(0.6)
        alone = self.run(self.estimator(), x_t, x_0, t).value
        mask = torch.ones(len(x_0), x_0.shape[1] + 1, dtype=torch.bool)
        mask[:, -1] = False
        x_t, x_0 = (torch.nn.functional.pad(part, (0, 0, 0, 1)) for part in (x_t, x_0))
        padded = self.run(self.estimator(), x_t, x_0, t, mask=mask).value
        assert self.close(padded[:, :-1], alone)
        assert bool((padded[:, -1] == 0).all())

    def test_commutes_with_the_group(self) -> None:
        """T(g x_t, g x_0) = g T(x_t, x_0) at equal random numbers (commutative groups)."""
        for t in self.times:
            x_t, x_0, times = self.problem(t)
            group = self.group()
            g = group.sample(len(x_0), generator=torch.Generator().manual_seed(3))
            moved = self.run(self.estimator(), group.act(g, x_t), group.act(g, x_0), times).value
            value = self.run(self.estimator(), x_t, x_0, times).value
            assert self.close(moved, self.act_on_target(g, value))

    def test_exact_ones_depend_on_the_orbit_alone(self) -> None:
        """T(x_t, g x_0) = T(x_t, x_0), hence T(g x_t, x_0) = g T(x_t, x_0)."""
        if not self.estimator().exact:
            return
        for t in self.times:
            x_t, x_0, times = self.problem(t)
            group = self.group()
            g = group.sample(len(x_0), generator=torch.Generator().manual_seed(3))
            value = self.run(self.estimator(), x_t, x_0, times).value
            assert self.close(
                self.run(self.estimator(), x_t, group.act(g, x_0), times).value, value
            )
            moved = self.run(self.estimator(), group.act(g, x_t), x_0, times).value
            assert self.close(moved, self.act_on_target(g, value))

    def z_scores(self, t: float) -> Tensor:
        """Return z of E<phi(x_t), T - exact> = 0 for two functions phi, x_0 over its orbit."""
        generator = torch.Generator().manual_seed(2)
        group = self.group()
        x_0 = self.points(1, generator).expand(self.draws, -1, -1)
        x_0 = group.act(group.sample(self.draws, generator=generator), x_0)
        times = torch.full((self.draws,), t, dtype=torch.float64)
        x_t = self.kernel().sample(x_0, times, generator=generator).x_t
        around = self.context(x_0)
        exact = self.exact()(x_t, x_0, times, context=around).value
        found = self.estimator()(x_t, x_0, times, context=around, generator=generator)
        error = found.value - exact
        size = exact.square().mean((1, 2), keepdim=True).sqrt() + 1e-9
        scores = []
        for direction in (exact / size, torch.tanh(exact / exact.square().mean().sqrt())):
            along = (direction * error).mean((1, 2))
            scores.append(along.mean() / (along.std() / self.draws**0.5 + 1e-12 * size.mean()))
        return torch.stack(scores)

    def test_unbiased_where_claimed(self) -> None:
        """|z| < 4 at each time for estimators that claim E[T | x_t] to be the exact mean."""
        if not self.estimator().unbiased:
            return
        for t in self.times:
            assert self.z_scores(t).abs().max() < 4.0


class SampledEstimatorContract(EstimatorContract):
    """For estimators with K samples, the true element among them; give `build`."""

    @abstractmethod
    def build(self, num_samples: int) -> OrbitEstimator:
        """Return the estimator with K samples."""

    def estimator(self) -> OrbitEstimator:
        """Return the estimator with few samples, where a bias would show."""
        return self.build(4)

    def test_one_sample_is_the_plain_target(self) -> None:
        """K = 1 is the true element alone."""
        x_t, x_0, t = self.problem(0.6)
        found = self.run(self.build(1), x_t, x_0, t)
        plain = PlainTarget(self.kernel(), parametrization=self.exact().parametrization)
        assert self.close(found.value, plain(x_t, x_0, t).value)
        assert found.info.ess is not None
        assert torch.allclose(found.info.ess, torch.ones_like(found.info.ess))

    def test_more_samples_converge_to_exact(self) -> None:
        """The error at K = 512 is below a third of that at K = 16, and ESS grows."""
        x_t, x_0, t = self.problem(self.times[-1], num=24)
        exact = self.run(self.exact(), x_t, x_0, t).value
        errors, sizes = [], []
        for num in (16, 512):
            found = self.run(self.build(num), x_t, x_0, t)
            errors.append(float((found.value - exact).square().mean().sqrt()))
            assert found.info.ess is not None
            sizes.append(float(found.info.ess.mean()))
        assert errors[1] < errors[0] / 3
        assert sizes[1] > 3 * sizes[0]

    def test_diagnostics_are_consistent(self) -> None:
        """1 <= ESS <= K and 1/K <= largest weight <= 1."""
        x_t, x_0, t = self.problem(0.6)
        info = self.run(self.build(16), x_t, x_0, t).info
        assert info.ess is not None
        assert info.max_weight is not None
        assert bool((info.ess >= 1 - 1e-9).all())
        assert bool((info.ess <= 16 + 1e-9).all())
        assert bool((info.max_weight >= 1 / 16 - 1e-9).all())
        assert bool((info.max_weight <= 1 + 1e-9).all())
