from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from engine.errors import ConfigError
from engine.models.htnet import HTNet, grouped, joined, patches

SMALL: dict[str, Any] = {"width": 12, "heads": 3, "repeats": (1, 1, 1)}


def silent_attention(side: int) -> list[bool]:
    """For each level, whether queries and keys have no say (a gradient of zero)."""
    torch.manual_seed(0)
    network = HTNet(side=side, **SMALL)
    network(torch.rand(4, 3, side, side)).square().sum().backward()
    out = []
    for level in network.levels:
        weight = level[0].attention.qkv.weight  # type: ignore[index]
        gradient: Tensor = weight.grad
        assert gradient[2 * len(gradient) // 3 :].abs().sum() > 0
        out.append(not gradient[: 2 * len(gradient) // 3].abs().sum() > 0)
    return out


def test_with_one_token_a_group_queries_and_keys_have_no_say() -> None:
    assert silent_attention(28) == [True, True, True]


def test_with_several_tokens_a_group_they_have() -> None:
    assert silent_attention(56) == [False, False, False]


def test_a_patch_is_flattened_row_column_channel() -> None:
    maps = torch.rand(2, 3, 28, 28)
    cells = patches(maps, 7)
    assert cells.shape == (2, 4, 4, 147)
    assert torch.equal(cells[1, 2, 3], maps[1, :, 14:21, 21:28].permute(1, 2, 0).flatten())


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_are_squares_of_neighbours_and_go_back_to_their_place(groups: int) -> None:
    x, size = torch.rand(2, 8, 8, 5), 8 // groups
    cut = grouped(x, groups)
    assert cut.shape == (2, groups**2, size**2, 5)
    assert torch.equal(cut[:, 0], x[:, :size, :size].flatten(1, 2))
    assert torch.equal(cut[:, -1], x[:, -size:, -size:].flatten(1, 2))
    assert torch.equal(joined(cut, groups), x)


def test_heads_that_do_not_divide_the_width_keep_its_floor() -> None:
    with torch.device("meta"):
        network = HTNet()
    inner = [level[0].attention.out.in_features for level in network.levels]  # type: ignore[index]
    assert inner == [255, 510, 1020]


def test_each_level_adds_its_scalar_everywhere_on_entering() -> None:
    torch.manual_seed(0)
    network = HTNet(**SMALL).eval()
    came: list[Tensor] = []
    for level in network.levels:
        level.register_forward_pre_hook(lambda _m, given: came.append(given[0].clone()))
    maps = torch.rand(1, 3, 28, 28)
    with torch.inference_mode():
        network(maps)
        network.scalars[0] += 2
        network(maps)
    assert torch.allclose(came[3], came[0] + 2, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"side": 30}, "multiple of 4 patches"), ({"repeats": (2,) * 4}, "multiple of 8"), ({"heads": 0}, "cannot be split")],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        HTNet(**{**SMALL, **options})
