from __future__ import annotations

import pytest
import torch

from engine.errors import ConfigError
from engine.models import build
from engine.models.committee import Committee


def committee(members: int = 2, temperature: float = 1.0) -> Committee:
    torch.manual_seed(1)
    return Committee([build("ahmsa", width=16, heads=2) for _ in range(members)], temperature).eval()


def mirrored(maps: torch.Tensor) -> torch.Tensor:
    turned = maps.flip(3).clone()
    turned[:, 0] = 1 - turned[:, 0]
    return turned


def test_rows_are_probabilities() -> None:
    chances = committee()(torch.rand(5, 3, 28, 28))
    assert chances.shape == (5, 3) and (chances > 0).all()
    assert torch.allclose(chances.sum(1), torch.ones(5), atol=1e-6)


def test_a_mirrored_face_gets_the_same_answer() -> None:
    network, maps = committee(), torch.rand(4, 3, 28, 28)
    assert torch.allclose(network(maps), network(mirrored(maps)), atol=1e-6)
    alone = network.members[0]
    assert not torch.allclose(alone(maps), alone(mirrored(maps)), atol=1e-4)


def test_logits_are_the_mean_over_members_and_mirror() -> None:
    network, maps = committee(3), torch.rand(2, 3, 28, 28)
    expected = torch.stack([m(x) for m in network.members for x in (maps, mirrored(maps))]).mean(0)
    assert torch.allclose(network.logits(maps), expected, atol=1e-6)


def test_temperature_flattens_without_changing_the_answer() -> None:
    maps = torch.rand(6, 3, 28, 28)
    sharp, flat = committee(temperature=0.5)(maps), committee(temperature=4.0)(maps)
    assert torch.equal(sharp.argmax(1), flat.argmax(1))
    assert (sharp.amax(1) > flat.amax(1)).all()


def test_nobody_and_no_warmth_are_refused() -> None:
    with pytest.raises(ConfigError, match="a member"):
        Committee([])
    with pytest.raises(ConfigError, match="temperature above 0"):
        committee(temperature=0.0)
