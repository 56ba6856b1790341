"""A committee of AHMSA-Nets as it is written to files: the same answer from a third of the operations.

At one map a time such a network costs what its operations cost to start, not what they compute. So here, of the same
parameters:

- patches are rows of a matrix, [rows, C], so that a linear layer with its bias is one operation;
- a map and its mirror image, and all members, share what comes before the networks: mirroring u turns the sign of what
  they see;
- attention of one patch to itself alone is its value, so two matrices become one; both poolings of one patch are that patch;
- the attention's scale and the sum of both poolings move into the matrices beside them.

What depends on parameters alone is written as operations on them, which every runtime works out once, when it loads the file:
each parameter stays in the file once, under its PyTorch name. The readable twin is `engine.models.committee.Committee`, and
`training.export` writes no file whose answers differ from it.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.models.ahmsa import AhmsaNet, Block, ChannelAttention
from engine.models.committee import Committee
from engine.models.kernel import POOL, gaussian
from engine.models.layers import SelfAttention

MIRRORED_SIGN = (-1.0, 1.0, 1.0)
"""What mirroring a map does to the sign of (u, v, strain) about rest; the columns are reversed besides."""


def lean(committee: Committee) -> nn.Module:
    """The module to export: the lean form where there is one, else the committee itself. Parameters and names are the same."""
    known = all(isinstance(member, AhmsaNet) for member in committee.members)
    return LeanCommittee(committee).eval() if known else committee


class LeanCommittee(nn.Module):
    """Maps [B, 3, side, side] in 0..1 -> probabilities [B, K], as the committee of AHMSA-Nets whose parameters it borrows."""

    def __init__(self, committee: Committee) -> None:
        super().__init__()
        self.members, self.kernel, self.kernel_share = committee.members, committee.kernel, committee.kernel_share
        self.register_buffer("temperature", committee.temperature)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, 3, side, side] -> [B, K]."""
        networks = [cast(AhmsaNet, member) for member in self.members]
        plain = maps * 2 - 1
        standard = _with_mirrored(_standardized(maps)) if networks[0].standardize or self.kernel is not None else plain
        seen = standard if networks[0].standardize else _with_mirrored(plain)
        logits = torch.stack([_logits(network, seen) for network in networks]).mean(0)
        if self.kernel is not None:
            compared = functional.avg_pool2d(standard, POOL).flatten(1)
            near = gaussian(compared, self.kernel.centres, self.kernel.rate) @ self.kernel.weights + self.kernel.bias
            logits = (1 - self.kernel_share) * logits + self.kernel_share * near
        both: Tensor = logits.reshape(2, -1, logits.shape[1]).mean(0)
        return torch.softmax(both / cast(Tensor, self.temperature), 1)


def _standardized(maps: Tensor) -> Tensor:
    """`engine.models.layers.standardized`: the plane is a projection on two slopes."""
    height, width = maps.shape[-2:]
    x = torch.linspace(-1, 1, width).expand(height, width)
    y = torch.linspace(-1, 1, height)[:, None].expand(height, width)
    slopes = torch.stack([slope.flatten() / slope.square().sum().sqrt() for slope in (x, y)])
    flat = maps.flatten(2)
    centred = flat - flat.mean(2, keepdim=True)
    both = torch.cat((centred, centred - (centred @ slopes.T) @ slopes), 1)
    spread = both.square().mean(2, keepdim=True).sqrt()
    return torch.tanh(both / (spread + 0.01)).reshape(-1, both.shape[1], height, width)


def _with_mirrored(seen: Tensor) -> Tensor:
    """[B, 3 or 6, h, w] about rest -> [2 B, ...]: the maps, then their mirror images."""
    sign = torch.tensor(MIRRORED_SIGN).repeat(seen.shape[1] // 3)[:, None, None]
    return torch.cat((seen, seen.flip(3) * sign))


def _logits(network: AhmsaNet, seen: Tensor) -> Tensor:
    """One member's logits [maps, K] for what it sees, [maps, channels, side, side]."""
    grid = network.embed(seen).permute(0, 2, 3, 1) + network.place
    cells, width = grid.shape[2:]
    x = grid.reshape(-1, width)
    for index, level in enumerate(network.levels):
        for block in cast(nn.Sequential, level):
            x = _block(cast(Block, block), x, cells * cells)
        if index < len(network.between):
            x = network.between[index](x.reshape(-1, cells, cells, width)).reshape(-1, width)
            cells //= 2
    out: Tensor = network.head(network.norm(x))
    return out


def _block(block: Block, x: Tensor, tokens: int) -> Tensor:
    """Rows [maps tokens, C] -> the same shape; tokens consecutive rows belong to one map."""
    channel, spatial, forward = cast(Any, block.parts)
    first, second, third = block.norms
    x = x + _channel_attention(channel, first(x), tokens)
    normed = second(x)
    x = x + (_one_patch(spatial, normed) if tokens == 1 else _spatial_attention(spatial, normed, tokens))
    out: Tensor = x + forward(third(x))
    return out


def _channel_attention(part: ChannelAttention, normed: Tensor, tokens: int) -> Tensor:
    twice = part.excite.bias * 2
    if tokens == 1:
        return normed * torch.sigmoid(functional.linear(functional.relu(part.squeeze(normed)), part.excite.weight * 2, twice))
    grouped = normed.reshape(-1, tokens, normed.shape[1])
    pooled = torch.cat((grouped.mean(1), grouped.amax(1)))
    each = functional.relu(part.squeeze(pooled))
    inner = each.reshape(2, -1, each.shape[1]).sum(0)
    return (grouped * torch.sigmoid(functional.linear(inner, part.excite.weight, twice))[:, None]).flatten(0, 1)


def _one_patch(part: SelfAttention, normed: Tensor) -> Tensor:
    """Attention of one patch to itself alone: its value, through the output's matrix."""
    first = part.qkv.weight.shape[0] // 3 * 2
    weight = part.out.weight @ part.qkv.weight[first:]
    bias = part.out.bias if part.qkv.bias is None else part.out.weight @ part.qkv.bias[first:] + part.out.bias
    return functional.linear(normed, weight, bias)


def _spatial_attention(part: SelfAttention, normed: Tensor, tokens: int) -> Tensor:
    inner = part.heads * part.size
    scale = torch.cat((torch.full((inner,), part.size**-0.5), torch.ones(2 * inner)))
    bias = None if part.qkv.bias is None else part.qkv.bias * scale
    qkv = functional.linear(normed, part.qkv.weight * scale[:, None], bias)
    split = qkv.reshape(-1, tokens, 3, part.heads, part.size).permute(2, 0, 3, 1, 4)
    q, k, v = split[:1], split[1:2], split[2:]  # slices, which runtimes cut at once, rather than three selections
    mixed = torch.softmax(q @ k.transpose(-1, -2), -1) @ v
    out: Tensor = part.out(mixed.transpose(2, 3).reshape(-1, inner))
    return out
