from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.models.committee import Committee
from engine.models.kernel import KernelMachine, compared, gaussian
from engine.recognition.flowmap import mirrored
from engine.types import F32
from tests.flowmaps import write_dataset
from training.datasets import FlowMaps, htnet_3db
from training.descent import class_weights
from training.kernel import RIDGE, fit_kernel
from training.recipe import Recipe
from training.simulate import simulate


def recipe(**kernel: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "model": {"name": "ahmsa", "input": "whole"},
            "fit": {"epochs": 1, "batch": 2, "learning_rate": 1.0},
            "kernel": kernel,
        }
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FlowMaps:
    """Two maps of each class and subject, but for a few left out so that classes differ in number."""
    whole = htnet_3db.load(write_dataset(tmp_path_factory.mktemp("flow") / "set", per_class=2))
    return whole.take([i for i, label in enumerate(whole.labels) if label == 0 or i % 3])


def fitted(data: FlowMaps, **kernel: Any) -> KernelMachine:
    machine = fit_kernel(recipe(**{"centres": 60, **kernel}), data, 0)
    assert machine is not None
    return machine


def answers(machine: KernelMachine, maps: F32) -> torch.Tensor:
    """Its logits as a committee gives them, over map and mirror image."""
    none = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 28 * 28, 3))
    _, kernel = Committee([none], kernel=machine).each(torch.from_numpy(maps))
    assert kernel is not None
    return kernel


def turned(data: FlowMaps) -> F32:
    return np.stack([mirrored(m) for m in data.maps])


def similar(machine: KernelMachine, data: FlowMaps) -> torch.Tensor:
    """Every map to every centre in double precision, over the map and its mirror image."""
    sides = (compared(torch.from_numpy(maps)).double() for maps in (data.inputs("whole"), turned(data)))
    return torch.stack([gaussian(side, machine.centres.double(), machine.rate.double()) for side in sides]).mean(0)


def turned_centres(machine: KernelMachine) -> torch.Tensor:
    """What the kernel compares of the centres' mirror images: columns reversed, both kinds of u negated."""
    cells = machine.centres.double().reshape(-1, 6, 14, 14).flip(3)
    return (cells * torch.tensor([-1.0, 1, 1, -1, 1, 1])[:, None, None]).flatten(1)


def among(machine: KernelMachine) -> torch.Tensor:
    """Every centre to every centre as `similar`, with the ridge that the fit adds."""
    centres, rate = machine.centres.double(), machine.rate.double()
    whole = (gaussian(centres, centres, rate) + gaussian(turned_centres(machine), centres, rate)) / 2
    return (whole + whole.T) / 2 + RIDGE * torch.eye(len(centres), dtype=torch.float64)


def test_without_kernel_settings_there_is_none(data: FlowMaps) -> None:
    assert fit_kernel(recipe().model_copy(update={"kernel": None}), data, 0) is None


def test_centres_are_simulated_maps_without_a_recorded_face(data: FlowMaps) -> None:
    one, other = fitted(data, centres=30), fitted(data.take(range(6)), centres=30)
    drawn = simulate(30, 999)
    assert torch.equal(one.centres, other.centres) and not torch.equal(one.weights, other.weights)
    assert torch.allclose(one.centres, compared(torch.from_numpy(drawn.maps)), atol=1e-5)
    again = fit_kernel(recipe(centres=30), data, 1)
    assert again is not None and not torch.equal(one.centres, again.centres)


@pytest.mark.parametrize("penalty", [0.1, 0.3, 3.0])
def test_the_fitted_weights_are_where_the_gradient_is_zero(data: FlowMaps, penalty: float) -> None:
    """There the residuals, seen through the kernel, are the penalty times the kernel's own weights, and sum to zero."""
    machine = fitted(data, penalty=penalty)
    weights = class_weights(data.labels, 0.5).double()[torch.from_numpy(data.labels)][:, None]
    truth, seen = torch.eye(3, dtype=torch.float64)[data.labels], similar(machine, data)
    chances = torch.softmax(seen @ machine.weights.double() + machine.bias.double(), 1)
    residual = weights * (truth - chances)
    pulled, held = seen.T @ residual, penalty * among(machine) @ machine.weights.double()
    assert float((pulled - held).abs().max()) < 5e-4 * float(held.abs().max())  # measured: 5e-5
    assert float(residual.sum(0).abs().max()) < 5e-4  # measured: 9e-5, of 2 to 17


