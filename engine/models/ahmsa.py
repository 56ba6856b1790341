"""AHMSA-Net: an adaptive hierarchical multi-scale attention network on onset-apex flow maps (arXiv 2501.02539).

From the paper: 7 x 7 patches; three levels of (2, 2, 8) blocks on 4 x 4, 2 x 2 and 1 x 1 patches; between levels a
convolution, a layer norm and adaptive max pooling; in a block channel attention (average and max pooling, each through two
1 x 1 convolutions with ReLU, summed, sigmoid), spatial attention over the patches, and a feed-forward part of two
convolutions, each of the three behind a norm; an MLP at the end.

This project's own choices, where the paper is silent: width 64 at every level, 4 heads, a learnt embedding of each patch's
place, a residual around each of the three parts, reduction 4 in the channel attention, a feed-forward part twice as wide with
GELU, a 3 x 3 convolution between levels, dropout before the residual sums, an MLP head as wide as the last level; both poolings
of the channel attention go through the same two convolutions; maps in 0..1 enter as 2 map - 1.

Patches travel channels-last, [B, h, w, C], where a 1 x 1 convolution is a linear layer over the last axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import ConfigError
from engine.models.layers import Aggregation, SelfAttention, feed_forward, standardized


class ChannelAttention(nn.Module):
    """Weighs the channels of [B, N, C] by what all N patches hold: on average and at most."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(width, width // reduction)
        self.excite = nn.Linear(width // reduction, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, C] -> the same shape, each channel times its weight in 0..1."""
        pooled = torch.stack((x.mean(1), x.amax(1)))
        weight = torch.sigmoid(self.excite(functional.relu(self.squeeze(pooled))).sum(0))
        return x * weight[:, None, :]


class Block(nn.Module):
    """Channel attention, spatial attention, feed-forward: each behind a norm and inside a residual."""

    def __init__(self, width: int, heads: int, reduction: int, expansion: int, dropout: float) -> None:
        super().__init__()
        forward = feed_forward(width, expansion)
        self.parts = nn.ModuleList((ChannelAttention(width, reduction), SelfAttention(width, heads), forward))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.parts)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Patches [B, N, C] -> the same shape."""
        for norm, part in zip(self.norms, self.parts, strict=True):
            x = x + self.drop(part(norm(x)))
        return x


class AhmsaNet(nn.Module):
    """Flow maps [B, 3, side, side] of (u, v, strain) in 0..1 -> class scores (logits) [B, num_classes].

    With standardize, the six channels of `layers.standardized` enter rather than the maps as they are (own choice).
    """

    def __init__(
        self,
        num_classes: int = 3,
        *,
        repeats: Sequence[int] = (2, 2, 8),
        width: int = 64,
        heads: int = 4,
        reduction: int = 4,
        expansion: int = 2,
        dropout: float = 0.0,
        side: int = 28,
        patch: int = 7,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        if min(width, heads, reduction, expansion, patch) < 1:
            values = f"{width}, {heads}, {reduction}, {expansion}, {patch}"
            raise ConfigError(f"ahmsa: width, heads, reduction, expansion and patch must be at least 1, not {values}")
        levels, cells = len(repeats), side // patch
        if width % heads or width % reduction:
            raise ConfigError(f"ahmsa: width {width} must be a multiple of heads ({heads}) and of reduction ({reduction})")
        if side % patch or not levels or cells != 2 ** (levels - 1):
            raise ConfigError(f"ahmsa: {levels} levels need {2 ** max(levels - 1, 0)} patches a side, not {side} / {patch}")
        self.side, self.standardize = side, standardize
        self.embed = nn.Conv2d(6 if standardize else 3, width, patch, stride=patch)
        self.place = nn.Parameter(torch.randn(1, cells, cells, width) * 0.02)
        self.levels = nn.ModuleList(
            nn.Sequential(*(Block(width, heads, reduction, expansion, dropout) for _ in range(count))) for count in repeats
        )
        self.between = nn.ModuleList(
            Aggregation(width, width, nn.AdaptiveMaxPool2d(cells // 2 ** (i + 1))) for i in range(levels - 1)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, num_classes))

    def features(self, maps: Tensor) -> Tensor:
        """[B, 3, side, side] -> [B, width], what the last level found; the classes are read off it."""
        seen = standardized(maps) if self.standardize else maps * 2 - 1
        x = self.embed(seen).permute(0, 2, 3, 1) + self.place
        for index, level in enumerate(self.levels):
            x = level(x.flatten(1, 2)).reshape(x.shape)
            if index < len(self.between):
                x = self.between[index](x)
        out: Tensor = self.norm(x.flatten(1))
        return out

    def forward(self, maps: Tensor) -> Tensor:
        """[B, 3, side, side] -> [B, num_classes]."""
        out: Tensor = self.head(self.features(maps))
        return out
