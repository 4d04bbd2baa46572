"""Clouds of a batch, their mean over a subgroup, and chains over the cosets of a subgroup."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, final

import torch

from orbitdiff.groups.automorphism import Blocks
from orbitdiff.groups.permutation import padded_lists
from orbitdiff.orbit.coset_mean import BlockTables, CosetMean, coset_mean, on_device
from orbitdiff.typing import Float, Tensor

__all__ = ["COMPONENTS", "Clouds", "CosetChain", "passes"]

COMPONENTS = 2**14
"""Components (element, conformer) of one pass over some molecules: about 16 MB."""


def passes(sizes: Sequence[int]) -> Iterator[range]:
    """Runs of molecules with at most COMPONENTS components together."""
    start, total = 0, 0
    for row, size in enumerate(sizes):
        if total + size > COMPONENTS and row > start:
            yield range(start, row)
            start, total = row, 0
        total += size
    if start < len(sizes):
        yield range(start, len(sizes))


class Clouds(NamedTuple):
    """The data points (conformers) of all samples, one after the other.

    Attributes
    ----------
    whitened : (B, N, 3), alpha Sigma^+ x_t of each sample
    points : (R, N, 3)
    log_factor : (R,), of the weight of each data point
    owner : R numbers, the sample of each data point, ascending; kept on the host
    """

    whitened: Float[Tensor, "B N 3"]
    points: Float[Tensor, "R N 3"]
    log_factor: Float[Tensor, " R"]
    owner: tuple[int, ...]

    def rows(self, some: Sequence[int]) -> "Clouds":
        """Return some samples, in ascending order."""
        place = {sample: row for row, sample in enumerate(some)}
        kept = [row for row, sample in enumerate(self.owner) if sample in place]
        index = on_device(torch.tensor(kept), self.points.device)
        return Clouds(
            self.whitened[on_device(torch.tensor(some), self.points.device)],
            self.points[index],
            self.log_factor[index],
            tuple(place[self.owner[row]] for row in kept),
        )


@final
class CosetChain:
    """One pass over some molecules: their mean over a subgroup, and the chain over its cosets.

    Parameters
    ----------
    clouds : Clouds
    blocks : sequence of Blocks
        The subgroup of each sample.
    """

    def __init__(self, clouds: Clouds, blocks: Sequence[Blocks]) -> None:
        self.clouds = clouds
        self.blocks = blocks
        device = clouds.points.device
        each = [blocks[row] for row in clouds.owner]
        self.tables = BlockTables.of(each, clouds.points.shape[1], device)
        self.sample = on_device(torch.tensor(clouds.owner), device)
        orders = torch.tensor([block.order for block in blocks], dtype=torch.float64)
        self.log_order = on_device(orders.log(), device)

    def mean(self, points: Tensor) -> CosetMean:
        """Mean over the coset whose clouds are given; weights relative to a uniform prior."""
        whole = self.clouds
        found = coset_mean(
            whole.whitened[self.sample],
            points,
            whole.log_factor,
            self.sample,
            len(self.blocks),
            self.tables,
        )
        return found._replace(log_sum=found.log_sum - self.log_order)

    def run(self, moves: int, generator: torch.Generator | None) -> CosetMean:
        """Mean over the subgroup, or along the chain where there is more than one coset."""
        found = self.mean(self.clouds.points)
        large = [row for row, block in enumerate(self.blocks) if block.partial]
        if not large or moves == 0:
            return found
        chain = self
        if len(large) < len(self.blocks):
            chain = CosetChain(self.clouds.rows(large), [self.blocks[row] for row in large])
        rows = on_device(torch.tensor(large), found.mean.device)
        start = CosetMean(*(part[rows] for part in found))
        mean = found.mean.index_copy(0, rows, chain.walk(start, moves, generator))
        return found._replace(mean=mean)

    def walk(self, start: CosetMean, moves: int, generator: torch.Generator | None) -> Tensor:
        """Mean along a chain over cosets, (B, N, 3)."""
        points, sample = self.clouds.points, self.sample
        device, width = points.device, points.shape[1]
        generators = on_device(padded_lists([b.rest for b in self.blocks], width)[0], device)
        counts = on_device(torch.tensor([b.rest.shape[0] for b in self.blocks]), device)
        where = generator.device if generator is not None else device
        shape = (moves, len(self.blocks), 2 + self.tables.sizes.shape[1])
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64, device=where)
        value, log_p = start.mean, start.log_sum
        pi = torch.arange(width, device=device).expand(len(points), -1)
        total = torch.zeros_like(value)
        for drawn in on_device(uniform, device):
            choice = (drawn[:, 0] * counts).long()
            step = self.tables.draw(drawn[sample, 2:]).gather(1, generators[sample, choice[sample]])
            proposed = pi.gather(1, step)
            found = self.mean(points.gather(1, proposed[..., None].expand_as(points)))
            accepted = torch.exp((found.log_sum - log_p).clamp(max=0.0))
            share = accepted[:, None, None]
            total = total + (1 - share) * value + share * found.mean
            moved = drawn[:, 1] < accepted
            pi = torch.where(moved[sample][:, None], proposed, pi)
            value = torch.where(moved[:, None, None], found.mean, value)
            log_p = torch.where(moved, found.log_sum, log_p)
        return total / moves
