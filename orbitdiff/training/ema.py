"""Exponential moving average of weights, with a warm-up of the decay."""

from collections.abc import Callable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from orbitdiff.typing import Tensor

__all__ = ["moving_average"]

Tensors = tuple[Tensor, ...] | list[Tensor]


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of the network whose weights follow a <- d a + (1 - d) w.

    The decay after n updates is d = min(decay, (1 + n) / (10 + n)).
    """
    return AveragedModel(network, multi_avg_fn=_warmed_up(decay))


def _warmed_up(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    def average(averaged: Tensors, current: Tensors, num: Tensor | int) -> None:
        count = float(num)
        weight = 1.0 - min(decay, (1.0 + count) / (10.0 + count))
        torch._foreach_lerp_(averaged, current, weight)

    return average
