from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from engine.models.layers import Aggregation, SelfAttention, feed_forward, standardized, without_plane


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


def slope(a: float, b: float, c: float, height: int = 28, width: int = 28) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return a + b * x + c * y


@pytest.mark.parametrize(("width", "heads"), [(16, 4), (17, 3)])
def test_attention_follows_its_tokens_when_they_change_places(width: int, heads: int) -> None:
    torch.manual_seed(0)
    attention, x, order = SelfAttention(width, heads), torch.randn(2, 3, 16, width), torch.randperm(16)
    assert torch.allclose(attention(x[:, :, order]), attention(x)[:, :, order], atol=1e-5)


def test_attention_stays_in_its_group() -> None:
    torch.manual_seed(0)
    attention, x = SelfAttention(8, 2), torch.randn(1, 2, 4, 8)
    other = x.clone()
    other[:, 1] += 1
    before, after = attention(x), attention(other)
    assert torch.equal(before[:, 0], after[:, 0]) and not torch.allclose(before[:, 1], after[:, 1], atol=1e-3)


def test_attention_is_pytorchs_own() -> None:
    """The same weights in `nn.MultiheadAttention`: query, key, value one after the other, heads consecutive."""
    torch.manual_seed(0)
    ours, theirs, x = SelfAttention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True), torch.randn(2, 5, 12)
    names = {"in_proj_weight": "qkv.weight", "in_proj_bias": "qkv.bias"}
    state = ours.state_dict()
    theirs.load_state_dict({n: state[names.get(n, n.replace("out_proj", "out"))] for n in theirs.state_dict()})
    assert torch.allclose(ours(x), theirs(x, x, x, need_weights=False)[0], atol=1e-6)


@pytest.mark.parametrize("pool", [nn.AdaptiveMaxPool2d(2), nn.MaxPool2d(3, 2, 1)], ids=["adaptive", "strided"])
def test_aggregation_halves_the_sides(pool: nn.Module) -> None:
    assert Aggregation(8, 16, pool)(torch.randn(3, 4, 4, 8)).shape == (3, 2, 2, 16)


def test_a_feed_forward_part_looks_at_each_token_alone() -> None:
    part, x = feed_forward(8, 3), torch.randn(5, 8)
    assert part[0].out_features == 24
    assert torch.allclose(part(x)[2], part(x[2]), atol=1e-6)


def test_a_standardized_map_does_not_know_where_rest_lay() -> None:
    maps = noise(4, 3, 28, 28)
    assert torch.allclose(
        standardized(maps), standardized(maps + torch.tensor([0.5, -2.0, 3.0])[:, None, None]), atol=1e-5
    )  # measured: 1e-6


@pytest.mark.parametrize(("scale", "most"), [(0.5, 0.02), (2.0, 0.01), (100.0, 0.02)])  # measured: .015, .008, .015
def test_a_standardized_map_hardly_knows_how_it_was_scaled(scale: float, most: float) -> None:
    """Not at all, but for the hundredth of a map's range that keeps a still channel from becoming noise."""
    maps = noise(4, 3, 28, 28)
    assert float((standardized(maps) - standardized(scale * maps)).abs().max()) < most


def test_standardized_channels_are_the_map_in_spreads_then_the_same_without_plane() -> None:
    maps = noise(2, 3, 28, 28)
    seen, v = standardized(maps), maps[1, 1].numpy().astype(np.float64)
    rest = without_plane(maps)[1, 1].numpy().astype(np.float64)
    for channel, values in ((1, v), (4, rest)):
        expected = np.tanh((values - values.mean()) / (values.std() + 0.01))
        assert np.abs(seen[1, channel].numpy() - expected).max() < 1e-6  # measured: 1e-7
    assert seen.shape == (2, 6, 28, 28) and float(seen.abs().max()) < 1


def test_a_channel_without_motion_becomes_nothing() -> None:
    maps = noise(1, 3, 28, 28)
    maps[:, 1] = 0.3
    seen = standardized(maps)[0]
    assert float(seen[[1, 4]].abs().max()) < 1e-4 and all(float(seen[c].abs().max()) > 0.5 for c in (0, 2, 3, 5))


def test_a_plane_over_a_map_leaves_no_trace() -> None:
    maps = noise(2, 3, 28, 28)
    tilted = maps + slope(0.2, 0.05, -0.03)
    assert torch.allclose(without_plane(maps), without_plane(tilted), atol=2e-6)
    assert torch.allclose(standardized(maps)[:, 3:], standardized(tilted)[:, 3:], atol=5e-6)  # measured: 6e-7
    assert not torch.allclose(standardized(maps)[:, :3], standardized(tilted)[:, :3], atol=0.1)
    assert float(without_plane(slope(0.2, 0.05, -0.03)).abs().max()) < 2e-6  # measured: 2e-7


@pytest.mark.parametrize(("height", "width"), [(28, 28), (5, 8), (56, 28)])
def test_the_plane_is_the_least_squares_one(height: int, width: int) -> None:
    channel = noise(height, width)
    over = np.stack([slope(p[0], p[1], p[2], height, width).numpy().ravel() for p in np.eye(3)], 1)
    expected = channel.numpy().ravel() - over @ np.linalg.lstsq(over, channel.numpy().ravel(), rcond=None)[0]
    assert np.abs(without_plane(channel).numpy().ravel() - expected).max() < 1e-6  # measured: 1e-7


def test_a_mirrored_map_is_standardized_to_the_mirror_image_with_u_negated() -> None:
    maps = noise(3, 3, 28, 28)
    turned = torch.cat((1 - maps[:, :1], maps[:, 1:]), 1).flip(3)
    sign = torch.tensor([-1.0, 1, 1, -1, 1, 1])[:, None, None]
    assert torch.allclose(standardized(turned), standardized(maps).flip(3) * sign, atol=2e-6)  # measured: 2e-7
