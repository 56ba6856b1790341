from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from engine.models import build
from engine.models.committee import Committee
from engine.models.kernel import KernelMachine
from engine.models.stacked import StackedCommittee, fits
from engine.runtime.eager import rebuild
from engine.weights import default_weights

APART = 2e-6
"""Of a probability; measured 1e-7."""


def committee(repeats: Sequence[int], *, members: int, standardize: bool, kernel: bool) -> Committee:
    torch.manual_seed(0)
    networks = [build("ahmsa", repeats=repeats, width=32, heads=2, standardize=standardize) for _ in range(members)]
    for network in networks:
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    machine = KernelMachine(3, 7) if kernel else None
    if machine is not None:
        machine.centres.normal_()
        machine.weights.normal_()
        machine.rate.fill_(1e-3)
    return Committee(networks, 1.3, machine, 0.4 if kernel else 0.0).eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("repeats", "members", "standardize", "kernel"),
    [((1, 2, 1), 1, False, False), ((2, 1, 2), 3, True, False), ((1, 1, 1), 2, False, True), ((1, 1, 1), 2, True, True)],
)
def test_it_answers_as_the_committee_does(repeats: Sequence[int], members: int, standardize: bool, kernel: bool) -> None:
    plain = committee(repeats, members=members, standardize=standardize, kernel=kernel)
    assert fits(plain)
    maps = torch.rand(3, 3, 28, 28)
    torch.testing.assert_close(StackedCommittee(plain)(maps), plain(maps), atol=APART, rtol=0)


def test_the_shipped_network() -> None:
    network, _ = rebuild(default_weights())
    maps = torch.rand(5, 3, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(StackedCommittee(network)(maps), network(maps), atol=APART, rtol=0)


def test_all_of_it_moves() -> None:
    network, _ = rebuild(default_weights())
    there = StackedCommittee(network).to("meta")
    assert there(torch.empty(2, 3, 28, 28, device="meta")).shape == (2, 3)


def test_what_does_not_fit() -> None:
    alike = [build("ahmsa"), build("ahmsa")]
    assert fits(Committee(alike))
    assert not fits(Committee([build("htnet")])), "another architecture"
    assert not fits(Committee([*alike, build("ahmsa", width=32)])), "another width"
    assert not fits(Committee([*alike, build("ahmsa", heads=8)])), "as many parameters, read otherwise"
