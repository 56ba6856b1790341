from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from engine.errors import ConfigError
from engine.models import build
from engine.models.committee import Committee, assemble, kernel_of, passes
from engine.models.kernel import KernelMachine, compared

OPTIONS: dict[str, Any] = {"width": 16, "heads": 2}


def with_kernel(share: float = 0.3, members: int = 2) -> Committee:
    """Networks, and a kernel machine as if fitted to four maps of noise."""
    torch.manual_seed(2)
    kernel = KernelMachine(3, 4)
    kernel.centres, kernel.weights = compared(torch.rand(4, 3, 28, 28)), torch.randn(4, 3)
    kernel.bias, kernel.rate = torch.randn(3), torch.tensor(0.01)
    return Committee([build("ahmsa", **OPTIONS) for _ in range(members)], 1.5, kernel, share).eval()


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
    with pytest.raises(ConfigError, match=r"share lies in 0\.\.1, not 1\.5"):
        with_kernel(1.5)


def test_each_answers_for_itself_on_both_sides_of_the_mirror() -> None:
    network, maps = with_kernel(), torch.rand(3, 3, 28, 28)
    alone, kernel = network.each(maps)
    assert alone.shape == (2, 3, 3) and kernel is not None and network.kernel is not None
    for found, part in ((alone[1], network.members[1]), (kernel, network.kernel)):
        assert torch.allclose(found, (part(maps) + part(mirrored(maps))) / 2, atol=1e-6)
    assert committee().each(maps)[1] is None


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_kernel_machine_has_its_share_of_the_logits(share: float) -> None:
    network, maps = with_kernel(share), torch.rand(3, 3, 28, 28)
    alone, kernel = network.each(maps)
    assert kernel is not None
    expected = (1 - share) * (alone[0] + alone[1]) / 2 + share * kernel
    assert torch.allclose(network.logits(maps), expected, atol=1e-6)
    assert torch.allclose(network(maps), torch.softmax(expected / 1.5, 1), atol=1e-6)


def test_with_a_kernel_machine_a_mirrored_face_gets_the_same_answer() -> None:
    network, maps = with_kernel(), torch.rand(4, 3, 28, 28)
    assert network.kernel is not None
    assert torch.allclose(network(maps), network(mirrored(maps)), atol=1e-6)
    assert not torch.allclose(network.kernel(maps), network.kernel(mirrored(maps)), atol=1e-4)


def test_an_answer_does_not_depend_on_its_batch() -> None:
    network, maps = with_kernel(), torch.rand(5, 3, 28, 28)
    assert torch.allclose(network(maps), torch.cat([network(one[None]) for one in maps]), atol=1e-5)


@pytest.mark.parametrize("share", [None, 0.3])
def test_a_described_committee_can_be_assembled_and_filled(share: float | None) -> None:
    network = committee(2, 1.5) if share is None else with_kernel(share)
    described = json.loads(json.dumps(kernel_of(network)))
    assert described == (None if share is None else {"centres": 4, "share": 0.3})
    again = assemble("ahmsa", OPTIONS, 2, described, 3).eval()
    again.load_state_dict(network.state_dict())
    maps = torch.rand(3, 3, 28, 28)
    assert torch.equal(again(maps), network(maps)) and kernel_of(again) == described


def test_a_committee_is_assembled_as_its_card_tells() -> None:
    """A card holds all figures of the kernel machine as real numbers."""
    assert kernel_of(assemble("ahmsa", OPTIONS, 1, {"centres": 4.0, "share": 0.3}, 3)) == {"centres": 4, "share": 0.3}


def test_many_maps_go_through_some_after_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.models.committee.PASS", 3 * 28 * 28)
    network = with_kernel()
    seen: list[int] = []
    network.members[0].register_forward_hook(lambda module, given, found: seen.append(len(given[0])))
    given = torch.rand(7, 3, 28, 28)
    with torch.inference_mode():
        alone, kernel = network.answers(given)
        assert seen == [6, 6, 2]  # each map and its mirror image
        whole, machine = network.each(given)
    assert kernel is not None and machine is not None
    assert torch.allclose(alone, whole, atol=1e-6) and torch.allclose(kernel, machine, atol=1e-6)


def test_a_map_larger_than_a_pass_goes_alone() -> None:
    assert [len(part) for part in passes(torch.zeros(2, 1, 1000, 1000))] == [1, 1]
    assert [len(part) for part in passes(torch.zeros(40, 3, 224, 224))] == [16, 16, 8]
