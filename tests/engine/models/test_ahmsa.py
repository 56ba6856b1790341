from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from engine.errors import ConfigError
from engine.models.ahmsa import Aggregation, AhmsaNet, Block, ChannelAttention, SpatialAttention

SMALL: dict[str, Any] = {"width": 16, "heads": 2}


def net(**options: Any) -> AhmsaNet:
    torch.manual_seed(3)
    return AhmsaNet(**{**SMALL, **options}).eval()


def test_levels_hold_two_two_and_eight_blocks_on_halving_sides() -> None:
    network = net()
    sides: list[tuple[int, ...]] = []
    for level in network.levels:
        level.register_forward_hook(lambda _m, _i, out: sides.append(tuple(out.shape[1:3])))
    network(torch.rand(2, 3, 28, 28))
    assert [len(level) for level in network.levels] == [2, 2, 8]  # type: ignore[arg-type]
    assert sides == [(4, 4), (2, 2), (1, 1)]


def test_logits_have_one_column_a_class() -> None:
    assert net(num_classes=5)(torch.rand(4, 3, 28, 28)).shape == (4, 5)


def test_every_parameter_gets_a_gradient() -> None:
    network = net().train()
    nn.functional.cross_entropy(network(torch.rand(8, 3, 28, 28)), torch.arange(8) % 3).backward()  # type: ignore[no-untyped-call]
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_queries_and_keys_matter_where_there_are_several_patches_only() -> None:
    network = net().train()
    network(torch.rand(8, 3, 28, 28)).square().sum().backward()
    reach = []
    for level in network.levels:
        attention = level[0].parts[1]  # type: ignore[index, union-attr]
        reach.append(float(attention.qkv.weight.grad[: 2 * 16].abs().sum()))  # type: ignore[union-attr, index]
    assert reach[0] > 0 and reach[1] > 0 and reach[2] == 0


def test_an_answer_does_not_depend_on_its_batch() -> None:
    network, maps = net(), torch.rand(6, 3, 28, 28)
    with torch.inference_mode():
        together, alone = network(maps), torch.cat([network(m[None]) for m in maps])
    assert torch.allclose(together, alone, atol=1e-5)


def test_channel_attention_only_weakens_channels() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 4, 8)
    ratio = ChannelAttention(8, 4)(x) / x
    assert ((ratio > 0) & (ratio < 1)).all()
    assert torch.allclose(ratio, ratio[:, :1, :1].expand_as(ratio), atol=1e-5)


def test_spatial_attention_follows_its_patches_when_they_change_places() -> None:
    torch.manual_seed(0)
    attention, x = SpatialAttention(16, 4), torch.randn(2, 4, 4, 16)
    order = torch.randperm(16)

    def moved(t: torch.Tensor) -> torch.Tensor:
        return t.reshape(2, 16, 16)[:, order].reshape(2, 4, 4, 16)

    assert torch.allclose(attention(moved(x)), moved(attention(x)), atol=1e-5)


def test_a_block_adds_to_its_input() -> None:
    block = Block(16, 2, 4, 2, 0.0)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(1, 2, 2, 16)
    assert torch.equal(block(x), x)


def test_aggregation_halves_the_sides() -> None:
    assert Aggregation(8, 2)(torch.randn(3, 4, 4, 8)).shape == (3, 2, 2, 8)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"heads": 3}, "multiple of heads"), ({"repeats": (2, 2)}, "2 levels need 2"), ({"side": 30}, "3 levels need 4")],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        net(**options)


def test_the_shipped_size_is_about_half_a_million() -> None:
    assert sum(p.numel() for p in AhmsaNet().parameters()) == 517_827
