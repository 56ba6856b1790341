"""The parts of HFA-Net against slow references written straight from their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from engine.errors import ConfigError
from engine.models.hfa import (
    ChannelFusion,
    GlobalBranch,
    HfaNet,
    LocalBlock,
    LocalBranch,
    MultiScaleAttention,
    Retention,
    ScaleFusion,
)


def rotated(x: Tensor, index: int) -> Tensor:
    """One head's vector [size] at a place, its adjacent pairs turned as complex numbers."""
    half = len(x) // 2
    angle = torch.tensor([index * 10000.0 ** (-j / (half - 1)) for j in range(half)])
    turned = torch.view_as_complex(x.reshape(half, 2)) * torch.polar(torch.ones(half), angle)
    return torch.view_as_real(turned).flatten()


def retained(part: Retention, x: Tensor, reach: int) -> Tensor:
    """`Retention.forward` on one grid [side, side, C], place by place."""
    side, size = part.side, part.size
    places = [(row, column) for row in range(side) for column in range(side)]
    query, key, value = part.query(x), part.key(x) * size**-0.5, part.value(x)
    out = torch.zeros_like(value)
    for head in range(part.heads):
        cut = slice(head * size, (head + 1) * size)
        decay = math.log(1 - 2 ** (-1 - reach * head / part.heads))
        q = {p: rotated(query[p][cut], p[0] * side + p[1]) for p in places}
        k = {p: rotated(key[p][cut], p[0] * side + p[1]) for p in places}
        v = {p: value[p][cut] for p in places}
        passes = ["all"] if part.full else ["row", "column"]
        for which in passes:
            among = {
                p: [o for o in places if which == "all" or (o[0] == p[0] if which == "row" else o[1] == p[1])] for p in places
            }
            scores = {
                p: torch.stack([q[p] @ k[o] + decay * (abs(o[0] - p[0]) + abs(o[1] - p[1])) for o in among[p]]) for p in places
            }
            v = {p: torch.softmax(scores[p], 0) @ torch.stack([v[o] for o in among[p]]) for p in places}
        for p in places:
            out[(*p, cut)] = v[p]
    near = part.enhance(value.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    return part.out(out + near)  # type: ignore[no-any-return]


@pytest.mark.parametrize("full", [False, True])
def test_retention_is_its_formula(full: bool) -> None:
    torch.manual_seed(0)
    part, x = Retention(16, 2, 4, 2, full=full), torch.randn(3, 4, 4, 16)
    with torch.inference_mode():
        expected = torch.stack([retained(part, one, 2) for one in x])
        assert torch.allclose(part(x), expected, atol=1e-5)


def test_ema_is_its_formula() -> None:
    """Each group of one map by itself, through the same weights."""
    torch.manual_seed(0)
    part, x = MultiScaleAttention(128), torch.randn(2, 128, 5, 6)
    nn.init.normal_(part.norm.weight)

    def one(g: Tensor) -> Tensor:  # [4, 5, 6]
        strips = torch.cat((g.mean(2), g.mean(1)), 1)
        weight = part.mix.weight[:, :, 0, 0]
        rows, columns = torch.sigmoid(weight @ strips + part.mix.bias[:, None]).split((5, 6), 1)  # type: ignore[index, no-untyped-call]
        first = g * rows[:, :, None] * columns[:, None, :]
        mean, spread = first.mean((1, 2), keepdim=True), first.var((1, 2), unbiased=False, keepdim=True)
        first = (first - mean) / (spread + 1e-5).sqrt() * part.norm.weight[:, None, None] + part.norm.bias[:, None, None]
        second = part.near(g[None])[0]
        p1, p2 = torch.softmax(first.mean((1, 2)), 0), torch.softmax(second.mean((1, 2)), 0)
        place = torch.einsum("c,chw->hw", p1, second) + torch.einsum("c,chw->hw", p2, first)
        return g * torch.sigmoid(place)

    with torch.inference_mode():
        expected = torch.stack([torch.cat([one(group) for group in item.split(4)]) for item in x])
        assert torch.allclose(part(x), expected, atol=1e-5)


def test_a_quarter_hands_only_its_positive_part_to_the_next() -> None:
    torch.manual_seed(0)
    block = LocalBlock(32, 32, 1).eval()
    came: list[Tensor] = []
    went: list[Tensor] = []
    for quarter in block.quarters:
        quarter.register_forward_pre_hook(lambda _m, given: came.append(given[0]))
        quarter.register_forward_hook(lambda _m, _i, out: went.append(out))
    block.attention.register_forward_pre_hook(lambda _m, given: came.append(given[0]))
    x = torch.randn(1, 32, 6, 6)
    pieces = torch.relu(block.enter(x)).chunk(4, 1)
    block(x)
    for number in range(1, 4):
        assert torch.allclose(came[number], pieces[number] + torch.relu(went[number - 1]), atol=1e-6)
    assert torch.equal(came[4], torch.cat(went, 1)) and (came[4] < 0).any()


def test_both_branches_give_the_same_four_scales() -> None:
    x = torch.rand(1, 3, 64, 64)
    expected = [(1, 32, 16, 16), (1, 64, 8, 8), (1, 128, 4, 4), (1, 256, 2, 2)]
    for branch in (LocalBranch(32).eval(), GlobalBranch(32, 64).eval()):
        assert [tuple(scale.shape) for scale in branch(x)] == expected


def test_scales_are_weighed_at_each_place_by_shares_of_one() -> None:
    """Where all four scales say the same, their shares do not matter."""
    torch.manual_seed(0)
    fusion = ScaleFusion(2).eval()
    same, sums = torch.randn(1, 32, 3, 3), []
    for index, down in enumerate(fusion.down):
        fusion.down[index] = nn.Sequential(down, _Always(same))
    fusion.out.register_forward_pre_hook(lambda _m, given: sums.append(given[0]))
    fusion([torch.randn(1, 4 * 2**i, 24 >> i, 24 >> i) for i in range(3)] + [same])
    assert torch.allclose(sums[0], same, atol=1e-6)


class _Always(nn.Module):
    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, _: Tensor) -> Tensor:
        return self.answer


def test_the_same_reduction_stands_on_both_sides_of_the_channel_weights() -> None:
    torch.manual_seed(0)
    fusion = ChannelFusion(2)
    last, fused = torch.randn(2, 32, 3, 3), torch.randn(2, 16, 3, 3)
    both = torch.cat((fusion.reduce(last), fused), 1)
    weights = fusion.weigh(both.mean((2, 3), keepdim=True)) + fusion.weigh(both.amax((2, 3), keepdim=True))
    assert torch.allclose(fusion(last, fused), fusion.reduce(both * weights), atol=1e-6)
    assert (weights > 0).all() and (weights < 2).all()


def test_initial_values_are_the_published_ones() -> None:
    torch.manual_seed(0)
    network = HfaNet(width=32, side=32)
    for name, part in network.named_modules():
        if isinstance(part, nn.Linear):
            assert not part.bias.any() and float(part.weight.detach().std()) == pytest.approx(0.02, rel=0.15), name
        if isinstance(part, nn.Conv2d) and name.startswith("near") and part.weight.numel() > 1000:
            fan_out = part.out_channels * part.kernel_size[0] * part.kernel_size[1]
            assert float(part.weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.15), name


@pytest.mark.parametrize("options", [{"side": 200}, {"width": 48}, {"side": 0}])
def test_settings_that_do_not_fit_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="multiples of 32"):
        HfaNet(**options)
