"""HTNet: a hierarchical transformer on four facial tiles (Neurocomputing 2024, arXiv 2307.14637).

Input "four-regions" of `engine.geometry.INPUTS`: [3, 28, 28], four 14 x 14 tiles, eyes above, lip corners below. 7 x 7
patches give 4 x 4 tokens; three levels of (2, 2, 8) blocks, 256, 512 and 1024 wide, on 4 x 4, 2 x 2 and 1 x 1 tokens. The
level that is l from the last cuts its tokens into 2^l x 2^l groups, and attention runs inside a group.

At these sizes a group holds one token, so attention has nothing to weigh: its softmax is 1 whatever query and key are, and
their weights get a gradient of zero. That is the published network; it is kept so, and larger sides give groups of several.

The paper has (2, 2, 8) blocks, its published code (2, 2, 10): `repeats`. Maps enter as they are, in 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.errors import ConfigError
from engine.models.layers import Aggregation, SelfAttention, feed_forward


class Block(nn.Module):
    """Attention, then an MLP, each behind a norm and inside a residual."""

    def __init__(self, width: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = SelfAttention(width, heads, bias=False)
        self.mlp = feed_forward(width, expansion)

    def forward(self, x: Tensor) -> Tensor:
        """Groups of tokens [B, groups, N, C] -> the same shape."""
        attend, widen = self.norms
        x = x + self.attention(attend(x))
        out: Tensor = x + self.mlp(widen(x))
        return out


class HTNet(nn.Module):
    """Flow maps [B, 3, side, side] of (u, v, strain) in 0..1 -> class scores (logits) [B, num_classes].

    width and heads are the first level's; both double from level to level, a head keeps width // heads channels. Parameters
    for 3 classes: 114,429,446 with repeats (2, 2, 8), 139,582,982 with (2, 2, 10).
    """

    def __init__(
        self,
        num_classes: int = 3,
        *,
        repeats: Sequence[int] = (2, 2, 8),
        width: int = 256,
        heads: int = 3,
        expansion: int = 4,
        side: int = 28,
        patch: int = 7,
    ) -> None:
        super().__init__()
        levels, cells = len(repeats), side // patch
        if not 0 < heads <= width:
            raise ConfigError(f"htnet: a width of {width} cannot be split among {heads} heads")
        if side % patch or not levels or cells % 2 ** (levels - 1):
            step = 2 ** max(levels - 1, 0)
            raise ConfigError(f"htnet: {levels} levels need a multiple of {step} patches a side, not {side} / {patch}")
        self.patch = patch
        self.groups = tuple(2 ** (levels - 1 - level) for level in range(levels))
        self.embed = nn.Linear(3 * patch**2, width)
        self.scalars = nn.Parameter(torch.randn(levels))
        self.levels = nn.ModuleList(
            nn.Sequential(*(Block(width * 2**level, heads * 2**level, expansion) for _ in range(count)))
            for level, count in enumerate(repeats)
        )
        widths = [width * 2**level for level in range(levels)]
        self.between = nn.ModuleList(Aggregation(w, 2 * w, nn.MaxPool2d(3, stride=2, padding=1)) for w in widths[:-1])
        self.norm = nn.LayerNorm(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, 3, side, side] -> [B, num_classes]."""
        x = self.embed(patches(maps, self.patch))
        for index, (level, groups) in enumerate(zip(self.levels, self.groups, strict=True)):
            x = joined(level(grouped(x + self.scalars[index], groups)), groups)
            if index < len(self.between):
                x = self.between[index](x)
        out: Tensor = self.head(self.norm(x).mean((1, 2)))
        return out


def patches(maps: Tensor, patch: int) -> Tensor:
    """[B, C, H, W] -> [B, H / patch, W / patch, patch * patch * C]: row, column, channel, the channel fastest."""
    batch, channels, height, width = maps.shape
    cells = maps.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return cells.permute(0, 2, 4, 3, 5, 1).flatten(3)


def grouped(x: Tensor, groups: int) -> Tensor:
    """[B, h, w, C] -> [B, groups * groups, tokens of a group, C]."""
    batch, height, width, channels = x.shape
    cut = x.reshape(batch, groups, height // groups, groups, width // groups, channels)
    return cut.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def joined(x: Tensor, groups: int) -> Tensor:
    """Undo `grouped` for square maps: [B, groups * groups, n * n, C] -> [B, groups * n, groups * n, C]."""
    batch, _, tokens, channels = x.shape
    side = math.isqrt(tokens)
    return x.reshape(batch, groups, groups, side, side, channels).transpose(2, 3).flatten(3, 4).flatten(1, 2)
