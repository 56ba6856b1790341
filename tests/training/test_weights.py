from __future__ import annotations

import numpy as np
import pytest
import torch

from training.weights import class_weights


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
