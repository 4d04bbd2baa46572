"""What every group must satisfy."""

from abc import ABC, abstractmethod

import torch

from orbitdiff.groups.base import Group, LinearIsometry
from orbitdiff.groups.finite import FiniteGroup
from orbitdiff.typing import Tensor

__all__ = ["GroupContract"]


class GroupContract(ABC):
    """Axioms, isometry and the Haar measure; inherit and give `group` and `points`."""

    tolerance = 1e-9

    @abstractmethod
    def group(self) -> Group:
        """Return the group under test."""

    @abstractmethod
    def points(self, generator: torch.Generator) -> Tensor:
        """Return points (B, N, D) in float64 of the space acted on."""

    def drawn(self, num: int, seed: int = 0) -> Tensor:
        """Draw `num` elements."""
        return self.group().sample(num, generator=torch.Generator().manual_seed(seed))

    def same(self, x: Tensor, y: Tensor) -> bool:
        """Tell whether two point sets are the same in the space acted on."""
        return bool(self.group().difference(x, y).abs().max() < self.tolerance)

    def space(self) -> Tensor:
        """Points from a fixed seed."""
        return self.points(torch.Generator().manual_seed(7))

    def test_identity_does_nothing(self) -> None:
        """E x = x."""
        x = self.space()
        assert self.same(self.group().act(self.group().identity(), x), x)

    def test_element_shapes(self) -> None:
        """Elements have the declared shape."""
        group = self.group()
        assert self.drawn(5).shape == (5, *group.element_shape)
        assert group.identity().shape == group.element_shape

    def test_compose(self) -> None:
        """(g h) x = g (h x)."""
        group, x = self.group(), self.space()
        g, h = self.drawn(len(x), 1), self.drawn(len(x), 2)
        assert self.same(group.act(group.compose(g, h), x), group.act(g, group.act(h, x)))

    def test_inverse(self) -> None:
        """g^-1 (g x) = x."""
        group, x = self.group(), self.space()
        g = self.drawn(len(x))
        assert self.same(group.act(group.inverse(g), group.act(g, x)), x)

    def test_isometry(self) -> None:
        """|g x - g y| = |x - y| for each sample."""
        group, x = self.group(), self.space()
        y = self.points(torch.Generator().manual_seed(8))
        g = self.drawn(len(x))
        before = group.difference(x, y).square().sum((-2, -1))
        after = group.difference(group.act(g, x), group.act(g, y)).square().sum((-2, -1))
        assert torch.allclose(before, after, rtol=1e-7, atol=self.tolerance)

    def test_declared_linearity(self) -> None:
        """G (2 x - y) = 2 g x - g y where the group declares to be a LinearIsometry."""
        group, x = self.group(), self.space()
        if not isinstance(group, LinearIsometry):
            return
        y = self.points(torch.Generator().manual_seed(8))
        g = self.drawn(len(x))
        assert self.same(group.act(g, 2 * x - y), 2 * group.act(g, x) - group.act(g, y))

    def test_leading_axes_broadcast(self) -> None:
        """K elements act on each of B samples."""
        group, x = self.group(), self.space()
        g = self.drawn(3)
        images = group.act(g, x[:, None])
        assert images.shape == (len(x), 3, *x.shape[1:])
        assert self.same(images[:, 1], group.act(g[1], x))

    def test_draws_follow_the_generator(self) -> None:
        """One seed, one draw; two seeds, two."""
        assert torch.equal(self.drawn(8, 3), self.drawn(8, 3))
        assert not torch.equal(self.drawn(64, 3), self.drawn(64, 4))

    def test_haar_measure_is_invariant(self) -> None:
        """The mean of a function over g x is the same as over g h x (z-test)."""
        group, x = self.group(), self.space()[:1]
        far = self.points(torch.Generator().manual_seed(9))[:1]
        moved = group.act(self.drawn(1, 5), x)

        def law(start: Tensor, seed: int) -> Tensor:
            images = group.act(self.drawn(4000, seed), start)
            return torch.tanh(group.difference(images, far)).flatten(1)

        first, second = law(x, 11), law(moved, 12)
        error = torch.sqrt((first.var(0) + second.var(0)) / 4000) + 1e-12
        assert ((first.mean(0) - second.mean(0)) / error).abs().max() < 4.5

    def test_finite_groups_list_a_group(self) -> None:
        """Elements are `order` distinct ones, closed under the product, the identity first."""
        group = self.group()
        if not isinstance(group, FiniteGroup):
            return
        elements, x = group.elements(), self.space()[:1]
        assert len(elements) == group.order
        assert self.same(group.act(elements[0], x), x)
        images = group.act(elements, x)
        for one in elements:
            for other in elements:
                found = group.act(group.compose(one, other), x)
                gaps = group.difference(images, found).abs().amax((-2, -1))
                assert int((gaps < self.tolerance).sum()) == 1
