from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.models import build
from engine.models.committee import Committee
from engine.models.kernel import KernelMachine, compared
from training.lean import LeanCommittee, lean

TOLERANCE = 2e-6
"""Of a probability; measured 3e-7 at most over these cases."""


def committee(kernel: bool, members: int, **options: Any) -> Committee:
    """Networks whose norms and biases do something, unlike fresh ones."""
    torch.manual_seed(members)
    machine = None
    if kernel:
        machine = KernelMachine(3, 7)
        machine.centres, machine.weights = compared(torch.rand(7, 3, 28, 28)), torch.randn(7, 3)
        machine.bias, machine.rate = torch.randn(3), torch.tensor(0.005)
    networks = [build("ahmsa", **{"width": 16, "heads": 4, **options}) for _ in range(members)]
    for parameter in (p for network in networks for p in network.parameters()):
        torch.nn.init.normal_(parameter, std=0.3) if parameter.dim() > 1 else torch.nn.init.normal_(parameter, 0.7, 0.3)
    return Committee(networks, 0.8, machine, 0.4).eval()


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize(("members", "kernel"), [(1, False), (2, True)])
def test_it_answers_as_its_readable_twin(members: int, kernel: bool, standardize: bool, batch: int) -> None:
    network = committee(kernel, members, standardize=standardize)
    maps = torch.rand(batch, 3, 28, 28)
    with torch.inference_mode():
        answer, expected = lean(network)(maps), network(maps)
    assert expected.std() > 0.05  # the answers differ, so that agreeing means something
    assert (answer - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize("repeats", [(1,), (1, 1), (2, 1, 2)])
def test_any_number_of_levels(repeats: tuple[int, ...]) -> None:
    side = 7 * 2 ** (len(repeats) - 1)
    network = committee(False, 2, repeats=repeats, side=side)
    maps = torch.rand(3, 3, side, side)
    with torch.inference_mode():
        assert (lean(network)(maps) - network(maps)).abs().max() <= TOLERANCE


def test_parameters_are_the_twins_own_and_keep_their_names() -> None:
    network = committee(True, 2)
    assert lean(network).state_dict().keys() == network.state_dict().keys()
    assert {id(p) for p in lean(network).parameters()} == {id(p) for p in network.parameters()}


def test_other_architectures_stay_as_they_are() -> None:
    network = Committee([build("htnet", width=16, heads=1, repeats=(1, 1, 1))]).eval()
    assert lean(network) is network and isinstance(lean(committee(False, 1)), LeanCommittee)
