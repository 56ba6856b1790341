from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from engine.errors import InputError
from engine.models.committee import Committee
from engine.types import F32
from tests.flowmaps import write_dataset
from training.datasets import FlowMaps, htnet_3db
from training.fit import fit
from training.fold import FoldTest, evaluate_fold
from training.recipe import Recipe
from training.split import Fold, leave_one_subject_out

PRETRAIN: dict[str, Any] = {"maps": 100, "epochs": 1, "batch": 50, "learning_rate": 1e-3}


def recipe(members: int = 1, epochs: int = 2, **parts: Any) -> Recipe:
    options = {"width": 8, "heads": 2, "repeats": (1, 1, 1)}
    model = {"name": "ahmsa", "members": members, "input": "whole", "options": options}
    fitting = {"epochs": epochs, "batch": 4, "learning_rate": 2e-3}
    return Recipe.model_validate({"name": "tiny", "model": model, "fit": fitting, **parts})


TINY = recipe()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FlowMaps:
    return htnet_3db.load(write_dataset(tmp_path_factory.mktemp("flow") / "set", per_class=1))


def test_a_fold_is_the_fit_to_all_others(data: FlowMaps, tmp_path: Path) -> None:
    fold = leave_one_subject_out(data.subjects)[2]
    network = fit(TINY, data.take(fold.train), seed=4)
    with torch.inference_mode():
        expected = network.logits(torch.from_numpy(data.take(fold.test).inputs("whole"))).numpy()
    assert np.abs(np.array(evaluate_fold(TINY, data, 4, fold).logits) - expected).max() < 2e-5


def test_a_fold_that_fits_to_its_own_subject_is_refused(data: FlowMaps) -> None:
    leaking = Fold("casme2/sub01", tuple(range(1, len(data))), (0,))
    with pytest.raises(InputError, match="fits to its own test subject, casme2/sub01"):
        evaluate_fold(TINY, data, 0, leaking)


def test_the_earliest_best_epoch_counts(data: FlowMaps) -> None:
    fold = leave_one_subject_out(data.subjects)[0]
    test, network = FoldTest(TINY, data, 0, fold), fit(TINY, data.take(fold.train))
    right = torch.eye(3)[torch.from_numpy(data.labels[list(fold.test)])]
    for epoch in (-right, 2 * right, 3 * right, -right):
        test.note(0, epoch)
    result = test.result(network, lambda: 1.234)
    assert result.peeked == tuple(tuple(row) for row in (2 * right).tolist()) and result.seconds == 1.23
    assert FoldTest(TINY, data, 0, fold).result(network, lambda: 0.0).peeked is None


class Epochs:
    """The logits of every member on some maps after every epoch."""

    def __init__(self, maps: torch.Tensor) -> None:
        self.maps = maps
        self.seen: dict[int, list[torch.Tensor]] = {}

    def __call__(self, member: int, epochs: int, network: nn.Module) -> None:
        with torch.inference_mode():
            self.seen.setdefault(member, []).append(Committee([network]).logits(self.maps))


AFTER = {"epochs": 1, "batch": 4, "learning_rate": 2e-3}


@pytest.mark.parametrize(
    "tried",
    [
        recipe(2, epochs=6),
        recipe(2, epochs=6, kernel={"share": 0.2, "centres": 60}),
        recipe(2, epochs=6, pretrain={**PRETRAIN, "members": 1, "learning_rate": 1e-5, "after": AFTER}),
    ],
    ids=["networks", "kernel", "one fitted for fewer epochs"],
)
def test_peeking_finds_the_best_epoch_on_the_test_subject(data: FlowMaps, tried: Recipe) -> None:
    chosen = []
    for fold in leave_one_subject_out(data.subjects)[:2]:
        found = evaluate_fold(tried, data, 0, fold, select_on_test=True)
        epochs, truth = each_epoch(tried, data, fold)
        hits = [int((logits.argmax(1) == truth).sum()) for logits in epochs]
        chosen.append(hits.index(max(hits)))
        assert np.abs(np.array(found.peeked) - epochs[chosen[-1]]).max() < 2e-5
        assert np.abs(np.array(found.logits) - epochs[-1]).max() < 2e-5
    assert any(0 < epoch < 5 for epoch in chosen)


def each_epoch(tried: Recipe, data: FlowMaps, fold: Fold) -> tuple[list[F32], npt.NDArray[np.int64]]:
    """The committee's logits on the judged maps after each of six epochs, and their labels."""
    judged = data.take(fold.test)
    watch = Epochs(torch.from_numpy(judged.inputs("whole")))
    network = fit(tried, data.take(fold.train), seed=0, watch=watch)
    with torch.inference_mode():
        _, kernel = network.each(watch.maps)
    epochs = []
    for epoch in range(6):
        mean = torch.stack([rows[epoch] if epoch < len(rows) else rows[-1] for rows in watch.seen.values()]).mean(0)
        share = network.kernel_share
        epochs.append((mean if kernel is None else (1 - share) * mean + share * kernel).numpy())
    return epochs, judged.labels
