from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.errors import ConfigError
from training.descent import RISE, class_weights, descend
from training.recipe import DescentSettings

STEPS = 3


def settings(**change: Any) -> DescentSettings:
    given = {"epochs": 5, "batch": 2, "learning_rate": 0.01, "weight_decay": 0.0, **change}
    return DescentSettings.model_validate(given)


def uphill(parameter: nn.Parameter, slope: float = 1.0) -> Callable[[], Iterator[Tensor]]:
    """Losses whose gradient is the same at every step, so that Adam's step is the learning rate."""
    return lambda: (slope * parameter.sum() for _ in range(STEPS))


def way(**change: Any) -> list[float]:
    """How far each step went."""
    parameter, places = nn.Parameter(torch.zeros(1)), [0.0]
    descend(
        [parameter],
        settings(**change),
        STEPS,
        uphill(parameter),
        stepped=lambda epoch: places.append(float(parameter.detach())),
    )
    return [before - after for before, after in pairwise(places)]


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_a_constant_schedule_takes_equal_steps(optimizer: str) -> None:
    assert way(schedule="constant", optimizer=optimizer) == pytest.approx([0.01] * 5 * STEPS, rel=1e-3)


def test_one_cycle_rises_for_a_fifth_and_falls_to_nothing() -> None:
    steps = way(epochs=20)
    top = steps.index(max(steps))
    assert steps[0] == pytest.approx(0.01 / 25, rel=1e-3) and steps[-1] < 1e-5
    assert max(steps) == pytest.approx(0.01, rel=0.1)  # Adam's momentum, which goes along, keeps it at .0091
    assert top / len(steps) == pytest.approx(RISE, abs=0.1)
    assert steps[: top + 1] == sorted(steps[: top + 1]) and steps[top:] == sorted(steps[top:], reverse=True)


def test_a_quadratic_bowl_is_descended_to_its_middle() -> None:
    parameter = nn.Parameter(torch.tensor([3.0, -2.0]))
    middle = torch.tensor([1.0, 1.0])
    lost: list[float] = []
    descend(
        [parameter],
        settings(epochs=60, learning_rate=0.2),
        STEPS,
        lambda: ((parameter - middle).square().sum() for _ in range(STEPS)),
        finished=lambda epoch, loss: lost.append(loss),
    )
    assert torch.allclose(parameter, middle, atol=1e-2) and lost[-1] < 1e-3 < lost[0]


def test_epochs_and_mean_losses_are_reported() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    steps: list[int] = []
    epochs: list[tuple[int, float]] = []

    def losses() -> Iterator[Tensor]:
        yield from (0 * parameter.sum() + value for value in (1.0, 2.0, 6.0))

    descend([parameter], settings(epochs=2), STEPS, losses, stepped=steps.append, finished=lambda *epoch: epochs.append(epoch))
    assert steps == [0, 0, 0, 1, 1, 1] and epochs == [(1, 3.0), (2, 3.0)]


def test_each_loss_is_worked_out_after_the_step_before() -> None:
    parameter, seen = nn.Parameter(torch.zeros(1)), []

    def losses() -> Iterator[Tensor]:
        for _ in range(STEPS):
            seen.append(float(parameter.detach()))
            yield parameter.sum()

    descend([parameter], settings(epochs=1, schedule="constant"), STEPS, losses)
    assert seen == pytest.approx([0.0, -0.01, -0.02], abs=1e-5)


@pytest.mark.parametrize(("clip", "expected"), [(1.0, 1.0), (0.5, 0.5), (0.0, 7.0)])
def test_a_gradient_is_clipped_to_its_norm_or_not_at_all(clip: float, expected: float) -> None:
    parameter = nn.Parameter(torch.zeros(1))
    norms: list[float] = []

    def stepped(epoch: int) -> None:
        assert parameter.grad is not None
        norms.append(float(parameter.grad.norm()))

    descend([parameter], settings(clip=clip), STEPS, uphill(parameter, 7.0), stepped=stepped)
    assert norms == pytest.approx([expected] * len(norms), rel=1e-4)


def test_weight_decay_shrinks_by_its_share_of_the_learning_rate_with_adamw() -> None:
    parameter = nn.Parameter(torch.ones(1))
    descend(
        [parameter],
        settings(weight_decay=0.5, schedule="constant"),
        STEPS,
        lambda: (0 * parameter.sum() for _ in range(STEPS)),
    )
    assert float(parameter.detach()) == pytest.approx(math.pow(1 - 0.01 * 0.5, 5 * STEPS), rel=1e-5)


@pytest.mark.parametrize(("clip", "advice"), [(0.0, "lower learning_rate .* or set clip"), (1.0, "lower learning_rate")])
def test_numbers_that_are_not_finite_stop_the_fit_at_once(clip: float, advice: str) -> None:
    parameter, epochs = nn.Parameter(torch.ones(1)), []
    losses = (lambda: (parameter.sum() * torch.inf for _ in range(STEPS))) if clip else uphill(parameter)
    wild = settings(learning_rate=1.0 if clip else 3e38, schedule="constant", clip=clip)
    with pytest.raises(ConfigError, match=f"in epoch 1 .*{advice}"):
        descend([parameter], wild, STEPS, losses, finished=lambda epoch, loss: epochs.append(epoch))
    assert epochs == [1]


@pytest.mark.parametrize(("power", "ratio"), [(0.0, 1.0), (0.5, 2.0), (1.0, 4.0)])
def test_rare_classes_count_more_and_the_mean_over_maps_is_one(power: float, ratio: float) -> None:
    labels = np.array([0] * 16 + [1] * 4 + [2] * 4)
    weights = class_weights(labels, power)
    assert weights[1] / weights[0] == pytest.approx(ratio)
    assert float(weights[torch.from_numpy(labels)].mean()) == pytest.approx(1.0)


def test_a_class_that_does_not_occur_weighs_nothing() -> None:
    weights = class_weights(np.array([0, 0, 2]), 0.5)
    assert weights.shape == (3,) and weights[1] == 0 and torch.isfinite(weights).all()


def test_in_full_inverse_all_classes_weigh_the_same_in_all() -> None:
    labels = np.array([0] * 7 + [1] * 2 + [2])
    in_all = class_weights(labels, 1.0) * torch.tensor([7.0, 2.0, 1.0])
    assert in_all.tolist() == pytest.approx([10 / 3] * 3)
