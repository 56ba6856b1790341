"""Layers that at least two of the networks share. Patches travel channels-last, [B, h, w, C], where a 1 x 1 convolution is a
linear layer over the last axis."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Scaled dot-product attention of every token to every token of its group, in several heads of width // heads each."""

    def __init__(self, width: int, heads: int, *, bias: bool = True) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        inner = heads * self.size
        self.qkv = nn.Linear(width, 3 * inner, bias=bias)
        self.out = nn.Linear(inner, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Groups of tokens [..., N, C] -> the same shape."""
        split = self.qkv(tokens).unflatten(-1, (3, self.heads, self.size))
        q, k, v = (part.transpose(-3, -2) for part in split.unbind(-3))
        scores = torch.softmax(q @ k.transpose(-1, -2) * self.size**-0.5, -1)
        out: Tensor = self.out((scores @ v).transpose(-3, -2).flatten(-2))
        return out


class Aggregation(nn.Module):
    """From one level to the next: 3 x 3 convolution, layer norm, max pooling that halves each side."""

    def __init__(self, width: int, out: int, pool: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, 3, padding=1)
        self.norm = nn.LayerNorm(out)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, C] -> [B, h / 2, w / 2, out]."""
        mixed = self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        pooled: Tensor = self.pool(mixed.permute(0, 3, 1, 2))
        return pooled.permute(0, 2, 3, 1)


def feed_forward(width: int, expansion: int) -> nn.Sequential:
    """Two linear layers over the channels with an exact GELU between, the inner one `expansion` times as wide."""
    return nn.Sequential(nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width))


def standardized(maps: Tensor) -> Tensor:
    """Maps [B, 3, h, w] -> [B, 6, h, w]: each channel about its mean, in units of its spread, squashed by tanh; first as it
    is, then less the plane that fits it best.

    The published maps are scaled by their own least and greatest value, so rest lies anywhere between 0 and 1 and one outlier
    shrinks everything else; this undoes both. A plane in u and v is what a move, turn or zoom of the head leaves. A channel
    without motion becomes 0.
    """
    return torch.cat((_squashed(maps), _squashed(without_plane(maps))), 1)


def without_plane(maps: Tensor) -> Tensor:
    """Maps [..., h, w] less the least-squares plane a + b x + c y of each channel."""
    height, width = maps.shape[-2:]
    out = maps - maps.mean((-2, -1), keepdim=True)
    along, down = (torch.linspace(-1, 1, side, device=maps.device).to(maps.dtype) for side in (width, height))
    for line in (along, down[:, None]):
        slope = line.expand(height, width)  # both slopes and the constant are orthogonal on a regular grid
        out = out - slope * ((out * slope).sum((-2, -1), keepdim=True) / slope.square().sum())
    return out


def _squashed(maps: Tensor) -> Tensor:
    centred = maps - maps.mean((-2, -1), keepdim=True)
    spread = centred.square().mean((-2, -1), keepdim=True).sqrt()
    return torch.tanh(centred / (spread + 0.01))