def test_no_step_finds_less_loss(data: FlowMaps) -> None:
    """The loss is convex, so what no small step away lowers is the least there is."""
    machine = fitted(data)
    seen, own, labels = similar(machine, data), among(machine), torch.from_numpy(data.labels)
    weights = class_weights(data.labels, 0.5).double()[labels]
    whitener = torch.linalg.cholesky(own).T

    def loss(solution: torch.Tensor, bias: torch.Tensor) -> float:
        misfit = torch.nn.functional.cross_entropy(seen @ solution + bias, labels, reduction="none") * weights
        return float(misfit.mean() + 0.1 / 2 * (solution * (own @ solution)).sum() / len(labels))

    solution, bias = machine.weights.double(), machine.bias.double()
    least, draw = loss(solution, bias), torch.Generator().manual_seed(0)
    for _ in range(50):
        step = torch.linalg.solve(whitener, torch.randn(solution.shape, generator=draw, dtype=torch.float64) * 0.03)
        aside = torch.randn(3, generator=draw, dtype=torch.float64) * 0.03
        assert loss(solution + step, bias + aside) > least and loss(solution - step, bias - aside) > least


def test_it_distinguishes_the_classes_of_unseen_people(data: FlowMaps, tmp_path: Path) -> None:
    unseen = htnet_3db.load(write_dataset(tmp_path / "other", per_class=3, subjects=(("smic", "s99"),)))
    assert answers(fitted(data), unseen.maps).argmax(1).tolist() == unseen.labels.tolist()


def test_a_mirrored_map_is_learnt_from_as_the_map_itself(data: FlowMaps) -> None:
    """Fitting to mirror images of some of the maps changes no answer."""
    maps = np.where(np.arange(len(data))[:, None, None, None] % 2, turned(data), data.maps)
    one, other = fitted(data), fitted(replace(data, maps=maps.astype(np.float32)))
    assert torch.allclose(answers(one, data.maps), answers(other, data.maps), atol=3e-6)  # measured: 4e-7
    assert torch.allclose(answers(one, data.maps), answers(one, turned(data)), atol=3e-6)


def test_it_is_fitted_alike_every_time(data: FlowMaps) -> None:
    torch.manual_seed(1)
    one = fitted(data).state_dict()
    torch.manual_seed(2)
    again = fitted(data).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)


def test_a_penalty_shrinks_the_answers(data: FlowMaps) -> None:
    spreads = [float(answers(fitted(data, penalty=p), data.maps).std(1).mean()) for p in (0.1, 1.0, 10.0)]
    assert spreads == sorted(spreads, reverse=True) and spreads[0] > 3 * spreads[2]


def test_a_spread_is_in_units_of_how_much_maps_differ(data: FlowMaps) -> None:
    for spread in (0.5, 2.0):
        machine = fitted(data, spread=spread)
        apart = float(torch.cat((machine.centres.double(), turned_centres(machine))).var(0).sum())
        assert float(machine.rate) == pytest.approx(spread / apart, rel=1e-4)


def test_a_class_counts_by_its_weight(data: FlowMaps) -> None:
    """Weighed in full inverse to its number, the rarer classes are answered more often than unweighed."""
    few = data.take([*np.flatnonzero(data.labels == 0), *np.flatnonzero(data.labels == 1)[:2]])
    chances = []
    for power in (0.0, 1.0):
        plain = recipe(penalty=3.0)
        weighed = plain.model_copy(update={"fit": plain.fit.model_copy(update={"class_weight_power": power})})
        machine = fit_kernel(weighed, few, 0)
        assert machine is not None
        chances.append(float(torch.softmax(answers(machine, few.maps), 1)[:, 1].mean()))
    assert chances[1] > chances[0] + 0.05
