"""A committee of AHMSA-Nets for a GPU: the same answer from a third of the launches.

At a few dozen maps such a network costs what its launches cost, not what they compute. So here members stand side by side in
one tensor and a layer of all members is one batched product; a map and its mirror image share what comes before the networks;
what depends on parameters alone is computed when the form is made (norms' scales go into the matrices behind them, and
attention of one patch to itself is one matrix). The readable equivalent is `engine.models.committee.Committee`, with which
`engine.runtime.parity` compares the answers before this form is used. `training.lean` does the like for files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.models.ahmsa import AhmsaNet
from engine.models.committee import Committee, with_mirrored
from engine.models.kernel import POOL, gaussian
from engine.models.layers import standardized


def fits(committee: Committee) -> bool:
    """Whether a committee can take this form: AHMSA-Nets, all alike."""
    networks = list(committee.members)
    if not all(isinstance(network, AhmsaNet) for network in networks):
        return False
    shapes = {tuple(parameter.shape for parameter in network.parameters()) for network in networks}
    ways = {(network.standardize, cast(Any, network.levels)[0][0].parts[1].heads) for network in networks}
    return len(shapes) == len(ways) == 1


class Layer(NamedTuple):
    """A linear layer of all members: weight [M, in, out], bias [M, 1, out]."""

    weight: Tensor
    bias: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows [M, N, in] -> [M, N, out]."""
        return torch.baddbmm(self.bias, rows, self.weight)

    @classmethod
    def of(cls, layers: list[nn.Linear], norms: list[nn.LayerNorm] | None = None, times: float = 1.0) -> Layer:
        """Layers side by side, behind norms whose scale and shift they take over; times is a factor."""
        weight = torch.stack([layer.weight.T for layer in layers])
        bias = torch.stack([torch.zeros(layer.out_features) if layer.bias is None else layer.bias for layer in layers])[:, None]
        if norms is not None:
            scale, shift = (torch.stack([getattr(norm, name) for norm in norms]) for name in ("weight", "bias"))
            weight, bias = scale[:, :, None] * weight, bias + shift[:, None] @ weight
        return cls((times * weight).contiguous(), times * bias)


