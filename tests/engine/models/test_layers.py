from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.models.layers import Aggregation, SelfAttention, feed_forward


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
