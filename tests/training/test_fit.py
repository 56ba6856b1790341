from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.flowmaps import write_dataset
from training.datasets import FlowMaps, htnet_3db
from training.fit import class_weights, fit
from training.recipe import AugmentSettings, Recipe

TINY = Recipe.model_validate(
    {
        "name": "tiny",
        "model": {"name": "ahmsa", "members": 1, "options": {"width": 16, "heads": 2, "repeats": (1, 1, 1)}},
        "fit": {"epochs": 12, "batch": 12, "learning_rate": 5e-3},
        "augment": {"shift": 0.5, "gain": 0.1},
    }
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FlowMaps:
    return htnet_3db.load(write_dataset(tmp_path_factory.mktemp("flow") / "set", per_class=2))


def test_fitting_learns_what_tells_the_classes_apart(data: FlowMaps, tmp_path: Path) -> None:
    network = fit(TINY, data)
    unseen = htnet_3db.load(write_dataset(tmp_path / "other", per_class=2, subjects=(("smic", "s99"),)))
    answers = network(torch.from_numpy(unseen.regions())).argmax(1).numpy()
    assert np.array_equal(answers, unseen.labels)


def test_progress_tells_each_epoch_of_each_member(data: FlowMaps) -> None:
    recipe = TINY.model_copy(
        update={
            "model": TINY.model.model_copy(update={"members": 2}),
            "fit": TINY.fit.model_copy(update={"epochs": 2}),
        }
    )
    told: list[tuple[int, int]] = []
    fit(recipe, data, progress=lambda member, epoch, _loss: told.append((member, epoch)))
    assert told == [(0, 1), (0, 2), (1, 1), (1, 2)]


@pytest.mark.parametrize("change", [{}, {"mixup": 0.4}, {"average_last": 0.5}])
def test_the_same_seed_gives_the_same_parameters(data: FlowMaps, change: dict[str, float]) -> None:
    recipe = TINY.model_copy(update={"fit": TINY.fit.model_copy(update={"epochs": 2, **change})})
    torch.manual_seed(1)
    one = fit(recipe, data, seed=7).state_dict()
    torch.manual_seed(2)
    again, other = fit(recipe, data, seed=7).state_dict(), fit(recipe, data, seed=8).state_dict()
    assert all(torch.equal(one[k], again[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)


def test_fitting_leaves_the_callers_random_numbers_alone(data: FlowMaps) -> None:
    recipe = TINY.model_copy(update={"fit": TINY.fit.model_copy(update={"epochs": 1}), "augment": AugmentSettings()})
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(recipe, data)
    assert torch.equal(torch.rand(3), expected)


def test_rare_classes_count_more_and_the_mean_over_maps_is_one() -> None:
    labels = np.array([0] * 16 + [1] * 4 + [2] * 4)
    weights = class_weights(labels, 0.5)
    assert weights[1] / weights[0] == pytest.approx(2.0)
    assert float(weights[torch.from_numpy(labels)].mean()) == pytest.approx(1.0)
    assert class_weights(labels, 0.0).tolist() == pytest.approx([1, 1, 1])


def test_a_class_that_does_not_occur_weighs_nothing() -> None:
    assert class_weights(np.array([0, 0, 2]), 0.5)[1] == 0
