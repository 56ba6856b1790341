"""HFA-Net: hierarchical feature aggregation of a local and a global branch (Complex & Intelligent Systems 2025).

Input "whole-224" of `engine.geometry.INPUTS`: the whole map enlarged to [3, 224, 224]. Both branches read it at four
scales, sides 56, 28, 14 and 7. The local one is four multi-scale convolution blocks, each with an efficient multi-scale
attention (EMA); the global one is a retention network whose attention fades with distance. MLFA weighs the four scales at each
place of the last grid; AAFF weighs the channels of that sum beside the last scale, and a linear layer names the class.

Norms are batch norms unless stated otherwise; no dropout. Maps enter as they are, in 0..1. `width` 64 is the published size,
all other widths follow from it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import ConfigError

EMA_GROUPS = 32


def conv_norm(inside: int, out: int, kernel: int, stride: int = 1, *, bias: bool = False) -> nn.Sequential:
    """A convolution padded to keep the side (divided by the stride), then batch norm."""
    conv = nn.Conv2d(inside, out, kernel, stride, kernel // 2, bias=bias)
    return nn.Sequential(conv, nn.BatchNorm2d(out))


def depthwise(width: int, kernel: int) -> nn.Conv2d:
    """A convolution of each channel by itself, with bias, that keeps the side."""
    return nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)


class MultiScaleAttention(nn.Module):
    """EMA: weighs each place of 32 groups of channels, by its row and column and by its surroundings; the groups share one
    set of weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        size = width // EMA_GROUPS
        self.mix = nn.Conv2d(size, size, 1)
        self.near = nn.Conv2d(size, size, 3, padding=1)
        self.norm = nn.GroupNorm(size, size)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        batch, channels, height, width = x.shape
        group = x.reshape(batch * EMA_GROUPS, channels // EMA_GROUPS, height, width)
        strips = torch.cat((group.mean(3, keepdim=True), group.mean(2, keepdim=True).transpose(2, 3)), 2)
        rows, columns = torch.split(torch.sigmoid(self.mix(strips)), [height, width], 2)
        far = self.norm(group * rows * columns.transpose(2, 3))
        near = self.near(group)
        share_far, share_near = (torch.softmax(part.mean((2, 3), keepdim=True), 1) for part in (far, near))
        place = (share_far * near + share_near * far).sum(1, keepdim=True)
        return (group * torch.sigmoid(place)).reshape(x.shape)


class LocalBlock(nn.Module):
    """A convolution, four quarters of its channels convolved one after the other, EMA, a shortcut."""

    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.enter = conv_norm(inside, out, 3, stride)
        self.quarters = nn.ModuleList(conv_norm(out // 4, out // 4, 3) for _ in range(4))
        self.attention = MultiScaleAttention(out)
        self.shortcut = nn.Identity() if stride == 1 else conv_norm(inside, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inside, H, W] -> [B, out, H / stride, W / stride]."""
        pieces = functional.relu(self.enter(x)).chunk(4, 1)
        done: list[Tensor] = []
        for piece, quarter in zip(pieces, self.quarters, strict=True):
            done.append(quarter(piece + functional.relu(done[-1]) if done else piece))
        return functional.relu(self.attention(torch.cat(done, 1)) + self.shortcut(x))


class LocalBranch(nn.Module):
    """The convolutions: [B, 3, S, S] -> four scales, [B, w, S / 4, S / 4] to [B, 8 w, S / 32, S / 32]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_norm(3, width, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        widths = (width, width, 2 * width, 4 * width, 8 * width)
        self.stages = nn.ModuleList(LocalBlock(widths[i], widths[i + 1], 1 if i == 0 else 2) for i in range(4))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, 3, S, S] -> the four scales, finest first."""
        x = self.stem(x)
        return [x := stage(x) for stage in self.stages]


class Retention(nn.Module):
    """Attention that fades with distance: along rows and then columns, or (full) over the whole grid by Manhattan distance.

    Query and key are rotated by the place's row-major index; a place at distance d from another loses d times a fixed decay,
    one for each head, of its score.
    """

    turn_cos: Tensor
    turn_sin: Tensor
    fade: Tensor

    def __init__(self, width: int, heads: int, side: int, reach: int, *, full: bool) -> None:
        super().__init__()
        self.heads, self.side, self.full = heads, side, full
        self.size = width // heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.enhance = depthwise(width, 5)
        frequency = 10000.0 ** -torch.linspace(0, 1, self.size // 2, dtype=torch.float64)
        angle = (torch.arange(side**2, dtype=torch.float64)[:, None] * frequency).reshape(side, side, 1, -1)
        place = torch.arange(side)
        decay = torch.log(1 - 2.0 ** (-1 - reach * torch.arange(heads) / heads))
        self.register_buffer("turn_cos", angle.cos().float(), persistent=False)
        self.register_buffer("turn_sin", angle.sin().float(), persistent=False)
        self.register_buffer("fade", (place[:, None] - place).abs() * decay[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, side, side, C] -> the same shape."""
        value = self.value(x)
        split = (*x.shape[:3], self.heads, self.size)
        q = self._turned(self.query(x).reshape(split))
        k = self._turned(self.key(x).reshape(split) * self.size**-0.5)
        v = value.reshape(split)
        merged = (self._whole(q, k, v) if self.full else self._rows_then_columns(q, k, v)).flatten(3)
        enhanced = self.enhance(value.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out: Tensor = self.out(merged + enhanced)
        return out

    def _turned(self, x: Tensor) -> Tensor:
        """Rotary embedding of [B, side, side, heads, size]: each adjacent pair of channels turned by its angle."""
        a, b = x[..., 0::2], x[..., 1::2]
        turned = (a * self.turn_cos - b * self.turn_sin, b * self.turn_cos + a * self.turn_sin)
        return torch.stack(turned, -1).flatten(-2)

    def _rows_then_columns(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Two passes over one axis each, on [B, side, side, heads, size]: the second one's values are the first one's."""
        for axis in (3, 2):  # columns last: attention among the places of a row; then rows last
            qa, ka, va = (t.movedim(3, 1).movedim(axis, 3) for t in (q, k, v))  # [B, heads, other, along, size]
            scores = torch.softmax(qa @ ka.transpose(-1, -2) + self.fade[:, None], -1)
            v = (scores @ va).movedim(3, axis).movedim(1, 3)
        return v

    def _whole(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One pass over the whole grid, on [B, side, side, heads, size]."""
        fade = (self.fade[:, :, None, :, None] + self.fade[:, None, :, None, :]).flatten(3).flatten(1, 2)
        qa, ka, va = (t.flatten(1, 2).transpose(1, 2) for t in (q, k, v))  # [B, heads, side * side, size]
        scores = torch.softmax(qa @ ka.transpose(-1, -2) + fade, -1)
        return (scores @ va).transpose(1, 2).reshape(v.shape)


class FeedForward(nn.Module):
    """Linear, GELU, a depthwise convolution beside the identity, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.widen = nn.Linear(width, hidden)
        self.near = depthwise(hidden, 3)
        self.narrow = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> the same shape."""
        hidden = functional.gelu(self.widen(x))
        near = self.near(hidden.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out: Tensor = self.narrow(hidden + near)
        return out


class GlobalBlock(nn.Module):
    """Depthwise convolution, retention, feed-forward: each inside a residual, the latter two behind a layer norm."""

    def __init__(self, retention: Retention, width: int, hidden: int) -> None:
        super().__init__()
        self.place = depthwise(width, 3)
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.retention = retention
        self.forward_part = FeedForward(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        retain, widen = self.norms
        y = (x + self.place(x)).permute(0, 2, 3, 1)
        y = y + self.retention(retain(y))
        out: Tensor = y + self.forward_part(widen(y))
        return out.permute(0, 3, 1, 2)


class GlobalBranch(nn.Module):
    """The retention network: [B, 3, S, S] -> four scales, [B, w, S / 4, S / 4] to [B, 8 w, S / 32, S / 32].

    Blocks run before their level's merging, so at widths w, w, 2 w, 4 w and sides S / 4, S / 4, S / 8, S / 16.
    """

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        half = width // 2
        first, second = conv_norm(3, half, 3, 2, bias=True), conv_norm(half, half, 3, bias=True)
        third, fourth = conv_norm(half, width, 3, 2, bias=True), conv_norm(width, width, 3, bias=True)
        self.stem = nn.Sequential(*first, nn.GELU(), *second, nn.GELU(), *third, nn.GELU(), *fourth)
        # depth, heads (each `width` wide), width of the feed-forward part, side divided by, range of the decays
        table = ((1, 1, 3, 4, 1), (1, 1, 6, 4, 1), (2, 2, 8, 8, 2), (2, 4, 16, 16, 2))
        self.levels = nn.ModuleList()
        for level, (depth, heads, hidden, down, reach) in enumerate(table):
            inside = heads * width
            blocks: list[nn.Module] = [
                GlobalBlock(Retention(inside, heads, side // down, reach, full=level > 1), inside, hidden * width)
                for _ in range(depth)
            ]
            merging = [] if level == 0 else [conv_norm(inside, 2 * inside, 3, 2, bias=True)]
            self.levels.append(nn.Sequential(*blocks, *merging))

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, 3, S, S] -> the four scales, finest first."""
        x = self.stem(x)
        return [x := level(x) for level in self.levels]


class ScaleFusion(nn.Module):
    """MLFA: four scales brought to the coarsest one's grid and summed, each weighed at each place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        deep = 16 * width
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2**i * 2 * width, deep, 8 >> i, 8 >> i, bias=False), nn.BatchNorm2d(deep), nn.SiLU())
            for i in range(3)
        )
        self.judge = nn.ModuleList(nn.Sequential(*conv_norm(deep, 8, 1), nn.SiLU()) for _ in range(4))
        self.weigh = nn.Conv2d(32, 4, 1)
        scale = nn.Conv2d(deep, deep, 1, groups=deep, bias=False)
        leaky = nn.LeakyReLU(0.1)
        self.out = nn.Sequential(scale, nn.BatchNorm2d(deep), leaky, *conv_norm(deep, 8 * width, 1), leaky)

    def forward(self, scales: list[Tensor]) -> Tensor:
        """Four scales, [B, 2 w, S / 4, S / 4] to [B, 16 w, S / 32, S / 32] -> [B, 8 w, S / 32, S / 32]."""
        brought = [*(down(scale) for down, scale in zip(self.down, scales[:3], strict=True)), scales[3]]
        opinions = torch.cat([judge(scale) for judge, scale in zip(self.judge, brought, strict=True)], 1)
        shares = torch.softmax(self.weigh(opinions), 1)
        total = (torch.stack(brought, 1) * shares[:, :, None]).sum(1)
        out: Tensor = self.out(total)
        return out


class ChannelFusion(nn.Module):
    """AAFF: the last scale beside the fused ones, channels weighed by what all places hold on average and at most."""

    def __init__(self, width: int) -> None:
        super().__init__()
        deep = 16 * width
        self.reduce = nn.Conv2d(deep, deep // 2, 1, bias=False)
        self.weigh = nn.Sequential(nn.Conv2d(deep, deep, 1), nn.ReLU(), nn.Conv2d(deep, deep, 1), nn.Sigmoid())

    def forward(self, last: Tensor, fused: Tensor) -> Tensor:
        """[B, 16 w, h, h] and [B, 8 w, h, h] -> [B, 8 w, h, h]."""
        both = torch.cat((self.reduce(last), fused), 1)
        weights = self.weigh(both.mean((2, 3), keepdim=True)) + self.weigh(both.amax((2, 3), keepdim=True))
        out: Tensor = self.reduce(both * weights)
        return out


class HfaNet(nn.Module):
    """Flow maps [B, 3, side, side] of (u, v, strain) in 0..1 -> class scores (logits) [B, num_classes].

    side is a multiple of 32. Parameters for 3 classes at width 64, whatever the side: 24,194,087.
    """

    def __init__(self, num_classes: int = 3, *, width: int = 64, side: int = 224) -> None:
        super().__init__()
        if width % EMA_GROUPS or side % 32 or min(width, side) <= 0:
            raise ConfigError(f"hfa: width and side must be multiples of 32, not {width} and {side}")
        self.near = LocalBranch(width)
        self.far = GlobalBranch(width, side)
        self.scales = ScaleFusion(width)
        self.channels = ChannelFusion(width)
        self.head = nn.Linear(8 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, 3, side, side] -> [B, num_classes]."""
        scales = [torch.cat(pair, 1) for pair in zip(self.near(maps), self.far(maps), strict=True)]
        out: Tensor = self.head(self.channels(scales[3], self.scales(scales)).mean((2, 3)))
        return out
