"""A kernel machine on standardized flow maps, the networks' companion: few maps suit it better than they suit a network.

The kernel is the Gaussian of the distance between two maps, each standardized (`layers.standardized`) and averaged to 14 x 14
cells. A map's logits are sums of the kernel to some maps, its centres: kernel logistic regression (Zhu and Hastie, Journal of
Computational and Graphical Statistics 2005). Fitting is `training.kernel`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.models.layers import standardized

POOL = 2
"""Cells of a map, each way, that are averaged to one."""


def compared(maps: Tensor) -> Tensor:
    """Maps [B, 3, 28, 28] in 0..1 -> what the kernel compares, [B, 1176]."""
    return functional.avg_pool2d(standardized(maps), POOL).flatten(1)


def gaussian(left: Tensor, right: Tensor, rate: Tensor | float) -> Tensor:
    """exp(-rate |a - b|^2) for all pairs of rows: [M, D], [N, D] -> [M, N]."""
    apart = left.square().sum(1)[:, None] + right.square().sum(1) - 2 * left @ right.T
    return torch.exp(-rate * apart.clamp_min(0))


class KernelMachine(nn.Module):
    """Flow maps [B, 3, 28, 28] in 0..1 -> logits [B, num_classes].

    centres [M, D], weights [M, K], bias [K] and rate are what was fitted; all buffers, since no gradient ever changes them.
    """

    centres: Tensor
    weights: Tensor
    bias: Tensor
    rate: Tensor

    def __init__(self, num_classes: int, centres: int, side: int = 28) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(centres, 6 * (side // POOL) ** 2))
        self.register_buffer("weights", torch.zeros(centres, num_classes))
        self.register_buffer("bias", torch.zeros(num_classes))
        self.register_buffer("rate", torch.tensor(1.0))

    def forward(self, maps: Tensor) -> Tensor:
        """[B, 3, 28, 28] -> [B, num_classes]."""
        return gaussian(compared(maps), self.centres, self.rate) @ self.weights + self.bias