class Stage(NamedTuple):
    """One block of all members; value is the attention of one patch to itself."""

    scale: Tensor
    shift: Tensor
    squeeze: Layer
    excite: Layer
    attention: Layer
    out: Layer
    value: Layer
    inner: Layer
    outer: Layer

    @classmethod
    def of(cls, blocks: list[Any]) -> Stage:
        """Blocks (`ahmsa.Block`) side by side."""
        channel, spatial, forward = ([block.parts[number] for block in blocks] for number in range(3))
        norms = [[block.norms[number] for block in blocks] for number in range(3)]
        scale, shift = (torch.stack([getattr(norm, name) for norm in norms[0]])[:, None] for name in ("weight", "bias"))
        excite = Layer.of([part.excite for part in channel])
        qkv, out = Layer.of([part.qkv for part in spatial], norms[1]), Layer.of([part.out for part in spatial])
        width = qkv.weight.shape[2] // 3
        factor = torch.ones(3 * width)
        factor[:width] = spatial[0].size ** -0.5
        value = qkv.weight[..., 2 * width :] @ out.weight, qkv.bias[..., 2 * width :] @ out.weight + out.bias
        return cls(
            scale,
            shift,
            Layer.of([part.squeeze for part in channel]),
            Layer(excite.weight, 2 * excite.bias),  # both poolings go through it
            Layer(qkv.weight * factor, qkv.bias * factor),
            out,
            Layer(*value),
            Layer.of([part[0] for part in forward], norms[2]),
            Layer.of([part[2] for part in forward]),
        )

    def __call__(self, x: Tensor, tokens: int, heads: int) -> Tensor:
        """Patches [M, rows, C], so many consecutive ones of each map -> the same shape."""
        x = self._channels(x, tokens)
        normed = functional.layer_norm(x, x.shape[2:])
        x = x + (self.value(normed) if tokens == 1 else self.out(self._mixed(normed, tokens, heads)))
        return x + self.outer(functional.gelu(self.inner(functional.layer_norm(x, x.shape[2:]))))

    def _channels(self, x: Tensor, tokens: int) -> Tensor:
        members, _, width = x.shape
        normed = torch.addcmul(self.shift, functional.layer_norm(x, (width,)), self.scale)
        grouped, there = normed.view(members, -1, tokens, width), x.view(members, -1, tokens, width)
        if tokens == 1:
            inner = 2 * functional.relu(self.squeeze(normed))
        else:
            pooled = torch.cat((grouped.mean(2), grouped.amax(2)), 1)
            each = functional.relu(self.squeeze(pooled))
            inner = each.view(members, 2, -1, each.shape[2]).sum(1)
        gate = torch.sigmoid(self.excite(inner))
        return torch.addcmul(there, grouped, gate[:, :, None]).view(x.shape)

    def _mixed(self, normed: Tensor, tokens: int, heads: int) -> Tensor:
        """What the patches of each map tell each other, [M, rows, C]."""
        members, rows, width = normed.shape
        split = self.attention(normed).view(members * rows // tokens, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        query, key, value = split.reshape(3, -1, tokens, width // heads).unbind()
        mixed = torch.bmm(torch.softmax(torch.bmm(query, key.transpose(1, 2)), 2), value)
        return mixed.view(-1, heads, tokens, width // heads).transpose(1, 2).reshape(members, rows, width)


class StackedCommittee(nn.Module):
    """Maps [B, 3, side, side] in 0..1 -> probabilities [B, K], as the committee that `fits`."""

    def __init__(self, committee: Committee) -> None:
        super().__init__()
        networks = [cast(Any, member) for member in committee.members]
        first = networks[0]
        self.members, self.standardize, self.stride = len(networks), first.standardize, first.embed.stride
        self.heads = first.levels[0][0].parts[1].heads
        self.kernel, self.share, self.temperature = committee.kernel, committee.kernel_share, committee.temperature
        self.embed = _side_by_side([network.embed for network in networks])
        self.place = torch.stack([network.place for network in networks])
        self.levels = [
            [Stage.of([network.levels[level][k] for network in networks]) for k in range(len(first.levels[level]))]
            for level in range(len(first.levels))
        ]
        self.between = [
            (_side_by_side([step.conv for step in steps]), *_norms([step.norm for step in steps]))
            for steps in zip(*(network.between for network in networks), strict=True)
        ]
        self.first = Layer.of([network.head[0] for network in networks], [network.norm for network in networks])
        self.last = Layer.of([network.head[3] for network in networks])

    def forward(self, maps: Tensor) -> Tensor:
        """[B, 3, side, side] -> [B, K]."""
        both = with_mirrored(maps)
        standard = standardized(both) if self.standardize or self.kernel is not None else both
        alone = self._logits(standard if self.standardize else both * 2 - 1)
        logits = alone.view(self.members, 2, len(maps), -1).mean((0, 1))
        if self.kernel is not None:
            near = gaussian(functional.avg_pool2d(standard, POOL).flatten(1), self.kernel.centres, self.kernel.rate)
            found = torch.addmm(self.kernel.bias, near, self.kernel.weights).view(2, len(maps), -1).mean(0)
            logits = torch.lerp(logits, found, self.share)
        return torch.softmax(logits / self.temperature, 1)

    def _logits(self, seen: Tensor) -> Tensor:
        """The members' logits [M, maps, K] for what they see, [maps, channels, side, side]."""
        count, cells, width = len(seen), self.place.shape[-2], self.place.shape[-1]
        grid = functional.conv2d(seen, *self.embed, stride=self.stride)
        x = grid.view(count, self.members, width, cells, cells).permute(1, 0, 3, 4, 2) + self.place
        for number, level in enumerate(self.levels):
            x = x.reshape(self.members, -1, width)
            for stage in level:
                x = stage(x, cells * cells, self.heads)
            if number < len(self.between):
                x = self._smaller(number, x.view(self.members, count, cells, cells, width))
                cells //= 2
        x = functional.layer_norm(x.reshape(self.members, count, width), (width,))
        return self.last(functional.gelu(self.first(x)))

    def _smaller(self, number: int, x: Tensor) -> Tensor:
        """`layers.Aggregation` of all members: patches [M, maps, h, w, C] -> [M, maps, h / 2, w / 2, C]."""
        members, count, height, width, channels = x.shape
        conv, scale, shift = self.between[number]
        planes = x.permute(1, 0, 4, 2, 3).reshape(count, members * channels, height, width)
        mixed = functional.conv2d(planes, *conv, padding=1, groups=members)
        rows = mixed.view(count, members, channels, height, width).permute(0, 3, 4, 1, 2)
        normed = torch.addcmul(shift, functional.layer_norm(rows, (channels,)), scale)
        pooled = normed.reshape(count, height // 2, 2, width // 2, 2, members, channels).amax((2, 4))
        return pooled.permute(3, 0, 1, 2, 4)

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> StackedCommittee:
        """What moves a module moves the stacked tensors, too."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name in ("temperature", "embed", "place", "levels", "between", "first", "last"):
            setattr(self, name, _mapped(fn, getattr(self, name)))
        return self


def _mapped(fn: Callable[[Any], Any], held: Any) -> Any:
    """Tensors in lists and tuples, each through a function."""
    if isinstance(held, Tensor):
        return fn(held)
    parts = [_mapped(fn, part) for part in held]
    return type(held)(*parts) if hasattr(held, "_fields") else type(held)(parts)


def _side_by_side(convs: list[nn.Conv2d]) -> tuple[Tensor, Tensor]:
    return torch.cat([conv.weight for conv in convs]), torch.cat([cast(Tensor, conv.bias) for conv in convs])


def _norms(norms: list[nn.LayerNorm]) -> tuple[Tensor, Tensor]:
    return torch.stack([norm.weight for norm in norms]), torch.stack([norm.bias for norm in norms])
