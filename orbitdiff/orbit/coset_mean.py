"""Mean over rotations x a subgroup of permutations that is a direct product of blocks.

The blocks of a molecule (methyls, the ends of an isopropyl, ...) move disjoint sets of atoms, so
that F = sum_i y_i x_{pi(i)}^T is a sum over blocks: one 3x3 matrix per element of a block, few of
which make all the F of the subgroup, and the mean needs the average E[R] per element of a block
alone. No list of permutations and no permuted cloud is made; the molecules of a batch lie one
after the other instead of padded.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch

from orbitdiff.groups.automorphism import Blocks
from orbitdiff.orbit.rotation_pruning import ragged_mixture_moments
from orbitdiff.typing import Bool, Float, Int, Tensor

__all__ = ["BlockTables", "CosetMean", "coset_mean", "on_device"]


def on_device(part: Tensor, device: torch.device) -> Tensor:
    """Copy to a device without waiting for it."""
    return part.to(device, non_blocking=True)


class CosetMean(NamedTuple):
    """Mean image, log of the sum of weights, effective number and largest weight of elements.

    Attributes
    ----------
    mean : (B, N, 3)
    log_sum : (B,)
    ess : (B,)
    max_weight : (B,)
    """

    mean: Float[Tensor, "B N 3"]
    log_sum: Float[Tensor, " B"]
    ess: Float[Tensor, " B"]
    max_weight: Float[Tensor, " B"]


class BlockTables(NamedTuple):
    """Blocks of R clouds of at most N points, and the elements of their products.

    Attributes
    ----------
    entry, point, image : (L,)
        Entry of a block (numbered through all clouds), and the points, numbered through all
        clouds, that it takes `image` to.
    fixed : (R, N) bool
        Points that no block moves.
    cloud : (M,)
        Of each element of a product.
    digits : (M, F)
        Entry of each block; past the last one, the entry after all others, which moves nothing.
    sizes, offsets : (R, F)
        Elements of each block, and its first entry.
    entries : int
        All entries, that one included.
    """

    entry: Int[Tensor, " L"]
    point: Int[Tensor, " L"]
    image: Int[Tensor, " L"]
    fixed: Bool[Tensor, "R N"]
    cloud: Int[Tensor, " M"]
    digits: Int[Tensor, "M F"]
    sizes: Int[Tensor, "R F"]
    offsets: Int[Tensor, "R F"]
    entries: int

    @classmethod
    def of(cls, blocks: Sequence[Blocks], width: int, device: torch.device) -> "BlockTables":
        """Join the blocks of R clouds of at most `width` points."""
        most = max((len(one.sizes) for one in blocks), default=0)
        rows = [[*b.sizes, *[1] * (most - len(b.sizes))] for b in blocks]
        sizes = torch.tensor(rows, dtype=torch.int64).view(len(blocks), most)
        own = [sum(b.sizes) for b in blocks]
        first = torch.tensor([0, *accumulate(own)])[:-1]
        entries = sum(own) + 1
        before = sizes.cumsum(1) - sizes + first[:, None]
        real = torch.arange(most) < torch.tensor([len(b.sizes) for b in blocks])[:, None]
        offsets = torch.where(real, before, entries - 1)
        orders = sizes.prod(1)
        cloud = torch.arange(len(blocks)).repeat_interleave(orders)
        rank = torch.arange(len(cloud)) - (orders.cumsum(0) - orders)[cloud]
        strides = sizes.cumprod(1) // sizes
        digits = rank[:, None] // strides[cloud] % sizes[cloud] + offsets[cloud]
        counts = torch.tensor([b.entry.shape[0] for b in blocks])
        owner = torch.arange(len(blocks)).repeat_interleave(counts)
        entry = torch.cat([b.entry for b in blocks]) + first[owner]
        point = torch.cat([b.point for b in blocks]) + width * owner
        image = torch.cat([b.image for b in blocks]) + width * owner
        fixed = torch.ones(len(blocks) * width, dtype=torch.bool)
        fixed[point] = False

        return cls(
            on_device(entry, device),
            on_device(point, device),
            on_device(image, device),
            on_device(fixed.view(-1, width), device),
            on_device(cloud, device),
            on_device(digits, device),
            on_device(sizes, device),
            on_device(offsets, device),
            entries,
        )

    def draw(self, uniform: Float[Tensor, "R F"]) -> Int[Tensor, "R N"]:
        """Element of each product, uniform if the numbers in [0, 1) are."""
        chosen = self.offsets + (uniform * self.sizes).long()
        taken = torch.zeros(self.entries, dtype=torch.int64, device=chosen.device)
        taken = taken.index_fill_(0, chosen.flatten(), 1)
        count = self.fixed.numel()
        here = torch.arange(count, device=chosen.device)
        drawn = here.index_add(0, self.point, taken[self.entry] * (self.image - self.point))
        width = self.fixed.shape[1]
        return drawn.view(-1, width) % width


def coset_mean(
    whitened: Float[Tensor, "R N 3"],
    points: Float[Tensor, "R N 3"],
    log_factor: Float[Tensor, " R"],
    sample: Int[Tensor, " R"],
    num_samples: int,
    tables: BlockTables,
) -> CosetMean:
    """Mean of h x over the products h of blocks and rotations, and over clouds of one sample.

    Weights are c(F_h) exp(log_factor), F_h = y^T (h x).

    Parameters
    ----------
    whitened : (R, N, 3)
        y = alpha Sigma^+ x_t of the sample of each cloud.
    points : (R, N, 3)
        x, zero in padding.
    log_factor : (R,)
        Log of the remaining factor, the same for all elements of a cloud.
    sample : (R,)
        Sample that a cloud (a conformer) belongs to, in [0, num_samples).
    tables : BlockTables

    Returns
    -------
    CosetMean
    """
    y, x = whitened.flatten(0, 1), points.flatten(0, 1)
    resting = points * tables.fixed[..., None]
    pairs = y[tables.point][:, :, None] * x[tables.image][:, None]
    by_entry = x.new_zeros(tables.entries, 9).index_add_(0, tables.entry, pairs.flatten(1))
    cross = (whitened.mT @ resting).flatten(1)[tables.cloud]
    for digit in tables.digits.unbind(1):
        cross = cross + by_entry[digit]
    owner, factor = sample[tables.cloud], log_factor[tables.cloud]
    log_constant, rotation, _ = ragged_mixture_moments(cross.view(-1, 3, 3), factor, owner)
    log_weight = log_constant + factor
    top = log_weight.new_full((num_samples,), -torch.inf)
    top = top.scatter_reduce(0, owner, log_weight, "amax")
    weight = torch.exp(log_weight - top[owner])
    total = weight.new_zeros(num_samples).index_add_(0, owner, weight)
    weight = weight / total[owner]
    turned = weight[:, None] * rotation.flatten(1)
    whole = turned.new_zeros(len(points), 9).index_add_(0, tables.cloud, turned)
    part = torch.zeros_like(by_entry)
    for digit in tables.digits.unbind(1):
        part.index_add_(0, digit, turned)
    value = (resting @ whole.view(-1, 3, 3).mT).flatten(0, 1)
    images = part.view(-1, 3, 3)[tables.entry] @ x[tables.image][..., None]
    value = value.index_add_(0, tables.point, images[..., 0]).view_as(points)
    mean = value.new_zeros(num_samples, *value.shape[1:]).index_add_(0, sample, value)
    square = total.new_zeros(num_samples).index_add_(0, owner, weight.square())
    largest = torch.zeros_like(total).scatter_reduce(0, owner, weight, "amax")
    return CosetMean(mean, top + torch.log(total), 1 / square, largest)
