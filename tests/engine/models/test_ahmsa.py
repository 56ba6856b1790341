from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from engine.errors import ConfigError
from engine.models.ahmsa import AhmsaNet, Block, ChannelAttention

SMALL: dict[str, Any] = {"width": 16, "heads": 2}


def net(**options: Any) -> AhmsaNet:
    torch.manual_seed(3)
    return AhmsaNet(**{**SMALL, **options}).eval()


def test_levels_hold_two_two_and_eight_blocks_on_halving_sides() -> None:
    network = net()
    patches: list[int] = []
    for level in network.levels:
        level.register_forward_hook(lambda _m, _i, out: patches.append(out.shape[1]))
    network(torch.rand(2, 3, 28, 28))
    assert [len(level) for level in network.levels] == [2, 2, 8]  # type: ignore[arg-type]
    assert patches == [16, 4, 1]


def test_logits_have_one_column_a_class() -> None:
    assert net(num_classes=5)(torch.rand(4, 3, 28, 28)).shape == (4, 5)


@pytest.mark.parametrize("standardize", [False, True])
def test_every_parameter_gets_a_gradient(standardize: bool) -> None:
    network = net(standardize=standardize).train()
    nn.functional.cross_entropy(network(torch.rand(8, 3, 28, 28)), torch.arange(8) % 3).backward()  # type: ignore[no-untyped-call]
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_classes_are_read_off_the_features() -> None:
    network, maps = net(), torch.rand(4, 3, 28, 28)
    assert network.features(maps).shape == (4, 16)
    assert torch.equal(network.head(network.features(maps)), network(maps))


def test_a_standardizing_network_looks_past_offset_and_scale() -> None:
    maps, other = torch.rand(4, 3, 28, 28), torch.rand(4, 3, 28, 28)
    offset = torch.tensor([0.3, -0.2, 0.1])[:, None, None]
    plain, standardizing = net(), net(standardize=True)

    def change(network: AhmsaNet) -> float:
        """By how much halving and shifting a map changes its features, of what another map does."""
        with torch.inference_mode():
            here, halved, there = (network.features(m) for m in (maps, maps / 2 + offset, other))
        return float((halved - here).norm() / (there - here).norm())

    assert standardizing.embed.in_channels == 6 and plain.embed.in_channels == 3
    assert change(standardizing) < 0.05 and change(plain) > 0.2  # measured: 0.01, 1.2


def test_a_standardizing_network_differs_in_its_first_layer_alone() -> None:
    plain, standardizing = net().state_dict(), net(standardize=True).state_dict()
    assert [name for name in plain if plain[name].shape != standardizing[name].shape] == ["embed.weight"]
    assert list(plain) == list(standardizing)


def test_queries_and_keys_matter_where_there_are_several_patches_only() -> None:
    network = net().train()
    network(torch.rand(8, 3, 28, 28)).square().sum().backward()
    reach = []
    for level in network.levels:
        attention = level[0].parts[1]  # type: ignore[index]
        reach.append(float(attention.qkv.weight.grad[: 2 * 16].abs().sum()))
    assert reach[0] > 0 and reach[1] > 0 and reach[2] == 0


def test_channel_attention_only_weakens_channels() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 16, 8)
    ratio = ChannelAttention(8, 4)(x) / x
    assert ((ratio > 0) & (ratio < 1)).all()
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), atol=1e-5)


def test_a_block_adds_to_its_input() -> None:
    block = Block(16, 2, 4, 2, 0.0)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(1, 4, 16)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"heads": 3}, "multiple of heads"),
        ({"repeats": (2, 2)}, "2 levels need 2"),
        ({"side": 30}, "3 levels need 4"),
        *(({name: 0}, "must be at least 1") for name in ("width", "heads", "reduction", "expansion", "patch")),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        net(**options)
