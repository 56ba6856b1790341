from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.device import CPU, seeded
from training.stacked.graph import WARM_UP, captured


def test_on_a_cpu_the_work_is_called_itself() -> None:
    calls: list[int] = []

    def work() -> Tensor:
        calls.append(1)
        return torch.ones(1)

    (same,) = captured([work], CPU)
    assert calls == [] and float(same()) == 1 and calls == [1]


@pytest.mark.gpu
def test_a_replay_works_on_the_same_tensors_and_draws_new_numbers() -> None:
    device = torch.device("cuda", 0)
    total, calls = torch.zeros((), device=device), []

    def work() -> Tensor:
        calls.append(1)
        total.add_(1)
        return torch.rand(4, device=device)

    first, second = captured([work, lambda: total * 2], device)
    assert len(calls) == WARM_UP + 1
    total.zero_()
    with seeded(5, device):
        drawn = [first().clone() for _ in range(3)]
    with seeded(5, device):
        again = first().clone()
    assert len(calls) == WARM_UP + 1 and float(second()) == 8
    assert torch.equal(drawn[0], again) and not torch.equal(drawn[0], drawn[1])
