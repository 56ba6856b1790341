from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.descent import descend
from training.recipe import DescentSettings
from training.stacked.adam import StackedAdam

STEPS = 3
MIDDLES = torch.tensor([[1.0, -2.0, 0.5], [-3.0, 0.2, 8.0]])


def losses(parameters: Tensor, middles: Tensor) -> Tensor:
    """One of each row."""
    return ((parameters - middles).square() * torch.tensor([1.0, 4.0, 0.5])).sum(-1)


def epoch(parameters: Tensor, middles: Tensor) -> Iterator[Tensor]:
    return (losses(parameters, middles) for _ in range(STEPS))


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adam", "schedule": "constant", "clip": 0.0},
        {"optimizer": "adam", "weight_decay": 0.1},
        {"optimizer": "adamw", "weight_decay": 0.1, "clip": 0.5},
    ],
)
def test_each_row_goes_the_way_of_torchs_own_optimizer(changes: dict[str, Any]) -> None:
    settings = DescentSettings.model_validate({"epochs": 6, "batch": 2, "learning_rate": 0.2, "weight_decay": 0.0, **changes})
    stacked = torch.zeros(2, 3, requires_grad=True)
    adam = StackedAdam(stacked, settings, STEPS)
    for attempt in range(2):  # the second time after a reset
        with torch.no_grad():
            stacked.fill_(attempt)
        adam.reset()
        for _ in range(settings.epochs * STEPS):
            adam.step(torch.autograd.grad(losses(stacked, MIDDLES).sum(), stacked)[0])
        for row, middle in zip(stacked, MIDDLES, strict=True):
            alone = nn.Parameter(torch.full((3,), float(attempt)))
            descend([alone], settings, STEPS, partial(epoch, alone, middle))
            assert torch.allclose(row, alone, atol=2e-6), (attempt, row, alone)
            assert not torch.allclose(row, torch.full((3,), float(attempt)), atol=0.1)


def test_after_the_last_step_of_the_schedule_its_rate_remains() -> None:
    settings = DescentSettings.model_validate({"epochs": 1, "batch": 2, "learning_rate": 0.2, "schedule": "constant"})
    stacked = torch.zeros(1, 1, requires_grad=True)
    adam = StackedAdam(stacked, settings, 1)
    for _ in range(3):
        adam.step(torch.ones(1, 1))
    assert torch.isfinite(stacked).all() and float(stacked.detach()) < -0.3
